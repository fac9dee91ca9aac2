/* -- pace ------------------------------------------------------------------------------------- */

/* How many threads the calls of a plan get: beside other processes a team may come in vain. Once is
 * chance; twice within SOON, and the calls of the next while are done by half of the threads, of two
 * by the caller alone, which waits for nobody. Each while is twice as long as the one before, unless
 * the team did well for WELL times as long in between. All in nanoseconds. */
struct pace {
    int64_t halvings;
    int64_t resumed;
    int64_t until;
    int64_t length; /* of the last while */
    int64_t last;   /* call that was in vain */
};

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* How many threads the next call gets, of so many. */
static int64_t paced(struct pace *pace, int64_t threads)
{
    int64_t time = pace->halvings > 0 ? now() : 0;
    if (pace->halvings > 0 && time >= pace->until) {
        pace->halvings--;
        pace->resumed = time;
        pace->until = time + pace->length;
    }
    threads >>= pace->halvings;
    return threads > 1 ? threads : 1;
}

/* Takes note that the last call would have taken no longer with half of its threads. */
static void in_vain(struct pace *pace)
{
    int64_t time = now();
    if (time - pace->last >= SOON) {
        pace->last = time;
        return;
    }
    if (time - pace->resumed > WELL * pace->length)
        pace->length = SHORTEST;
    else
        pace->length = 2 * pace->length < LONGEST ? 2 * pace->length : LONGEST;
    pace->halvings++;
    pace->until = time + pace->length;
    pace->last = 0;
}
