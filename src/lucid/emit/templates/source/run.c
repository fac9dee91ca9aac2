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
