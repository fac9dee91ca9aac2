/* -- levels ----------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): leave to use tiles. */
enum { ARCH_PRCTL = 158, ASK_FOR_STATE = 0x1023, TILE_DATA = 18 };

/* Whether the system keeps these registers when it changes threads: tiles, if it is asked. */
static int keeps(unsigned long state)
{
    unsigned a, b, c, d, low, high;
    if (state == 0)
        return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & state) != state)
        return 0;
    return !(state >> TILE_DATA & 1) || syscall(ARCH_PRCTL, ASK_FOR_STATE, TILE_DATA) == 0;
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
