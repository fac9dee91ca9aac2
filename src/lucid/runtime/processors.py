"""The processors: how many this process may use (not what the machine has), and their name."""

from __future__ import annotations

import functools
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from lucid.codegen.target import processor_information
from lucid.errors import InputError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
INTERVAL = 1.0
"""Seconds for which what was read holds: reading it takes 50 to 200 us."""

log = logging.getLogger("lucid.threads")


def default_threads() -> int:
    """LUCID_NUM_THREADS, else OMP_NUM_THREADS, else the processors that affinity and cgroup quotas
    allow.

    Raises InputError where LUCID_NUM_THREADS is no positive integer. OMP_NUM_THREADS is for others
    too (Ray and torchrun set it for their workers): what is no number there is logged and ignored.
    """
    own = os.environ.get("LUCID_NUM_THREADS", "").strip()
    if own:
        count = _positive(own)
        if count is None:
            raise InputError(f"LUCID_NUM_THREADS must be a positive integer, not {own!r}")
        return count
    return _openmp_threads(os.environ.get("OMP_NUM_THREADS", "")) or available_processors()


def available_processors() -> int:
    """The processors that affinity and cgroup quotas allow, a part of one counted as one."""
    return math.ceil(usable_processors())


def usable_processors() -> float:
    """The same in parts of processors: a quota of 1.5 is two threads that may not spin."""
    has_affinity = hasattr(os, "sched_getaffinity")
    available = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(available, cpu_quota() or available)


class Allowance:
    """What `read` says, `usable_processors`, looked at again when it is a second old: both kinds of
    limit may change while a process runs. Affinity is that of the thread that looks."""

    def __init__(
        self,
        read: Callable[[], float] = usable_processors,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.processors = math.inf
        self._read, self._clock = read, clock
        self._threads = 1
        self._until = -math.inf

    def threads(self) -> int:
        """How many threads may be at work now."""
        now = self._clock()
        if now >= self._until:
            self.processors = self._read()
            self._threads = math.ceil(self.processors)
            self._until = now + INTERVAL  # last: who finds it so finds what was read
        return self._threads


allowance = Allowance()
"""The process's."""


@functools.cache  # which logs a value once
def _openmp_threads(text: str) -> int | None:
    """The count of the outermost level: OpenMP takes a list such as `4,2`, one for each level."""
    if not text.strip():
        return None
    count = _positive(text.partition(",")[0].strip())
    if count is None:
        log.warning("OMP_NUM_THREADS is %r, which is no positive integer: ignored", text)
    return count


def _positive(text: str) -> int | None:
    number = text.isascii() and text.isdecimal() and len(text) < 10
    return int(text) or None if number else None


def cpu_quota(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """Processors that the tightest CPU quota of this process's control groups allows, such as 1.5.

    Both versions of cgroups are read. None where no quota is set.
    """
    found = [quota for folder in _folders(cgroups, membership) for quota in _quotas(folder)]
    return min(found, default=None)


def _folders(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders that may hold a quota: of the process's groups and of all groups above them."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = (cgroups / controllers, cgroups / "cpu") if controllers else (cgroups,)
        inside = PurePosixPath(path.lstrip("/"))
        for root in roots:
            yield from (root / above for above in (inside, *inside.parents))


def _quotas(folder: Path) -> Iterator[float]:
    """The quota set in one folder, if any: `cpu.max` in version 2, two files in version 1."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        limit = int((folder / "cpu.cfs_quota_us").read_text())
        if limit > 0:
            yield limit / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        pass


def processor_name() -> str:
    """The processor as it calls itself; its architecture where the system does not say."""
    told = processor_information().get("model name")
    return told or platform.processor() or platform.machine()
