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

/* Starts the team's threads, which get no signals, those are for the program's own, but faults:
 * blocked, these would end the program without its handler. */
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
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
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

/* Whether no other call of the model runs. */
static int is_only_one(${name}_model *model)
{
    int only;
    pthread_mutex_lock(&model->lock);
    only = model->running == 1;
    pthread_mutex_unlock(&model->lock);
    return only;
}

/* Runs a call on as many of the team's threads as it is worth, and as take least just now; on this
 * one alone where that is one, or the team is busy. */
static int64_t enter(${name}_model *model, const struct plan *plan, int64_t *call)
{
    int64_t threads = plan->threads < model->threads ? plan->threads : model->threads;
    int64_t start, length, status;
    int only;
    struct pace *pace = &model->paces[plan - model->level->plans];
    if (threads <= 1 || pthread_mutex_trylock(&model->team_lock) != 0)
        return model->level->run(call);
    threads = paced(pace, threads);
    only = is_only_one(model);
    start = now();
    if (threads == 1) {
        pthread_mutex_unlock(&model->team_lock);
        status = model->level->run(call);
        length = now() - start;
        if (pthread_mutex_trylock(&model->team_lock) != 0)
            return status;
    } else {
        employ(model, threads);
        status = model->level->submit(model->team, call);
        model->left = now();
        length = model->left - start;
        if (model->team[TEAM_IN_VAIN])
            in_vain(pace, threads);
    }
    if (only && is_only_one(model))
        took(pace, threads, length);
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
    model->running++;
    pthread_mutex_unlock(&model->lock);
    return own;
}

static void give_workspace(${name}_model *model, struct workspace *own)
{
    pthread_mutex_lock(&model->lock);
    own->next = model->idle;
    model->idle = own;
    model->running--;
    pthread_cond_signal(&model->ended);
    pthread_mutex_unlock(&model->lock);
}
