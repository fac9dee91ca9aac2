/* Hides AVX-512, AVX10 and AMX from the process that preloads this library.
 *
 * CPUID faults once the kernel is asked for it (arch_prctl, inherited by threads, not by exec). The
 * handler executes the instruction itself, clears the bits of what is hidden, and skips it. Where the
 * processor or the kernel cannot let CPUID fault, the handler answers for the instructions that stand
 * in its place in copies of libraries (isa.py): two that 64-bit processors do not have, PUSH ES and
 * POP ES. Nobody else gets to handle these signals: compilers and others would take the place.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012 };

typedef void (*handler)(int);
typedef int (*sigaction_function)(int, const struct sigaction *, struct sigaction *);
typedef handler (*signal_function)(int, handler);

static const unsigned char cpuid_code[] = {0x0f, 0xa2}, stand_in[] = {0x06, 0x07};

static long set_cpuid(int allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void hide(unsigned leaf, unsigned subleaf, unsigned *a, unsigned *b, unsigned *c,
                 unsigned *d) {
    if (leaf == 7 && subleaf == 0) {
        /* avx512: f dq ifma pf er cd bw vl; vbmi vbmi2 vnni bitalg vpopcntdq; 4vnniw 4fmaps
         * vp2intersect fp16; amx: bf16 tile int8 */
        *b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
        *c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
        *d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
    }
    if (leaf == 7 && subleaf == 1) {
        *a &= ~(1u << 5 | 1u << 21); /* avx512_bf16, amx_fp16 */
        *d &= ~(1u << 8 | 1u << 19); /* amx_complex, avx10 */
    }
}

static int real_sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    return ((sigaction_function)dlsym(RTLD_NEXT, "sigaction"))(number, action, old);
}

static int is_taken(int number) { return number == SIGSEGV || number == SIGILL; }

int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    return real_sigaction(number, is_taken(number) ? NULL : action, old);
}

handler signal(int number, handler action) {
    return is_taken(number) ? SIG_DFL
                            : ((signal_function)dlsym(RTLD_NEXT, "signal"))(number, action);
}

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const void *code = (const void *)registers[REG_RIP];
    unsigned a = (unsigned)registers[REG_RAX], b, c = (unsigned)registers[REG_RCX], d;
    const unsigned leaf = a, subleaf = c;
    (void)info;
    if (memcmp(code, number == SIGILL ? stand_in : cpuid_code, sizeof cpuid_code)) {
        /* a true fault: happens again, and kills */
        struct sigaction fallback = {.sa_handler = SIG_DFL};
        real_sigaction(number, &fallback, NULL);
        return;
    }
    set_cpuid(1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    set_cpuid(0);
    hide(leaf, subleaf, &a, &b, &c, &d);
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    if (real_sigaction(SIGILL, &action, NULL) == 0 && real_sigaction(SIGSEGV, &action, NULL) == 0)
        set_cpuid(0);
}
