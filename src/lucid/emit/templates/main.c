/* An example of $title in C: it $example_told
 *
 *   main ${weights_argument}$arguments
 */
#include "$name.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHTS = $weights_arguments, LABELS = $label_count, BEST = 5 };
enum { ROWS = $rows }; /* images in a batch */

static const char *const labels[] = {
$labels
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void *take(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (memory == NULL)
        fail("$name", "out of memory");
    return memory;
}

/* A whole file. */
static unsigned char *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    unsigned char *content;
    long end = -1;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (end = ftell(file)) < 0)
        fail(path, "cannot be read");
    rewind(file);
    *bytes = (size_t)end;
    content = take(*bytes);
    if (fread(content, 1, *bytes, file) != *bytes)
        fail(path, "cannot be read");
    fclose(file);
    return content;
}

#if $image
/* -- images ----------------------------------------------------------------------------------- */

enum { CHANNELS = $channels, HEIGHT = $height, WIDTH = $width, SWAPPED = $swapped };
enum { KEEP, SHORTER, EXACT, COVER };

static const double means[CHANNELS] = {$means}, stds[CHANNELS] = {$stds};

/* Levels 0..255, pixel by pixel, line by line. */
struct image {
    int height, width;
    unsigned char *levels;
};

/* The next number in the header of a PPM or PGM file; -1 where there is none. */
static long number(const unsigned char *text, size_t bytes, size_t *at)
{
    long value = 0;
    while (*at < bytes && (strchr(" \t\r\n", text[*at]) != NULL || text[*at] == '#'))
        if (text[(*at)++] == '#')
            while (*at < bytes && text[*at] != '\n')
                ++*at;
    if (*at >= bytes || text[*at] < '0' || text[*at] > '9')
        return -1;
    while (*at < bytes && text[*at] >= '0' && text[*at] <= '9' && value < 1 << 20)
        value = 10 * value + (text[(*at)++] - '0');
    return value;
}

/* One channel of a pixel, which is RGB or grey, as the network has channels. */
static unsigned char level(const unsigned char *pixel, int own, int channel)
{
    if (own == 1)
        return pixel[0];
    if (CHANNELS == 1)
        return (unsigned char)((19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2] + 32768) >> 16);
    return pixel[channel];
}

/* An image of a PPM (P6) or PGM (P5) file of 8 bits. */
static struct image decoded(const char *path, const unsigned char *file, size_t bytes)
{
    struct image image;
    size_t at = 2, pixels, i;
    int own = file[1] == '6' ? 3 : 1, channel;
    long width = number(file, bytes, &at), height = number(file, bytes, &at);
    long most = number(file, bytes, &at);
    if (width < 1 || height < 1 || width > 1 << 15 || height > 1 << 15 || most != 255)
        fail(path, "not an image of 8 bits a level");
    pixels = (size_t)width * (size_t)height;
    if (bytes - at < 1 + pixels * (size_t)own)
        fail(path, "the image is cut off");
    image.height = (int)height;
    image.width = (int)width;
    image.levels = take(pixels * CHANNELS);
    for (i = 0; i < pixels; i++)
        for (channel = 0; channel < CHANNELS; channel++)
            image.levels[i * CHANNELS + (size_t)channel] =
                level(file + at + 1 + i * (size_t)own, own, channel);
    return image;
}

static double weight(double distance)
{
    double x = fabs(distance);
#if $bicubic
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
#else
    return x < 1 ? 1 - x : 0;
#endif
}

/* One line, of `from` levels that are `step` apart, as `to` levels: every level is the mean of
 * those around its place, weighted by their distances, of more where there are fewer in the end. */
static void resample(const unsigned char *line, size_t step, int from, unsigned char *out, int to)
{
    double scale = (double)from / to, reach = scale > 1 ? scale : 1;
    double support = ($bicubic ? 2 : 1) * reach;
    int i, j;
    for (i = 0; i < to; i++) {
        double centre = (i + 0.5) * scale, sum = 0, total = 0;
        int first = (int)fmax(0, floor(centre - support + 0.5));
        int last = (int)fmin(from, floor(centre + support + 0.5));
        for (j = first; j < last; j++) {
            double share = weight((j + 0.5 - centre) / reach);
            sum += share * line[(size_t)j * step];
            total += share;
        }
        out[(size_t)i * step] = (unsigned char)fmin(255, fmax(0, floor(sum / total + 0.5)));
    }
}

static struct image resized(struct image image, int height, int width)
{
    struct image wide = {0, 0, NULL}, made = {0, 0, NULL};
    size_t across = (size_t)width * CHANNELS, i;
    if (height == image.height && width == image.width)
        return image;
    wide.levels = take(across * (size_t)image.height);
    made.levels = take(across * (size_t)height);
    for (i = 0; i < (size_t)image.height * CHANNELS; i++) {
        size_t y = i / CHANNELS, channel = i % CHANNELS;
        resample(image.levels + y * (size_t)image.width * CHANNELS + channel, CHANNELS, image.width,
                 wide.levels + y * across + channel, width);
    }
    for (i = 0; i < across; i++)
        resample(wide.levels + i, across, image.height, made.levels + i, height);
    free(wide.levels);
    free(image.levels);
    made.height = height;
    made.width = width;
    return made;
}

static struct image fitted(struct image image)
{
    int height = $resize_height, width = $resize_width;
    int shorter = image.height < image.width ? image.height : image.width;
    double ratio;
    switch ($resize) {
    case KEEP:
        return image;
    case EXACT:
        break;
    case SHORTER:
        height = (int)((long)image.height * $resize_height / shorter);
        width = (int)((long)image.width * $resize_height / shorter);
        break;
    case COVER:
        ratio = fmin((double)image.height / height, (double)image.width / width);
        height = (int)rint(image.height / ratio);
        width = (int)rint(image.width / ratio);
        break;
    }
    if ((double)height * width > 1 << 26)
        fail("the image", "its proportions are too extreme");
    return resized(image, height, width);
}

