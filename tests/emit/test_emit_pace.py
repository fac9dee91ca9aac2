"""The pace of a library's plans, beside that of Python's programs."""

import random
import subprocess
from pathlib import Path

import c_library
import pytest

from lucid.emit.interface import filled, pace_words
from lucid.runtime.pace import Pace

PROGRAM = """
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
static int64_t clock_now;
static int stopped(struct timespec *time)
{
    time->tv_sec = clock_now / 1000000000;
    time->tv_nsec = clock_now %% 1000000000;
    return 0;
}
#define clock_gettime(clock, time) stopped(time)
enum { %s };
%s
int main(void)
{
    struct pace pace;
    int64_t most, vain, only, begun, threads;
    memset(&pace, 0, sizeof pace);
    while (scanf("%%ld %%ld %%ld %%ld %%ld", &begun, &clock_now, &most, &vain, &only) == 5) {
        int64_t end = clock_now;
        clock_now = begun;
        threads = paced(&pace, most);
        printf("%%d ", (int)threads);
        clock_now = end;
        if (vain && threads > 1)
            in_vain(&pace, threads);
        if (only)
            took(&pace, threads, end - begun);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    constants = ", ".join(f"{name} = {number}" for name, number in pace_words())
    text = PROGRAM % (constants, filled("source/pace.c", {}))
    return c_library.program(text, tmp_path_factory.mktemp("pace"))


@pytest.mark.parametrize("seed", range(4))
def test_the_same_threads_as_in_python(seed: int, program: Path) -> None:
    """Calls of two networks beside others that come and go; times are sums of powers of two, which
    neither rounds."""
    draw, now, steps, wanted = random.Random(seed), 100.0, [], []
    pace = Pace(8, lambda: now)
    loaded = most = 8
    for number in range(3000):
        if number % 300 == 0:
            loaded, most = draw.choice([1, 3, 9]), draw.choice([2, 3, 8])
        begun = now = now + draw.choice([0, 2**-12, 2**-7])
        threads = pace.threads(most)
        wanted.append(threads)
        late = threads > 1 and draw.random() < loaded / 20
        now += 2**-7 / threads + draw.randrange(64) / 2**16 + late * 2**-6
        vain, only = int(late and draw.random() < 0.5), int(draw.random() < 0.9)
        if vain:
            pace.in_vain(threads)
        if only:
            pace.took(threads, now - begun)
        steps.append(f"{begun * 1e9:.0f} {now * 1e9:.0f} {most} {vain} {only}\n")
    done = subprocess.run([program], input="".join(steps), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(map(int, done.stdout.split())) == wanted
    assert len(set(wanted)) > 2
