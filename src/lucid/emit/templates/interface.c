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
 * between two calls beyond which threads sleep at once. */
enum {
$words
};

enum { PAGE = 4096, HUGE_PAGE = 2 << 20, MOST = $most };
enum { ARRAYS = ${NAME}_INPUTS + ${NAME}_OUTPUTS };

/* -- weights ---------------------------------------------------------------------------------- */

#define MAGIC $magic

/* What tells these tables from all others. Its name, which the linker looks for, is that of the
 * library beside which this source was written. */
extern HIDDEN const uint64_t $identity[2];

struct header {
    char magic[8];
    uint64_t version;
    uint64_t bytes;
    uint64_t identity[2];
    uint64_t sums[2];
    uint64_t unused;
};

#if $embedded
extern HIDDEN const struct header $weights_symbol;
#define EMBEDDED &$weights_symbol
#else
#define EMBEDDED NULL
#endif

/* Two sums over the 64-bit words behind the header, the second of the first one's values. */
static void sum(const uint64_t *words, size_t count, uint64_t sums[2])
{
    size_t i;
    sums[0] = sums[1] = 0;
    for (i = 0; i < count; i++) {
        sums[0] += words[i];
        sums[1] += sums[0];
    }
}

static ${name}_status check(const void *file, size_t bytes)
{
    const struct header *header = file;
    uint64_t sums[2];
    if (bytes < sizeof header->magic ||
        memcmp(header->magic, MAGIC, sizeof header->magic) != 0)
        return ${NAME}_WEIGHTS_FOREIGN;
    if (bytes < sizeof *header || bytes % 8 != 0)
        return ${NAME}_WEIGHTS_DAMAGED;
    if (header->version != $version ||
        memcmp(header->identity, $identity, sizeof $identity) != 0)
        return ${NAME}_WEIGHTS_FOREIGN;
    if (header->bytes != bytes)
        return ${NAME}_WEIGHTS_DAMAGED;
    sum((const uint64_t *)(header + 1), (bytes - sizeof *header) / 8, sums);
    return memcmp(sums, header->sums, sizeof sums) == 0 ? ${NAME}_OK : ${NAME}_WEIGHTS_DAMAGED;
}

/* Maps the file read-only, so that all processes share its pages. */
static ${name}_status map_file(const char *path, void **file, size_t *bytes)
{
    struct stat told;
    ${name}_status status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), known; /* a pipe may block */
    if (descriptor < 0)
        return ${NAME}_WEIGHTS_MISSING;
    known = fstat(descriptor, &told) == 0;
    if (!known || !S_ISREG(told.st_mode)) {
        close(descriptor);
        if (known)
            errno = EINVAL;
        return ${NAME}_WEIGHTS_MISSING;
    }
    if (told.st_size < (off_t)sizeof(struct header)) {
        close(descriptor);
        return ${NAME}_WEIGHTS_DAMAGED;
    }
    *bytes = (size_t)told.st_size;
    *file = mmap(NULL, *bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, descriptor, 0);
    close(descriptor);
    if (*file == MAP_FAILED) {
        *file = NULL;
        return ${NAME}_WEIGHTS_MISSING;
    }
    status = check(*file, *bytes);
    if (status != ${NAME}_OK) {
        munmap(*file, *bytes);
        *file = NULL;
    }
    return status;
}

/* -- models ----------------------------------------------------------------------------------- */

/* The memory of one call at a time. */
struct workspace {
    struct workspace *next;
    char *arena;
    int64_t call[CALL_WORDS];
    void *buffers[ARRAYS + 2];
};

struct worker {
    pthread_t thread;
    struct ${name}_model *model;
    int64_t number;
};

struct ${name}_model {
    const struct level *level;
    const void *weights; /* the addresses of arguments count from here */
    void *file;          /* what is mapped, if anything */
    size_t file_bytes;
    void *memory; /* of all calls and the team */
    size_t memory_bytes;
    int64_t *team;
    int64_t threads;
    int processors;
    int64_t left; /* when the team's last call ended */
    pid_t process;
    struct worker *workers;
    int64_t started;
    pthread_mutex_t team_lock;
    pthread_mutex_t lock; /* of `idle` */
    pthread_cond_t ended;
    struct workspace *idle;
    struct workspace *workspaces;
};

