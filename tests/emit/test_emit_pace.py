"""The pace of a library's plans, beside that of Python's programs."""

import random
import subprocess
from pathlib import Path

import pytest
from c_library import COMPILER

from lucid.emit.interface import filled
from lucid.runtime.pace import LONGEST, SHORTEST, SOON, WELL, Pace

PROGRAM = """
#include <stdint.h>
#include <stdio.h>
#include <time.h>
static int64_t clock_now;
static int stopped(struct timespec *time)
{
    time->tv_sec = clock_now / 1000000000;
    time->tv_nsec = clock_now %% 1000000000;
    return 0;
}
#define clock_gettime(clock, time) stopped(time)
enum { SOON = %d, SHORTEST = %d, LONGEST = %d, WELL = %d };
%s
int main(void)
{
    struct pace pace = {0, 0, 0, 0, 0};
    int64_t threads;
    int vain;
    while (scanf("%%d %%ld %%ld", &vain, &clock_now, &threads) == 3) {
        if (vain)
            in_vain(&pace);
        printf("%%d ", (int)paced(&pace, threads));
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    place = tmp_path_factory.mktemp("pace")
    times = [round(seconds * 1e9) for seconds in (SOON, SHORTEST, LONGEST)]
    (place / "pace.c").write_text(PROGRAM % (*times, WELL, filled("source/pace.c", {})))
    strict = ("-Wall", "-Wextra", "-Werror", "-fsanitize=undefined")
    subprocess.run([COMPILER, *strict, "pace.c", "-o", "pace"], cwd=place, check=True)
    return place / "pace"


@pytest.mark.parametrize("seed", range(4))
def test_the_same_threads_as_in_python(seed: int, program: Path) -> None:
    """Times are powers of two, which neither rounds."""
    draw, now, steps, wanted = random.Random(seed), 100.0, [], []
    pace = Pace(8, lambda: now)
    for _ in range(400):
        now += draw.choice([2**-9, 2**-7, 2**-5, 2**-3, 1.0]) if draw.random() < 0.9 else 16.0
        vain, most = draw.random() < 0.6, draw.choice([2, 3, 8])
        if vain:
            pace.in_vain()
        wanted.append(pace.threads(most))
        steps.append(f"{int(vain)} {round(now * 1e9)} {most}\n")
    done = subprocess.run([program], input="".join(steps), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(map(int, done.stdout.split())) == wanted
