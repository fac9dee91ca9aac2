/* -- create, destroy -------------------------------------------------------------------------- */

static ${name}_status fill(${name}_model *model, const ${name}_options *options)
{
    double usable = usable_processors();
    int calls = options->max_calls == 0 ? whole(usable) : options->max_calls;
    ${name}_status status;
    if (options->threads < 0 || options->threads > MOST || calls < 0 || calls > MOST)
        return ${NAME}_BAD_OPTION;
    model->processors = usable;
    model->threads = options->threads == 0 ? whole(usable) : options->threads;
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
