/* The interface of $title: see $name.h. Kernels, the code that walks tables on several threads and
 * the tables themselves are in $name.a; here are memory, threads, checks, and the choice of a level. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "$name.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif
#ifndef __${architecture}__
#error "$name.a is for $architecture"
#endif

#define HIDDEN __attribute__((visibility("hidden")))

/* -- what was compiled ------------------------------------------------------------------------ */

enum { PLANS = $plans, FAMILIES = $family_count, LEVELS = $level_count };

/* The kernel calls for one size of the inputs. */
struct plan {
    const int64_t *steps;
    const int64_t *phases;
    int64_t step_count;
    int64_t threads; /* that its largest phase is worth */
    int64_t arena_bytes;
    int64_t scratch_bytes; /* of each thread */
};

/* The sizes that a plan is for: those of inputs, then of outputs, one after the other. `batches`: of
 * each input and output, how many rows it has for one of the batch; 0 for none, or where nothing but
 * these sizes will do. */
struct sizes {
    const int64_t *shapes;
    const int64_t *batches;
    int64_t batch;
    int family;
};

/* Plans of one graph, which make up larger batches: multiples of `unit`. `sums`: of those that leave
 * each remainder by the smallest batch, which is `count` units, the least that plans make up. */
struct family {
    int64_t unit;
    int64_t count;
    const int64_t *sums;
};

/* An instruction that a level needs, as the processor tells of it. */
struct feature {
    unsigned leaf, subleaf, word, bit;
};

struct level {
    const char *name;
    const struct plan *plans;
    int64_t (*run)(int64_t *call);
    int64_t (*submit)(int64_t *team, int64_t *call);
    void (*worker)(int64_t *team, int64_t thread);
    const struct feature *needs;
    size_t need_count;
    unsigned long state; /* registers that the system must keep */
};

$level_declarations

static const struct level levels[LEVELS] = { /* the best first */
$level_rows
};

$shapes

static const struct sizes sizes[PLANS] = {
$size_rows
};

$family_sums

static const struct family families[FAMILIES] = {
$family_rows
};

static const ${name}_tensor tensors[${NAME}_INPUTS + ${NAME}_OUTPUTS] = {
$tensor_rows
};

/* The words of the tables that native code reads, and numbers that go with them. GAP: nanoseconds
 * between two calls beyond which threads sleep at once; for others see `struct pace`. */
enum {
$words
};

enum { PAGE = 4096, HUGE_PAGE = 2 << 20, MOST = $most };
enum { ARRAYS = ${NAME}_INPUTS + ${NAME}_OUTPUTS };
