/* Intel's AMX for processors without it: a handler of SIGILL that does what the instruction would.
 *
 * After amx_install(), code in this process may use ldtilecfg, sttilecfg, tilerelease, tilezero,
 * tileloadd, tileloaddt1, tilestored, tdpbf16ps and tdpb[su][su]d: they trap, are decoded where the
 * instruction pointer stands, work on eight tiles that each thread has of its own, and are stepped
 * over. Any other illegal instruction goes to the handler that was there before.
 *
 * As Intel's Software Developer's Manual (volume 2) has it: what is refused there is refused here,
 * as an illegal instruction (#UD) or by SIGSEGV (#GP), and an address that cannot be read faults by
 * itself. Not emulated, hence refused: a start row other than 0, prefixes before VEX.
 *
 * TDPBF16PS adds, for each of its results, the products of even and of odd numbers of a row apart,
 * in two chains of fused multiply-adds that begin at zero, and their sum to the result: 2 * 16 steps
 * rounded to nearest even, with denormals taken for zeros and flushed to zero. That is the manual's
 * pseudo code; processors are free to add in another order and may differ in the last bits.
 */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include <xmmintrin.h>

#ifndef __x86_64__
#error "AMX is of x86-64 alone"
#endif

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, CONFIGURATION_BYTES = 64 };
enum { FLUSH_TO_ZERO = 0x9fc0 }; /* MXCSR: nothing raised, to nearest, denormals are zeros */

typedef struct {
    union {
        uint8_t bytes[ROWS][ROW_BYTES];
        uint16_t bf16[ROWS][ROW_BYTES / 2];
        uint32_t integers[ROWS][ROW_BYTES / 4];
        float floats[ROWS][ROW_BYTES / 4];
    };
    int rows, row_bytes; /* 0, 0: not configured */
} Tile;

static _Thread_local struct {
    Tile tiles[TILES];
    uint8_t configuration[CONFIGURATION_BYTES];
} state;

static atomic_long configured, executed;
static struct sigaction former;

/* -- what an instruction did ---------------------------------------------------------------- */

typedef enum { DONE, UNDEFINED, PROTECTION } Outcome;

static Outcome require(int condition) { return condition ? DONE : UNDEFINED; }

/* -- configuration -------------------------------------------------------------------------- */

static int all_zero(const uint8_t *bytes, int first, int last) {
    for (int i = first; i < last; i++)
        if (bytes[i]) return 0;
    return 1;
}

static void release(void) {
    if (state.configuration[0]) atomic_fetch_sub(&configured, 1);
    memset(&state, 0, sizeof state);
}

static Outcome load_configuration(const uint8_t *memory) {
    uint8_t given[CONFIGURATION_BYTES];
    memcpy(given, memory, sizeof given);
    if (given[0] == 0) {
        release();
        return DONE;
    }
    int refused = given[0] != 1 || !all_zero(given, 1, 16) || !all_zero(given, 32, 48) ||
                  !all_zero(given, 56, 64);
    for (int t = 0; t < TILES; t++) {
        int row_bytes = given[16 + 2 * t] | given[17 + 2 * t] << 8, rows = given[48 + t];
        refused |= row_bytes > ROW_BYTES || rows > ROWS || (row_bytes == 0) != (rows == 0);
    }
    if (refused) return PROTECTION;
    release();
    memcpy(state.configuration, given, sizeof given);
    for (int t = 0; t < TILES; t++) {
        state.tiles[t].row_bytes = given[16 + 2 * t] | given[17 + 2 * t] << 8;
        state.tiles[t].rows = given[48 + t];
    }
    atomic_fetch_add(&configured, 1);
    return DONE;
}

/* -- tiles ---------------------------------------------------------------------------------- */

static void zero(Tile *tile) { memset(tile->bytes, 0, sizeof tile->bytes); }

static void load(Tile *tile, const uint8_t *memory, int64_t stride) {
    zero(tile);
    for (int r = 0; r < tile->rows; r++)
        memcpy(tile->bytes[r], memory + r * stride, tile->row_bytes);
}

