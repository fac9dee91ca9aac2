"""The processors that a library counts by default: those that Python counts."""

import os
import subprocess
from pathlib import Path

import c_library
import pytest

from lucid.emit.interface import filled
from lucid.runtime.processors import cpu_quota

PROGRAM = """
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define NET_CGROUPS getenv("CGROUPS")
#define NET_MEMBERSHIP getenv("MEMBERSHIP")
enum { MOST = 1024 };
%s
int main(void)
{
    double usable = usable_processors();
    printf("%%.17g %%.17g %%d %%d %%d", cpu_quota(), usable, whole(0.5), whole(1.5), whole(1e9));
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    text = PROGRAM % filled("source/processors.c", {"NAME": "NET"})
    return c_library.program(text, tmp_path_factory.mktemp("quota"))


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}),
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        ("0::/\n", {"cpu.max": "1000 0"}),
        ("0::/gone/far\n", {"cpu.max": "nonsense"}),
        (
            "0::/user/app\n",
            {"user/cpu.max": "100000 100000", "user/app/cpu.max": "800000 100000"},
        ),
        ("0::/user\n", {"user/cpu.max": "200000 100000", "cpu.max": "70000 100000"}),
        (
            "4:memory:/\n3:cpu,cpuacct:/box\n1:name=systemd:/\n",
            {
                "cpu,cpuacct/box/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
        ),
        (
            "2:cpuset:/\n5:cpuacct,cpu:/box\n",
            {"cpu/box/cpu.cfs_quota_us": "50000", "cpu/box/cpu.cfs_period_us": "100000"},
        ),
        ("2:cpuset:/\n", {"cpuset/cpu.max": "50000 100000"}),
        (None, {"cpu.max": "50000 100000"}),
    ],
)
def test_quotas(membership, files, program, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    told = {"CGROUPS": str(tmp_path), "MEMBERSHIP": str(tmp_path / "membership")}
    done = subprocess.run([program], env=told, capture_output=True, text=True, check=True)
    quota, usable, *wholes = map(float, done.stdout.split())
    wanted = cpu_quota(tmp_path, tmp_path / "membership")
    assert quota == (wanted or 1 << 30)
    assert usable == min(len(os.sched_getaffinity(0)), wanted or 1 << 30)
    assert wholes == [1, 2, 1024]
