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