static void store(const Tile *tile, uint8_t *memory, int64_t stride) {
    for (int r = 0; r < tile->rows; r++)
        memcpy(memory + r * stride, tile->bytes[r], tile->row_bytes);
}

static float widened(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float number;
    memcpy(&number, &word, sizeof number);
    return number;
}

static void multiply_bf16(Tile *sums, const Tile *left, const Tile *right) {
    int columns = sums->row_bytes / 4, steps = left->row_bytes / 4;
    for (int m = 0; m < sums->rows; m++) {
        float even[ROW_BYTES / 4] = {0}, odd[ROW_BYTES / 4] = {0};
        for (int k = 0; k < steps; k++) {
            const uint16_t *x = &left->bf16[m][2 * k], *w = right->bf16[k];
            for (int n = 0; n < columns; n++) {
                even[n] = fmaf(widened(x[0]), widened(w[2 * n]), even[n]);
                odd[n] = fmaf(widened(x[1]), widened(w[2 * n + 1]), odd[n]);
            }
        }
        for (int n = 0; n < columns; n++) sums->floats[m][n] += even[n] + odd[n];
    }
}

static int32_t byte(uint8_t bits, int is_signed) { return is_signed ? (int8_t)bits : bits; }

static void multiply_bytes(
    Tile *sums, const Tile *left, const Tile *right, int left_signed, int right_signed
) {
    for (int m = 0; m < sums->rows; m++)
        for (int k = 0; k < left->row_bytes; k++)
            for (int n = 0; n < sums->row_bytes / 4; n++)
                sums->integers[m][n] += byte(left->bytes[m][k], left_signed) *
                                        byte(right->bytes[k / 4][4 * n + k % 4], right_signed);
}

/* -- decoding ------------------------------------------------------------------------------- */

enum { NONE, X66, XF3, XF2 }; /* the prefix that VEX stands for */

typedef struct {
    int opcode, prefix, operand; /* `operand`: VEX.vvvv, 0 where it names none */
    int mode, reg, rm;           /* of ModRM, with VEX's bits; `mode` 3: registers */
    int has_sib;
    uint8_t *address; /* of memory: base and displacement */
    int64_t stride;   /* the scaled index, 0 where there is none */
    const uint8_t *end;
} Instruction;

static const int NUMBERS[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static int64_t displacement(const uint8_t **at, int bytes) {
    int8_t one;
    int32_t four;
    const uint8_t *here = *at;
    *at += bytes;
    if (bytes == 1) return memcpy(&one, here, 1), one;
    return memcpy(&four, here, 4), four;
}

/* The operand in memory, from behind ModRM on. */
static void decode_memory(Instruction *found, const uint8_t *at, int x, int b, const greg_t *regs) {
    int low = found->rm & 7, base = found->rm;
    int64_t address = 0;
    found->has_sib = low == 4;
    if (found->has_sib) {
        int index = (*at >> 3 & 7) | x << 3;
        base = (*at & 7) | b << 3;
        if (index != 4) found->stride = (int64_t)((uint64_t)regs[NUMBERS[index]] << (*at >> 6));
        low = *at++ & 7;
    }
    int alone = found->mode == 0 && low == 5; /* without a base */
    if (!alone) address = regs[NUMBERS[base]];
    if (found->mode == 1) address += displacement(&at, 1);
    if (found->mode == 2 || alone) address += displacement(&at, 4);
    if (alone && !found->has_sib) address += (int64_t)at; /* after the instruction */
    found->address = (uint8_t *)address;
    found->end = at;
}

/* Whether there is a VEX instruction of map 0F38, 128 bits and W0 at `code`. */
static int decode(Instruction *found, const uint8_t *code, const greg_t *regs) {
    memset(found, 0, sizeof *found);
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) return 0;
    int r = !(code[1] & 0x80), x = !(code[1] & 0x40), b = !(code[1] & 0x20);
    found->prefix = code[2] & 3;
    found->operand = ~(code[2] >> 3) & 15;
    found->opcode = code[3];
    found->mode = code[4] >> 6;
    found->reg = (code[4] >> 3 & 7) | r << 3;
    found->rm = (code[4] & 7) | (found->mode == 3 || (code[4] & 7) != 4 ? b << 3 : 0);
    if (found->mode == 3)
        found->end = code + 5;
    else
        decode_memory(found, code + 5, x, b, regs);
    return 1;
}