/* Zeroed memory, in huge pages where there are such. */
static ${name}_status reserve(size_t bytes, void **memory, size_t *reserved, char **start)
{
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : PAGE;
    *reserved = bytes + alignment;
    *memory = mmap(NULL, *reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*memory == MAP_FAILED) {
        *memory = NULL;
        return ${NAME}_NO_MEMORY;
    }
#ifdef MADV_HUGEPAGE
    if (alignment == HUGE_PAGE)
        madvise(*memory, *reserved, MADV_HUGEPAGE);
#endif
    *start = (char *)*memory + (alignment - (uintptr_t)*memory % alignment) % alignment;
    return ${NAME}_OK;
}

static size_t up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

static size_t team_bytes(const ${name}_model *model)
{
    return 8 * (TEAM_TICKETS + TICKET_WORDS * (size_t)model->threads);
}

/* Takes the memory of so many calls, and of the team's table: for each call an arena and every
 * thread's scratch, with a page between that belongs to nobody. */
static ${name}_status take_memory(${name}_model *model, int calls)
{
    size_t arena = 0, scratch = 0, call, team = up(team_bytes(model), PAGE);
    char *at = NULL;
    ${name}_status status;
    int i;
    for (i = 0; i < PLANS; i++) {
        const struct plan *plan = &model->level->plans[i];
        arena = (size_t)plan->arena_bytes > arena ? (size_t)plan->arena_bytes : arena;
        scratch = (size_t)plan->scratch_bytes > scratch ? (size_t)plan->scratch_bytes : scratch;
    }
    arena = up(arena, PAGE) + PAGE;
    call = up(arena + (size_t)model->threads * scratch + PAGE, arena >= HUGE_PAGE ? HUGE_PAGE : PAGE);
    if (call > (SIZE_MAX / 2 - team) / (size_t)calls)
        return ${NAME}_NO_MEMORY;
    status = reserve(team + (size_t)calls * call, &model->memory, &model->memory_bytes, &at);
    if (status != ${NAME}_OK)
        return status;
    model->workspaces = calloc((size_t)calls, sizeof *model->workspaces);
    if (model->workspaces == NULL)
        return ${NAME}_NO_MEMORY;
    for (i = calls - 1; i >= 0; i--) {
        struct workspace *own = &model->workspaces[i];
        own->arena = at + (size_t)i * call;
        own->call[CALL_VERSION] = DRIVER_VERSION;
        own->call[CALL_BUFFERS] = (int64_t)(intptr_t)own->buffers;
        own->call[CALL_SCRATCH] = (int64_t)(intptr_t)(own->arena + arena);
        own->next = model->idle;
        model->idle = own;
    }
    model->team = (int64_t *)(void *)(at + (size_t)calls * call);
    return ${NAME}_OK;
}

/* -- threads ---------------------------------------------------------------------------------- */

