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
