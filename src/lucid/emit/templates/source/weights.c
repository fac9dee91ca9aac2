/* -- weights ---------------------------------------------------------------------------------- */

#define MAGIC $magic

/* What tells these tables from all others. Its name, which the linker looks for, is that of the
 * library beside which this source was written. */
extern HIDDEN const uint64_t $identity[2];

struct header {
    char magic[8];
    uint64_t version;
    uint64_t bytes;
    uint64_t identity[2];
    uint64_t sums[2];
    uint64_t unused;
};

#if $embedded
extern HIDDEN const struct header $weights_symbol;
#define EMBEDDED &$weights_symbol
#else
#define EMBEDDED NULL
#endif

/* Two sums over the 64-bit words behind the header, the second of the first one's values. */
static void sum(const uint64_t *words, size_t count, uint64_t sums[2])
{
    size_t i;
    sums[0] = sums[1] = 0;
    for (i = 0; i < count; i++) {
        sums[0] += words[i];
        sums[1] += sums[0];
    }
}

static ${name}_status check(const void *file, size_t bytes)
{
    const struct header *header = file;
    uint64_t sums[2];
    if (bytes < sizeof header->magic ||
        memcmp(header->magic, MAGIC, sizeof header->magic) != 0)
        return ${NAME}_WEIGHTS_FOREIGN;
    if (bytes < sizeof *header || bytes % 8 != 0)
        return ${NAME}_WEIGHTS_DAMAGED;
    if (header->version != $version ||
        memcmp(header->identity, $identity, sizeof $identity) != 0)
        return ${NAME}_WEIGHTS_FOREIGN;
    if (header->bytes != bytes)
        return ${NAME}_WEIGHTS_DAMAGED;
    sum((const uint64_t *)(header + 1), (bytes - sizeof *header) / 8, sums);
    return memcmp(sums, header->sums, sizeof sums) == 0 ? ${NAME}_OK : ${NAME}_WEIGHTS_DAMAGED;
}

/* Maps the file read-only, so that all processes share its pages. */
static ${name}_status map_file(const char *path, void **file, size_t *bytes)
{
    struct stat told;
    ${name}_status status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), known; /* a pipe may block */
    if (descriptor < 0)
        return ${NAME}_WEIGHTS_MISSING;
    known = fstat(descriptor, &told) == 0;
    if (!known || !S_ISREG(told.st_mode)) {
        close(descriptor);
        if (known)
            errno = EINVAL;
        return ${NAME}_WEIGHTS_MISSING;
    }
    if (told.st_size < (off_t)sizeof(struct header)) {
        close(descriptor);
        return ${NAME}_WEIGHTS_DAMAGED;
    }
    *bytes = (size_t)told.st_size;
    *file = mmap(NULL, *bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, descriptor, 0);
    close(descriptor);
    if (*file == MAP_FAILED) {
        *file = NULL;
        return ${NAME}_WEIGHTS_MISSING;
    }
    status = check(*file, *bytes);
    if (status != ${NAME}_OK) {
        munmap(*file, *bytes);
        *file = NULL;
    }
    return status;
}
