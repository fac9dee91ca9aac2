"""What a machine is taken for: where it has tiles, Linux is asked for these, and AMD's processors
of one family do wide vectors in halves."""

from __future__ import annotations

import ctypes
import errno
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lucid.codegen import amx
from lucid.codegen import target as target_module
from lucid.codegen.costs import (
    AVX2,
    AVX512,
    AVX512_BF16,
    AVX512_HALVES,
    AVX512_HALVES_BF16,
    AVX512_TILES,
    Costs,
)
from lucid.codegen.target import LEVELS, NEEDS, Target
from lucid.errors import UnknownNameError

AMX, BELOW = "x86-64-v4-amx", list(LEVELS)[LEVELS["x86-64-v4-amx"].level - 1]
Asked = list[tuple[int, ...]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Asked]]:
    """`machine(level, refusal)`: from then on a processor of this level, and a system that refuses
    with such an error, or grants. What the system was asked."""

    def pretend(level: str, refusal: int = 0) -> Asked:
        asked: Asked = []

        def syscall(*words: Any) -> int:
            asked.append(tuple(w.value for w in words))
            ctypes.set_errno(refusal)
            return -1 if refusal else 0

        class Library:
            def __init__(self, name: None, use_errno: bool) -> None:
                self.syscall = syscall

        monkeypatch.delenv("LUCID_TARGET", raising=False)
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        features = frozenset(NEEDS[level])
        monkeypatch.setattr(target_module, "processor_features", lambda: features)
        monkeypatch.setattr(ctypes, "CDLL", Library)
        return asked

    amx.tiles_granted.cache_clear()
    Target.host.cache_clear()
    yield pretend
    monkeypatch.undo()
    amx.tiles_granted.cache_clear()
    Target.host.cache_clear()


def test_tiles_that_are_granted_are_asked_for_once(machine: Callable[..., Asked]) -> None:
    asked = machine(AMX)
    for _ in range(3):
        assert Target.host().name == AMX
        Target.host.cache_clear()
    assert asked == [(158, 0x1023, 18)]
    assert LEVELS[AMX].runs_here()
    assert LEVELS[BELOW].runs_here()


def test_tiles_that_are_refused(
    machine: Callable[..., Asked], caplog: pytest.LogCaptureFixture
) -> None:
    asked = machine(AMX, errno.ENOTSUP)
    with caplog.at_level(logging.INFO, "lucid"):
        for _ in range(3):
            assert Target.host().name == BELOW
            Target.host.cache_clear()
    assert len(asked) == 1
    (told,) = caplog.records
    assert told.levelname == "INFO"
    assert told.getMessage().startswith("AMX is not used: the system refuses its tiles (")
    assert not LEVELS[AMX].runs_here()


def test_tiles_that_nobody_asks_for(
    machine: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor has none, or a lower level was asked for."""
    asked = machine(BELOW)
    assert Target.host().name == BELOW
    Target.host.cache_clear()
    asked += machine(AMX)
    for name in ("x86-64-v3", BELOW):
        monkeypatch.setenv("LUCID_TARGET", name)
        assert Target.host().name == name
        assert not LEVELS[AMX].runs_here()
        Target.host.cache_clear()
    assert not asked


@pytest.mark.parametrize("refusal", [0, errno.EPERM])
def test_a_level_with_tiles_by_name(
    refusal: int, machine: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(AMX, refusal)
    monkeypatch.setenv("LUCID_TARGET", AMX)
    if refusal:
        with pytest.raises(UnknownNameError, match=f"this machine .{BELOW}. cannot run"):
            Target.host()
    else:
        assert Target.host().name == AMX


ZEN4 = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
ZEN5 = "vendor_id\t: AuthenticAMD\ncpu family\t: 26\n"
XEON = "vendor_id\t: GenuineIntel\ncpu family\t: 6\n"


@pytest.mark.parametrize(
    ("told", "level", "costs"),
    [
        (ZEN4, "x86-64-v4-bf16", AVX512_HALVES_BF16),
        (ZEN4, "x86-64-v4", AVX512_HALVES),
        (ZEN4, "x86-64-v3", AVX2),
        (ZEN4, "x86-64-v4-amx", AVX512_TILES),
        (ZEN5, "x86-64-v4-bf16", AVX512_BF16),
        (XEON, "x86-64-v4-vnni", AVX512),
        (XEON, "x86-64-v4-amx", AVX512_TILES),
    ],
)
def test_costs_follow_from_the_processor(
    told: str,
    level: str,
    costs: Costs,
    machine: Callable[..., Asked],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(level)
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(target_module, "CPU_INFORMATION", str(tmp_path / "cpuinfo"))
    assert Target.host().costs is costs