/* -- executing ------------------------------------------------------------------------------ */

static Tile *tile(int number) {
    return number < TILES && state.tiles[number].rows ? &state.tiles[number] : NULL;
}

static Outcome configure(const Instruction *i) {
    if (i->operand) return UNDEFINED;
    if (i->mode == 3) {
        if (i->prefix == NONE && i->reg == 0 && i->rm == 0) return release(), DONE;
        if (i->prefix != XF2 || i->rm != 0 || !tile(i->reg)) return UNDEFINED;
        return zero(tile(i->reg)), DONE;
    }
    uint8_t *memory = i->address + i->stride;
    if (i->reg != 0) return UNDEFINED;
    if (i->prefix == NONE) return load_configuration(memory);
    if (i->prefix != X66) return UNDEFINED;
    return memcpy(memory, state.configuration, CONFIGURATION_BYTES), DONE;
}

static Outcome move(const Instruction *i) {
    Tile *moved = tile(i->reg);
    if (i->operand || i->mode == 3 || !i->has_sib || !moved) return UNDEFINED;
    if (i->prefix == XF3)
        store(moved, i->address, i->stride);
    else if (i->prefix != NONE)
        load(moved, i->address, i->stride);
    return require(i->prefix != NONE);
}

static Outcome multiply(const Instruction *i) {
    Tile *sums = tile(i->reg), *left = tile(i->rm), *right = tile(i->operand);
    if (i->mode != 3 || !sums || !left || !right) return UNDEFINED;
    if (sums == left || sums == right || left == right) return UNDEFINED;
    if ((sums->row_bytes | left->row_bytes | right->row_bytes) % 4) return UNDEFINED;
    if (sums->row_bytes != right->row_bytes || sums->rows != left->rows) return UNDEFINED;
    if (left->row_bytes / 4 != right->rows) return UNDEFINED;
    if (i->opcode == 0x5c) {
        if (i->prefix != XF3) return UNDEFINED;
        return multiply_bf16(sums, left, right), DONE;
    }
    int left_signed = i->prefix >= XF3, right_signed = i->prefix == XF2 || i->prefix == X66;
    return multiply_bytes(sums, left, right, left_signed, right_signed), DONE;
}

static Outcome execute(const Instruction *i) {
    switch (i->opcode) {
    case 0x49: return configure(i);
    case 0x4b: return move(i);
    case 0x5c:
    case 0x5e: return multiply(i);
    default: return UNDEFINED;
    }
}

/* What was to be done with an illegal instruction before. */
static void pass_on(int number, siginfo_t *info, void *context) {
    if (former.sa_flags & SA_SIGINFO)
        former.sa_sigaction(number, info, context);
    else if (former.sa_handler == SIG_DFL || former.sa_handler == SIG_IGN)
        sigaction(SIGILL, &former, NULL); /* the instruction is tried again, and ends the process */
    else
        former.sa_handler(number);
}

static void handle(int number, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    Instruction instruction;
    _mm_setcsr(FLUSH_TO_ZERO); /* until the handler returns */
    Outcome outcome = UNDEFINED;
    if (decode(&instruction, (const uint8_t *)regs[REG_RIP], regs)) outcome = execute(&instruction);
    if (outcome == DONE) {
        regs[REG_RIP] = (greg_t)instruction.end;
        atomic_fetch_add(&executed, 1);
    } else if (outcome == PROTECTION)
        raise(SIGSEGV);
    else
        pass_on(number, info, context);
}

/* -- what tests call ------------------------------------------------------------------------ */

/* From now on; 0 unless the system refuses. */
int amx_install(void) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    return sigaction(SIGILL, &action, &former);
}

/* How many threads have tiles configured: those that ended without releasing them, too. */
long amx_configured(void) { return atomic_load(&configured); }

/* How many instructions were emulated. */
long amx_executed(void) { return atomic_load(&executed); }