static void set(int64_t *word, int64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static void wake(int64_t *word)
{
    syscall(FUTEX, word, FUTEX_WAKE_PRIVATE, INT32_MAX, 0, 0, 0);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    worker->model->level->worker(worker->model->team, worker->number);
    return NULL;
}

static void stop_threads(${name}_model *model)
{
    int64_t i;
    set(&model->team[TEAM_THREADS], 0);
    __atomic_add_fetch(&model->team[TEAM_SERIAL], 1, __ATOMIC_SEQ_CST);
    wake(&model->team[TEAM_SERIAL]);
    wake(&model->team[TEAM_THREADS]);
    for (i = 0; i < model->started; i++)
        pthread_join(model->workers[i].thread, NULL);
}

/* Starts the team's threads, which get no signals: those are for the program's own. */
static ${name}_status start_threads(${name}_model *model)
{
    sigset_t all, before;
    int problem = 0;
    model->team[TEAM_THREADS] = model->threads;
    model->team[TEAM_SYSCALL] = (int64_t)(intptr_t)syscall;
    if (model->threads == 1)
        return ${NAME}_OK;
    model->workers = calloc((size_t)model->threads - 1, sizeof *model->workers);
    if (model->workers == NULL)
        return ${NAME}_NO_MEMORY;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (problem == 0 && model->started < model->threads - 1) {
        struct worker *worker = &model->workers[model->started];
        worker->model = model;
        worker->number = model->started + 1;
        problem = pthread_create(&worker->thread, NULL, work, worker);
        model->started += problem == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return problem == 0 ? ${NAME}_OK : ${NAME}_NO_THREADS;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Sets a word that all threads read, if it is another. */
static void change(int64_t *word, int64_t value)
{
    if (*word != value)
        set(word, value);
}

/* Lets so many threads do the next call, while others rest. Those wait without sleeping where there is
 * a processor for each, and after the call where the one before it had just ended. */
static void employ(const ${name}_model *model, int64_t threads)
{
    int64_t *team = model->team, before = team[TEAM_THREADS];
    int spins = threads <= model->processors;
    change(&team[TEAM_CALL_SPINS], spins ? CALL_SPINS : 0);
    change(&team[TEAM_IDLE_SPINS], spins && now() - model->left < GAP ? IDLE_SPINS : 0);
    change(&team[TEAM_THREADS], threads);
    if (threads > before)
        wake(&team[TEAM_THREADS]);
}

/* Runs a call on as many of the team's threads as it is worth; on this one alone where that is one,
 * or the team is busy. */
static int64_t enter(${name}_model *model, const struct plan *plan, int64_t *call)
{
    int64_t threads = plan->threads < model->threads ? plan->threads : model->threads, status;
    if (threads <= 1 || pthread_mutex_trylock(&model->team_lock) != 0)
        return model->level->run(call);
    employ(model, threads);
    status = model->level->submit(model->team, call);
    model->left = now();
    pthread_mutex_unlock(&model->team_lock);
    return status;
}

static struct workspace *take_workspace(${name}_model *model)
{
    struct workspace *own;
    pthread_mutex_lock(&model->lock);
    while (model->idle == NULL)
        pthread_cond_wait(&model->ended, &model->lock);
    own = model->idle;
    model->idle = own->next;
    pthread_mutex_unlock(&model->lock);
    return own;
}

static void give_workspace(${name}_model *model, struct workspace *own)
{
    pthread_mutex_lock(&model->lock);
    own->next = model->idle;
    model->idle = own;
    pthread_cond_signal(&model->ended);
    pthread_mutex_unlock(&model->lock);
}

/* -- levels ----------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Whether the system keeps these registers when it changes threads. */
static int keeps(unsigned long state)
{
    unsigned a, b, c, d, low, high;
    if (state == 0)
        return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & state) == state;
}

static int knows(const struct feature *feature)
{
    unsigned words[4];
    if (!__get_cpuid_count(feature->leaf, feature->subleaf, &words[0], &words[1], &words[2],
                           &words[3]))
        return 0;
    return words[feature->word] >> feature->bit & 1;
}
#else
static int keeps(unsigned long state)
{
    return state == 0;
}

static int knows(const struct feature *feature)
{
    return getauxval(feature->leaf) >> feature->bit & 1;
}
#endif

static int has(const struct level *level)
{
    size_t i;
    if (!keeps(level->state))
        return 0;
    for (i = 0; i < level->need_count; i++)
        if (!knows(&level->needs[i]))
            return 0;
    return 1;
}

/* The level of this name, or the best, if the processor has its instructions. */
static ${name}_status choose(const char *name, const struct level **level)
{
    int i, known = name == NULL;
    for (i = 0; i < LEVELS; i++) {
        if (name != NULL && strcmp(name, levels[i].name) != 0)
            continue;
        known = 1;
        if (has(&levels[i])) {
            *level = &levels[i];
            return ${NAME}_OK;
        }
    }
    return known ? ${NAME}_NO_PROCESSOR : ${NAME}_BAD_OPTION;
}

/* -- create, destroy -------------------------------------------------------------------------- */

static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static ${name}_status fill(${name}_model *model, const ${name}_options *options)
{
    int calls = options->max_calls == 0 ? processors() : options->max_calls;
    ${name}_status status;
    if (options->threads < 0 || options->threads > MOST || calls < 0 || calls > MOST)
        return ${NAME}_BAD_OPTION;
    model->processors = processors();
    model->threads = options->threads == 0 ? model->processors : options->threads;
    model->process = getpid();
    status = choose(options->level, &model->level);
    if (status != ${NAME}_OK)
        return status;
    if (options->weights != NULL) {
        status = map_file(options->weights, &model->file, &model->file_bytes);
        model->weights = model->file;
    } else {
        model->weights = EMBEDDED;
        status = model->weights == NULL ? ${NAME}_NULL_ARGUMENT : ${NAME}_OK;
    }
    if (status == ${NAME}_OK)
        status = take_memory(model, calls);
    if (status == ${NAME}_OK)
        status = start_threads(model);
    return status;
}

${name}_status ${name}_create(const ${name}_options *options, ${name}_model **model)
{
    ${name}_model *made;
    ${name}_status status;
    if (model != NULL)
        *model = NULL;
    if (options == NULL || model == NULL)
        return ${NAME}_NULL_ARGUMENT;
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return ${NAME}_NO_MEMORY;
    pthread_mutex_init(&made->team_lock, NULL);
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->ended, NULL);
    status = fill(made, options);
    if (status != ${NAME}_OK)
        ${name}_destroy(made);
    else
        *model = made;
    return status;
}

void ${name}_destroy(${name}_model *model)
{
    if (model == NULL)
        return;
    if (model->process == getpid() || model->process == 0) { /* threads and locks are no child's */
        if (model->team != NULL)
            stop_threads(model);
        pthread_cond_destroy(&model->ended);
        pthread_mutex_destroy(&model->lock);
        pthread_mutex_destroy(&model->team_lock);
    }
    if (model->memory != NULL)
        munmap(model->memory, model->memory_bytes);
    if (model->file != NULL)
        munmap(model->file, model->file_bytes);
    free(model->workers);
    free(model->workspaces);
    free(model);
}

/* -- sizes ------------------------------------------------------------------------------------ */

/* Whether the inputs have the shapes of a plan with another batch, which is then `*batch`. `shapes`:
 * those of the inputs, null for those of the first plan. */
static int fits(const struct sizes *plan, const int64_t *const *shapes, int64_t *batch)
{
    const int64_t *own = plan->shapes, *first = sizes[0].shapes;
    int i, axis;
    *batch = 0;
    for (i = 0; i < ${NAME}_INPUTS; i++) {
        const int64_t *given = shapes[i] == NULL ? first : shapes[i];
        int64_t rows = plan->batches[i];
        for (axis = 0; axis < tensors[i].rank; axis++) {
            if (axis == 0 && rows > 0) {
                if (given[0] < rows || given[0] % rows != 0 || given[0] > INT64_MAX >> 24)
                    return 0;
                if (*batch != 0 && *batch != given[0] / rows)
                    return 0;
                *batch = given[0] / rows;
            } else if (given[axis] != own[axis]) {
                return 0;
            }
        }
        own += tensors[i].rank;
        first += tensors[i].rank;
    }
    if (*batch == 0)
        *batch = plan->batch;
    return 1;
}

/* Whether a batch can be put together of those that there are plans for. */
static int made_up(const struct sizes *plan, int64_t batch)
{
    const struct family *family = &families[plan->family];
    int64_t units = batch / family->unit;
    return batch % family->unit == 0 && units >= family->sums[units % family->count];
}

/* A plan for inputs of these shapes, and their batch; null where none is, and no plans make it up. */
static const struct sizes *plan_for(const int64_t *const *shapes, int64_t *batch)
{
    int64_t rows;
    int i;
    for (i = 0; i < PLANS; i++) {
        if (fits(&sizes[i], shapes, &rows) && made_up(&sizes[i], rows)) {
            *batch = rows;
            return &sizes[i];
        }
    }
    return NULL;
}

/* The plan of the same graph with the largest batch after which plans make up what is left of `rows`,
 * which they make up themselves. */
static const struct sizes *part_of(const struct sizes *plan, int64_t rows)
{
    const struct sizes *found = NULL;
    int i;
    for (i = 0; i < PLANS; i++) {
        int64_t own = sizes[i].batch;
        if (sizes[i].family == plan->family && own <= rows && made_up(plan, rows - own))
            if (found == NULL || own > found->batch)
                found = &sizes[i];
    }
    return found;
}

/* The size of an axis of an input or output for a batch. */
static int64_t size_of(const struct sizes *plan, int tensor, int axis, int64_t batch)
{
    const int64_t *shape = plan->shapes;
    int i;
    for (i = 0; i < tensor; i++)
        shape += tensors[i].rank;
    return axis == 0 && plan->batches[tensor] > 0 ? plan->batches[tensor] * batch : shape[axis];
}

/* The bytes of an input or output for a batch; SIZE_MAX where no memory is that large. */
static size_t bytes_of(const struct sizes *plan, int tensor, int64_t batch)
{
    size_t bytes = tensors[tensor].item_bytes;
    int axis;
    for (axis = 0; axis < tensors[tensor].rank; axis++) {
        size_t size = (size_t)size_of(plan, tensor, axis, batch);
        if (size > 0 && bytes > SIZE_MAX / size)
            return SIZE_MAX;
        bytes *= size;
    }
    return bytes;
}

/* -- run -------------------------------------------------------------------------------------- */

/* An array of a call, as a range of memory. */
struct array {
    char *data;
    size_t bytes;
};

static int overlap(struct array a, struct array b)
{
    uintptr_t x = (uintptr_t)a.data, y = (uintptr_t)b.data;
    return x < y + b.bytes && y < x + a.bytes;
}

static ${name}_status check_arrays(const struct sizes *plan, int64_t batch,
                                   const struct array arrays[ARRAYS])
{
    int i, j;
    for (i = 0; i < ARRAYS; i++) {
        size_t bytes = bytes_of(plan, i, batch);
        if (bytes == SIZE_MAX || arrays[i].bytes != bytes)
            return ${NAME}_BAD_SIZE;
        if (arrays[i].data == NULL && bytes > 0)
            return ${NAME}_NULL_ARGUMENT;
        if ((uintptr_t)arrays[i].data % tensors[i].item_bytes != 0)
            return ${NAME}_BAD_POINTER;
    }
    for (i = ${NAME}_INPUTS; i < ARRAYS; i++)
        for (j = 0; j < i; j++)
            if (overlap(arrays[i], arrays[j]))
                return ${NAME}_BAD_POINTER;
    return ${NAME}_OK;
}

/* Runs one plan on the rows of the arrays from `row` on. */
static int64_t run_part(${name}_model *model, struct workspace *own, const struct sizes *sized,
                        const struct array arrays[ARRAYS], int64_t row)
{
    const struct plan *plan = &model->level->plans[sized - sizes];
    int i;
    for (i = 0; i < ARRAYS; i++) {
        own->buffers[i] = arrays[i].data;
        if (row > 0 && sized->batches[i] > 0)
            own->buffers[i] = arrays[i].data + bytes_of(sized, i, 1) * (size_t)row;
    }
    own->buffers[ARRAYS] = own->arena;
    own->buffers[ARRAYS + 1] = (void *)(uintptr_t)model->weights;
    own->call[CALL_STEPS] = (int64_t)(intptr_t)plan->steps;
    own->call[CALL_STEP_COUNT] = plan->step_count;
    own->call[CALL_PHASES] = (int64_t)(intptr_t)plan->phases;
    own->call[CALL_SCRATCH_BYTES] = plan->scratch_bytes;
    return enter(model, plan, own->call);
}

${name}_status ${name}_run(${name}_model *model, const ${name}_input *inputs, size_t input_count,
                      const ${name}_output *outputs, size_t output_count)
{
    struct array arrays[ARRAYS];
    const int64_t *shapes[${NAME}_INPUTS + 1];
    const struct sizes *plan;
    struct workspace *own;
    int64_t batch = 0, row = 0, status = 0;
    ${name}_status checked;
    int i;
    if (model == NULL || (inputs == NULL && input_count > 0) ||
        (outputs == NULL && output_count > 0))
        return ${NAME}_NULL_ARGUMENT;
    if (input_count != ${NAME}_INPUTS || output_count != ${NAME}_OUTPUTS)
        return ${NAME}_BAD_COUNT;
    if (model->process != getpid())
        return ${NAME}_FORKED;
    for (i = 0; i < ${NAME}_INPUTS; i++) {
        shapes[i] = inputs[i].shape;
        arrays[i].data = (char *)(uintptr_t)inputs[i].data;
        arrays[i].bytes = inputs[i].bytes;
    }
    for (i = 0; i < ${NAME}_OUTPUTS; i++) {
        arrays[${NAME}_INPUTS + i].data = outputs[i].data;
        arrays[${NAME}_INPUTS + i].bytes = outputs[i].bytes;
    }
    plan = plan_for(shapes, &batch);
    if (plan == NULL)
        return ${NAME}_BAD_SHAPE;
    checked = check_arrays(plan, batch, arrays);
    if (checked != ${NAME}_OK)
        return checked;
    own = take_workspace(model);
    while (status == 0 && row < batch) {
        const struct sizes *part = part_of(plan, batch - row);
        status = run_part(model, own, part, arrays, row);
        row += part->batch;
    }
    give_workspace(model, own);
    return status == 0 ? ${NAME}_OK : ${NAME}_BROKEN;
}

/* -- what there is ---------------------------------------------------------------------------- */

const ${name}_tensor *${name}_input_info(size_t number)
{
    return number < ${NAME}_INPUTS ? &tensors[number] : NULL;
}

const ${name}_tensor *${name}_output_info(size_t number)
{
    return number < ${NAME}_OUTPUTS ? &tensors[${NAME}_INPUTS + number] : NULL;
}

${name}_status ${name}_output_shape(const int64_t *const *shapes, size_t number, int64_t *shape)
{
    static const int64_t *const first[${NAME}_INPUTS + 1] = {NULL};
    const struct sizes *plan;
    int64_t batch = 0;
    int axis, tensor = ${NAME}_INPUTS + (int)number;
    if (shape == NULL)
        return ${NAME}_NULL_ARGUMENT;
    if (number >= ${NAME}_OUTPUTS)
        return ${NAME}_BAD_COUNT;
    plan = plan_for(shapes == NULL ? first : shapes, &batch);
    if (plan == NULL)
        return ${NAME}_BAD_SHAPE;
    for (axis = 0; axis < tensors[tensor].rank; axis++)
        shape[axis] = size_of(plan, tensor, axis, batch);
    return ${NAME}_OK;
}

const char *${name}_level(const ${name}_model *model)
{
    return model == NULL ? "" : model->level->name;
}

const char *${name}_error(${name}_status status)
{
    switch (status) {
    case ${NAME}_OK:
        return "fine";
    case ${NAME}_NULL_ARGUMENT:
        return "a pointer that is needed is null: the options, the path of the weights "
               "($name.bin), the model, or an array";
    case ${NAME}_BAD_OPTION:
        return "threads and max_calls are from 0 to $most, level is null or one of: $levels";
    case ${NAME}_NO_PROCESSOR:
        return "this processor, or the system, lacks instructions that the code needs, which is "
               "for: $levels";
    case ${NAME}_NO_MEMORY:
        return "memory cannot be had: lower max_calls or threads";
    case ${NAME}_NO_THREADS:
        return "the system does not let this process start so many threads: lower threads";
    case ${NAME}_WEIGHTS_MISSING:
        return "the file of weights cannot be opened or mapped (errno says why)";
    case ${NAME}_WEIGHTS_FOREIGN:
        return "the file of weights is not one that was made for this library: use the $name.bin "
               "that was written beside $name.a";
    case ${NAME}_WEIGHTS_DAMAGED:
        return "the file of weights is cut off or damaged: copy it again";
    case ${NAME}_BAD_COUNT:
        return "$name has $inputs inputs and $outputs outputs";
    case ${NAME}_BAD_SHAPE:
        return "nothing was compiled for inputs of these shapes; there is: " $sizes;
    case ${NAME}_BAD_SIZE:
        return "an array has not as many bytes as its shape takes";
    case ${NAME}_BAD_POINTER:
        return "an array is not aligned to its elements, or an output shares memory with another "
               "array";
    case ${NAME}_FORKED:
        return "the model was made before a fork, by a parent of this process: make one here";
    case ${NAME}_BROKEN:
        return "the tables of the library are of another version than its code: make it anew";
    }
    return "no status of $name's";
}
