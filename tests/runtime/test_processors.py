"""The number of threads by default: the environment, affinity, and both kinds of cgroup quota; and
what a processor is called."""

import os
from pathlib import Path

import pytest

from lucid.codegen import target
from lucid.errors import InputError
from lucid.runtime import processors
from lucid.runtime.processors import cpu_quota, default_threads, processor_name


def quota(tmp_path: Path, membership: str, **files: str) -> float | None:
    """The quota for this /proc/self/cgroup and these files under /sys/fs/cgroup."""
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cpu_quota(tmp_path / "cgroup", tmp_path / "membership")


@pytest.mark.parametrize(("text", "processors"), [("150000 100000", 1.5), ("25000 50000", 0.5)])
def test_a_quota_of_version_2(tmp_path: Path, text: str, processors: float) -> None:
    assert quota(tmp_path, "0::/\n", cpu_dot_max=f"{text}\n") == processors


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    files = {
        "cpu_dot_max": "max 100000\n",
        "user__cpu_dot_max": "100000 100000\n",
        "user__app__cpu_dot_max": "800000 100000\n",
        "other__cpu_dot_max": "10000 100000\n",
    }
    assert quota(tmp_path, "0::/user/app\n", **files) == 1


def test_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path, "0::/\n", cpu_dot_max="max 100000\n") is None
    assert quota(tmp_path, "0::/gone\n") is None
    assert cpu_quota(tmp_path / "nothing", tmp_path / "nothing") is None


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1(tmp_path: Path, mount: str) -> None:
    (tmp_path / "membership").write_text(f"4:memory:/\n3:{mount}:/box\n1:name=systemd:/\n")
    folder = tmp_path / mount / "box"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path, tmp_path / "membership") is None

    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    assert cpu_quota(tmp_path, tmp_path / "membership") == 3


def test_what_is_no_quota_is_ignored(tmp_path: Path) -> None:
    assert quota(tmp_path, "0::/\n", cpu_dot_max="nonsense") is None
    assert quota(tmp_path, "0::/\n", cpu_dot_max="1000 0") is None


def test_the_default_is_what_affinity_and_quota_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LUCID_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5, 7}, raising=False)
    for allowed, expected in ((None, 4), (3, 3), (8, 4), (0.5, 1), (1.5, 2)):
        monkeypatch.setattr(processors, "cpu_quota", lambda allowed=allowed: allowed)
        assert default_threads() == expected


def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCID_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert default_threads() == 7
    for wrong in ("0", "-2", "many", "1.5", "4,2", "²"):
        monkeypatch.setenv("LUCID_NUM_THREADS", wrong)
        with pytest.raises(InputError, match="LUCID_NUM_THREADS must be a positive integer"):
            default_threads()


@pytest.mark.parametrize(("given", "count"), [("5", 5), (" 5 ", 5), ("4,2", 4), ("3 , x", 3)])
def test_the_environment_of_openmp(monkeypatch: pytest.MonkeyPatch, given: str, count: int) -> None:
    monkeypatch.delenv("LUCID_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert default_threads() == count


@pytest.mark.parametrize("given", ["0", "-1", "abc", "1.5", ",2"])
def test_an_environment_of_openmp_that_is_no_number_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: str
) -> None:
    processors._openmp_threads.cache_clear()
    monkeypatch.delenv("LUCID_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    allowed = processors.available_processors()
    assert (default_threads(), default_threads()) == (allowed, allowed)
    assert [r.getMessage() for r in caplog.records] == [
        f"OMP_NUM_THREADS is {given!r}, which is no positive integer: ignored"
    ]


def test_what_is_allowed_is_looked_at_again_once_a_second(tmp_path: Path) -> None:
    """A team shrinks and grows with the quota."""
    now, reads = [100.0], []

    def read() -> float:
        reads.append(now[0])
        return min(4, cpu_quota(tmp_path / "cgroup", tmp_path / "membership") or 4)

    allowed = processors.Allowance(read, lambda: now[0])
    for later, text, threads in [
        (0.0, "max 100000", 4),
        (0.9, "50000 100000", 4),
        (0.2, "50000 100000", 1),
        (1.0, "150000 100000", 2),
        (1.0, "800000 100000", 4),
    ]:
        now[0] += later
        quota(tmp_path, "0::/\n", cpu_dot_max=text)
        assert (allowed.threads(), allowed.threads()) == (threads, threads)
    assert len(reads) == 4


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (
            "model\t: 17\nmodel name\t: Some: Processor\n\nmodel name\t: another\n",
            "Some: Processor",
        ),
        ("Features\t: fp asimd\n", "of no name"),
        (None, "of no name"),
    ],
)
def test_the_name_of_the_processor(
    told: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "of no name")
    monkeypatch.setattr(target, "CPU_INFORMATION", str(tmp_path / "cpuinfo"))
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    assert processor_name() == name
