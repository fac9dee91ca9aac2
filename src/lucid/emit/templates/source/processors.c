/* -- processors ------------------------------------------------------------------------------- */

#ifndef ${NAME}_CGROUPS
#define ${NAME}_CGROUPS "/sys/fs/cgroup"
#define ${NAME}_MEMBERSHIP "/proc/self/cgroup"
#endif

enum { LINE = 4096, NO_QUOTA = 1 << 30 };

/* How many of two integers a file in a folder begins with. */
static int read_integers(const char *folder, const char *name, long long integers[2])
{
    char path[3 * LINE];
    FILE *file;
    int count;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "re");
    if (file == NULL)
        return 0;
    count = fscanf(file, "%lld %lld", &integers[0], &integers[1]);
    fclose(file);
    return count;
}

/* The processors that the quota set in a folder allows: cpu.max in version 2 of control groups, two
 * files in version 1. */
static double quota_in(const char *folder)
{
    long long set[2], period[2];
    if (read_integers(folder, "cpu.max", set) == 2 && set[0] > 0 && set[1] > 0)
        return (double)set[0] / (double)set[1];
    if (read_integers(folder, "cpu.cfs_quota_us", set) == 1 && set[0] > 0 &&
        read_integers(folder, "cpu.cfs_period_us", period) == 1 && period[0] > 0)
        return (double)set[0] / (double)period[0];
    return NO_QUOTA;
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

/* The tightest quota of a group and of all above it, in a hierarchy of so many controllers. */
static double quota_of(const char *controllers, const char *group)
{
    char folder[2 * LINE];
    const char *between = *controllers == '\0' ? "" : "/";
    double found = NO_QUOTA;
    char *inside;
    snprintf(folder, sizeof folder, "%s%s%s%s", ${NAME}_CGROUPS, between, controllers, group);
    do {
        found = smaller(found, quota_in(folder));
        inside = strrchr(folder + strlen(${NAME}_CGROUPS) + strlen(controllers), '/');
        if (inside != NULL)
            *inside = '\0';
    } while (inside != NULL);
    return found;
}

static int names_cpu(const char *controllers)
{
    while (controllers != NULL) {
        controllers += *controllers == ',';
        if (strncmp(controllers, "cpu", 3) == 0 && strchr(",", controllers[3]) != NULL)
            return 1;
        controllers = strchr(controllers, ',');
    }
    return 0;
}

/* The tightest quota of the process's control groups, in processors such as 1.5. */
static double cpu_quota(void)
{
    char line[LINE];
    double found = NO_QUOTA;
    FILE *file = fopen(${NAME}_MEMBERSHIP, "re");
    if (file == NULL)
        return quota_of("", "/");
    while (fgets(line, sizeof line, file) != NULL) {
        char *controllers = strchr(line, ':');
        char *group = controllers == NULL ? NULL : strchr(++controllers, ':');
        if (group == NULL)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        if (*controllers != '\0' && !names_cpu(controllers))
            continue;
        found = smaller(found, quota_of(controllers, group));
        if (*controllers != '\0')
            found = smaller(found, quota_of("cpu", group));
    }
    fclose(file);
    return found;
}

/* The processors that affinity and quotas allow; a quota of 1.5 is two threads that may not spin. */
static double usable_processors(void)
{
    cpu_set_t set;
    double all = (double)sysconf(_SC_NPROCESSORS_ONLN);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        all = CPU_COUNT(&set);
    return smaller(all, cpu_quota());
}

/* A part of a processor counted as one; no more than may be asked for. */
static int whole(double processors)
{
    int count = (int)smaller(processors, MOST);
    return count + (count < processors && count < MOST);
}
