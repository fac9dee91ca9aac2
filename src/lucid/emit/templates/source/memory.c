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
    double processors; /* that may be used, when it was made */
    int64_t left; /* when the team's last call ended */
    struct pace paces[PLANS];
    pid_t process;
    struct worker *workers;
    int64_t started;
    pthread_mutex_t team_lock;
    pthread_mutex_t lock; /* of `idle` and `running` */
    pthread_cond_t ended;
    struct workspace *idle;
    struct workspace *workspaces;
    int64_t running; /* calls */
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
