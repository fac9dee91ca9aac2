"""Libraries for aarch64, made on this machine by a cross compiler, and run under qemu-user."""

import os
import subprocess
from pathlib import Path

import c_dump
import emulated
import numpy as np
import pytest
from emulated import EMULATOR, PROCESSORS, TARGET, emulate

import lucid
from lucid import nn
from lucid.codegen.target import Target
from lucid.emit.linking import compiler_for
from lucid.errors import MissingPackageError
from lucid.models import resnest_digits
from lucid.runtime.saving import payload_of, programs_of, schedules_of

pytestmark = [
    pytest.mark.skipif(EMULATOR is None, reason="qemu-aarch64 is not installed"),
    pytest.mark.skipif(not Target.host().is_x86, reason="this machine is aarch64 itself"),
]


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if "aarch64" not in os.environ.get("CC", "aarch64"):
        pytest.skip("CC is no compiler for aarch64")
    try:
        compiler_for(TARGET)
    except MissingPackageError:
        pytest.skip("neither aarch64-linux-gnu-gcc nor ziglang is installed")


def test_the_same_bits_as_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is laid out, bound and run as a process of Python does it."""
    compiled = lucid.compile(resnest_digits(), (1, 1, 32, 32), threads=2)
    lucid.emit_c(compiled, tmp_path, name="net", targets=["aarch64"])
    x = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    snapshot = compiled.snapshot()

    monkeypatch.setattr(emulated, "compiled", emulated.compiled_for(snapshot))
    ((shapes, plan),) = snapshot.plans.items()
    schedule = schedules_of(snapshot, TARGET)[shapes]
    (program,) = programs_of(snapshot, plan, schedule, TARGET)
    wanted = emulate(program, payload_of(snapshot), [x], tmp_path)
    dump = c_dump.built(tmp_path, "net", TARGET)
    found, _ = c_dump.outputs([EMULATOR, dump, tmp_path / "net.bin", 2, 2], [x], wanted)
    np.testing.assert_array_equal(found[0], wanted[0])


def test_the_best_level_of_each_processor(tmp_path: Path) -> None:
    """Integers, whose bits are the same on all of them, and on this machine."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 21, 1))
    x = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)
    compiled = lucid.compile(lucid.quantize(network, [x]), x.shape, threads=2)
    lucid.emit_c(compiled, tmp_path, name="net", targets=list(PROCESSORS))
    dump, wanted = c_dump.built(tmp_path, "net", TARGET), [np.asarray(compiled(x))]
    for level, processor in PROCESSORS.items():
        command = [EMULATOR, "-cpu", processor, dump, tmp_path / "net.bin", 2, 2]
        found, told = c_dump.outputs(command, [x], wanted)
        np.testing.assert_array_equal(found[0], wanted[0])
        assert told == level
    command = [EMULATOR, "-cpu", "cortex-a53", dump, tmp_path / "net.bin", "2", "1"]
    refused = subprocess.run(command, input=x.tobytes(), capture_output=True)
    assert refused.returncode == 1
    assert b"lacks instructions" in refused.stderr
