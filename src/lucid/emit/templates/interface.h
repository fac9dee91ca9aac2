/* $title: a network compiled by Lucid, as a library in C.
 *
 * $signature
 *
 * One model serves any number of threads at the same time. Nothing but ${name}_create allocates
 * memory, and nothing prints or exits: what goes wrong is told by a status, which ${name}_error
 * puts into words.
 */
#ifndef ${NAME}_H
#define ${NAME}_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ${NAME}_API __attribute__((visibility("default")))
#else
#define ${NAME}_API
#endif

enum { ${NAME}_INPUTS = $inputs, ${NAME}_OUTPUTS = $outputs, ${NAME}_MAX_RANK = $max_rank };

typedef enum ${name}_status {
    ${NAME}_OK,
    ${NAME}_NULL_ARGUMENT,   /* a pointer that is needed is null */
    ${NAME}_BAD_OPTION,      /* a number of threads or calls, or a level, that makes no sense */
    ${NAME}_NO_PROCESSOR,    /* the processor or the system lacks instructions of all levels */
    ${NAME}_NO_MEMORY,
    ${NAME}_NO_THREADS,      /* the system does not let the process start so many */
    ${NAME}_WEIGHTS_MISSING, /* the file cannot be opened or mapped: see errno */
    ${NAME}_WEIGHTS_FOREIGN, /* the file is not made for this library */
    ${NAME}_WEIGHTS_DAMAGED, /* the file is cut off, or some of it was changed */
    ${NAME}_BAD_COUNT,       /* not as many inputs or outputs as the network has */
    ${NAME}_BAD_SHAPE,       /* a shape that nothing was compiled for */
    ${NAME}_BAD_SIZE,        /* an array of not as many bytes as its shape takes */
    ${NAME}_BAD_POINTER,     /* an array not aligned to its elements, or one in another */
    ${NAME}_FORKED,          /* the model was made by a parent of this process */
    ${NAME}_BROKEN           /* tables and code of different versions */
} ${name}_status;

typedef enum ${name}_dtype {
    ${NAME}_FLOAT32,
    ${NAME}_FLOAT16,
    ${NAME}_BFLOAT16,
    ${NAME}_FLOAT64,
    ${NAME}_INT8,
    ${NAME}_INT16,
    ${NAME}_INT32,
    ${NAME}_INT64,
    ${NAME}_UINT8,
    ${NAME}_UINT16,
    ${NAME}_UINT32,
    ${NAME}_UINT64,
    ${NAME}_BOOL /* a byte, 0 or 1 */
} ${name}_dtype;

/* What an input or output is called, and how it lies in memory: row-major, without gaps. `shape`
 * is that of the first of the sizes compiled for; `batch` how many rows it has for each row of the
 * batch, 0 where it has no batch. */
typedef struct ${name}_tensor {
    const char *name;
    ${name}_dtype dtype;
    int rank;
    size_t item_bytes;
    const int64_t *shape;
    int64_t batch;
} ${name}_tensor;

/* An array of a call. `shape`: as many sizes as the input has axes; null for the first of those
 * compiled for. */
typedef struct ${name}_input {
    const void *data;
    size_t bytes;
    const int64_t *shape;
} ${name}_input;

typedef struct ${name}_output {
    void *data;
    size_t bytes;
} ${name}_output;

/* Zeros and nulls stand for what is said in brackets.
 *
 * weights: path of $name.bin$weights_null.
 * threads: that a call is done by, the caller's among them (as many as affinity and the quotas of
 *   control groups allow, a part of one counted as one; with 1, none is started). Best are as many as
 *   it was compiled for: more or fewer give the same bits. While one call has them, others run on
 *   their callers' threads.
 * max_calls: how many calls have memory, which is taken by create (as many as processors may be
 *   used); one more waits until another has ended.
 * level: which instructions to use, of those that the library has code for: $levels
 *   (the best that runs here). */
typedef struct ${name}_options {
    const char *weights;
    int threads;
    int max_calls;
    const char *level;
} ${name}_options;

typedef struct ${name}_model ${name}_model;

/* Makes a model: checks the weights, takes memory, starts threads. *model is null unless the status
 * is OK. */
${NAME}_API ${name}_status ${name}_create(const ${name}_options *options, ${name}_model **model);

/* Computes the outputs, of the sizes that ${name}_output_shape tells. Arrays are aligned to their
 * elements, and outputs share no memory with others. A batch that was not compiled for is done in
 * parts, where rows do not depend on each other, with the same bits. */
${NAME}_API ${name}_status ${name}_run(${name}_model *model, const ${name}_input *inputs,
                                  size_t input_count, const ${name}_output *outputs,
                                  size_t output_count);

/* Ends the threads and gives everything back; no call may be running. Null is let be. */
${NAME}_API void ${name}_destroy(${name}_model *model);

/* Of a number that the network does not have: null. */
${NAME}_API const ${name}_tensor *${name}_input_info(size_t number);
${NAME}_API const ${name}_tensor *${name}_output_info(size_t number);

/* The shape of an output for inputs of these shapes, one pointer for each (each, or `shapes`
 * itself, may be null as above); `shape` has room for ${NAME}_MAX_RANK sizes. */
${NAME}_API ${name}_status ${name}_output_shape(const int64_t *const *shapes, size_t number,
                                           int64_t *shape);

/* The name of the level in use. */
${NAME}_API const char *${name}_level(const ${name}_model *model);

/* What a status means, for people; never null. */
${NAME}_API const char *${name}_error(${name}_status status);

#ifdef __cplusplus
}
#endif

#endif