/* The middle of the image as the network's input, in all rows of the batch. */
static unsigned char *prepared(struct image image, size_t *bytes)
{
    size_t size = (size_t)CHANNELS * HEIGHT * WIDTH * ($floats ? sizeof(float) : 1);
    unsigned char *input = take(*bytes = size * ROWS);
    int top = (int)rint((image.height - HEIGHT) / 2.0), left = (int)rint((image.width - WIDTH) / 2.0);
    int y, x, channel, i;
    for (y = 0; y < HEIGHT; y++)
        for (x = 0; x < WIDTH; x++)
            for (channel = 0; channel < CHANNELS; channel++) {
                int row = y + top, column = x + left;
                int inside = row >= 0 && row < image.height && column >= 0 && column < image.width;
                int of = $floats && SWAPPED ? CHANNELS - 1 - channel : channel;
                unsigned char own =
                    inside ? image.levels[((size_t)row * (size_t)image.width + (size_t)column) *
                                              CHANNELS +
                                          (size_t)of]
                           : 0;
                size_t planar = ((size_t)channel * HEIGHT + (size_t)y) * WIDTH + (size_t)x;
                size_t packed = ((size_t)y * WIDTH + (size_t)x) * CHANNELS + (size_t)channel;
                float value = ((float)own / (float)$divisor - (float)means[channel]) /
                              (float)stds[channel];
                if ($floats)
                    memcpy(input + planar * sizeof value, &value, sizeof value);
                else
                    input[packed] = own;
            }
    for (i = 1; i < ROWS; i++)
        memcpy(input + (size_t)i * size, input, size);
    free(image.levels);
    return input;
}
#endif

/* -- calls ------------------------------------------------------------------------------------ */

static size_t bytes_of(const ${name}_tensor *tensor, const int64_t *shape)
{
    size_t bytes = tensor->item_bytes;
    int axis;
    for (axis = 0; axis < tensor->rank; axis++)
        bytes *= (size_t)shape[axis];
    return bytes;
}

static unsigned char *input_of(const char *path, const ${name}_tensor *tensor, size_t *bytes)
{
    unsigned char *file = read_file(path, bytes);
#if $image
    if (*bytes > 2 && file[0] == 'P' && (file[1] == '5' || file[1] == '6')) {
        struct image image = decoded(path, file, *bytes);
        free(file);
        file = prepared(fitted(image), bytes);
    }
#endif
    if (*bytes != bytes_of(tensor, tensor->shape))
        fail(path, "not as many bytes as the input has");
    return file;
}

/* How many numbers an output has for one image; for what is not of images, all. */
static size_t of_one(const ${name}_tensor *tensor, size_t count)
{
    return tensor->rank > 0 && tensor->shape[0] % ROWS == 0 ? count / ROWS : count;
}

/* Prints the largest of these numbers, with labels where there are some. */
static void print_best(const float *values, size_t count)
{
    size_t best[BEST], found = 0, i, place;
    for (i = 0; i < count; i++) {
        for (place = found; place > 0 && values[i] > values[best[place - 1]]; place--)
            if (place < BEST)
                best[place] = best[place - 1];
        if (place < BEST)
            best[place] = i;
        found += found < BEST;
    }
    for (i = 0; i < found; i++)
        printf("%9.4f  %lu %s\n", values[best[i]], (unsigned long)best[i],
               (int)best[i] < LABELS ? labels[best[i]] : "");
}

int main(int argc, char **argv)
{
    ${name}_options options = {NULL, 0, 1, NULL};
    ${name}_model *model;
    ${name}_input inputs[${NAME}_INPUTS + 1];
    ${name}_output outputs[${NAME}_OUTPUTS + 1];
    ${name}_status status;
    size_t i;
    if (argc != 1 + WEIGHTS + ${NAME}_INPUTS) {
        fprintf(stderr, "usage: %s ${weights_argument}INPUT...\n", argv[0]);
        return 2;
    }
    options.weights = WEIGHTS ? argv[1] : NULL;
    status = ${name}_create(&options, &model);
    if (status != ${NAME}_OK)
        fail("$name", ${name}_error(status));
    for (i = 0; i < ${NAME}_INPUTS; i++) {
        inputs[i].data = input_of(argv[1 + WEIGHTS + i], ${name}_input_info(i), &inputs[i].bytes);
        inputs[i].shape = NULL;
    }
    for (i = 0; i < ${NAME}_OUTPUTS; i++) {
        int64_t shape[${NAME}_MAX_RANK];
        ${name}_output_shape(NULL, i, shape);
        outputs[i].bytes = bytes_of(${name}_output_info(i), shape);
        outputs[i].data = take(outputs[i].bytes);
    }
    status = ${name}_run(model, inputs, ${NAME}_INPUTS, outputs, ${NAME}_OUTPUTS);
    if (status != ${NAME}_OK)
        fail("$name", ${name}_error(status));
    for (i = 0; i < ${NAME}_OUTPUTS; i++) {
        const ${name}_tensor *tensor = ${name}_output_info(i);
        printf("%s\n", tensor->name);
        if (tensor->dtype == ${NAME}_FLOAT32)
            print_best(outputs[i].data, of_one(tensor, outputs[i].bytes / sizeof(float)));
        free(outputs[i].data);
    }
    for (i = 0; i < ${NAME}_INPUTS; i++)
        free((void *)(uintptr_t)inputs[i].data);
    ${name}_destroy(model);
    return 0;
}
