/* -- pace ------------------------------------------------------------------------------------- */

enum { WIDTHS = 32 };

/* So many threads: what calls have taken since these took over, in nanoseconds: all of them (`busy`)
 * and a mean of the latest; and for how long they have given way to half of them. */
struct width {
    int64_t calls;
    double busy;
    double mean;
    int64_t since;
    int64_t until;
    int64_t doublings; /* of the last while that these gave way for */
    int64_t calls_of_fewer; /* in it */
};

/* How many threads the calls of a plan get: beside other processes half of the threads may be
 * quicker, of two the caller alone, which waits for nobody. So half do the calls for a while when a
 * team came in vain twice within SOON; when calls take clearly longer than they took with half; or
 * when that was not tried for long. Then all try again. Each while is twice as long as the one before
 * unless the team did well for WELL times as long in between. widths[i] is of `most` >> i threads. */
struct pace {
    int64_t most;
    int64_t at; /* the width at work */
    int64_t in_vain; /* when a call was, the last time; 0: never */
    struct width widths[WIDTHS];
};

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void take_over(struct width *width, int64_t time)
{
    width->calls = 0;
    width->busy = width->mean = 0;
    width->since = time;
}

/* Half of the threads take over: for longer than the last time if all have failed just now. */
static void give_way(struct pace *pace, int failed, int64_t time)
{
    struct width *width = &pace->widths[pace->at];
    int64_t last = (int64_t)SHORTEST << width->doublings, doublings = 0;
    if (failed && time - width->since <= WELL * last)
        doublings = width->doublings < DOUBLINGS ? width->doublings + 1 : DOUBLINGS;
    width->doublings = doublings;
    width->calls_of_fewer = 0;
    width->until = time + ((int64_t)SHORTEST << doublings);
    pace->at++;
    take_over(width + 1, time);
}

/* How many threads the next call gets, of so many. */
static int64_t paced(struct pace *pace, int64_t most)
{
    if (most != pace->most) {
        memset(pace->widths, 0, sizeof pace->widths);
        pace->most = most;
        pace->at = 0;
    }
    if (pace->at > 0) {
        struct width *wider = &pace->widths[pace->at - 1];
        int64_t time = now();
        if (wider->calls_of_fewer >= (int64_t)1 << wider->doublings && time >= wider->until) {
            take_over(wider, time);
            pace->at--;
        } else {
            wider->calls_of_fewer++;
        }
    }
    return pace->most >> pace->at;
}

/* Whether half of the threads have not been seen at work for long, or at all. */
static int has_not_seen(const struct width *width)
{
    const struct width *fewer = width + 1;
    double length = fewer->mean > SHORTEST ? fewer->mean : SHORTEST, lost;
    if (fewer->calls == 0)
        return width->calls >= FIRST;
    lost = RARELY * (length * (1 - width->mean / fewer->mean));
    return width->busy > (lost > OFTEN * length ? lost : OFTEN * length);
}

/* Takes note of a call on so many threads that met no other call of this model. */
static void took(struct pace *pace, int64_t threads, int64_t length)
{
    struct width *width = &pace->widths[pace->at];
    double longest;
    if (pace->most >> pace->at != threads)
        return;
    width->calls++;
    width->busy += length;
    width->mean += (length - width->mean) / (width->calls < LATELY ? width->calls : LATELY);
    if (threads == 1)
        return;
    longest = CLEARLY / 100.0 * width[1].mean;
    if (width->busy >= ENOUGH && longest > 0 && longest < width->mean)
        give_way(pace, 1, now());
    else if (has_not_seen(width))
        give_way(pace, 0, now());
}

/* Takes note that a call on so many threads would have taken no longer with half of them. */
static void in_vain(struct pace *pace, int64_t threads)
{
    int64_t time = now();
    int again = pace->in_vain != 0 && time - pace->in_vain < SOON;
    pace->in_vain = again ? 0 : time;
    if (again && pace->most >> pace->at == threads)
        give_way(pace, 1, time);
}
