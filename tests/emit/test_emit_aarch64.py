"""Libraries for aarch64, made on this machine by a cross compiler, and run under qemu-user."""

import os
import subprocess
from pathlib import Path
from string import Template

import numpy as np
import pytest
from emulated import EMULATOR, TARGET, emulate

import lucid
from lucid.codegen.target import Target
from lucid.emit.linking import compiler_for
from lucid.errors import MissingPackageError
from lucid.models import resnest_digits
from lucid.runtime.saving import payload_of, programs_of, schedules_of

DUMP = """
#include "$name.h"
#include <stdio.h>
int main(int argc, char **argv)
{
    static float x[$elements], y[10];
    ${name}_input input = {x, sizeof x, NULL};
    ${name}_output output = {y, sizeof y};
    ${name}_options options = {argv[1], 2, 1, NULL};
    ${name}_model *model;
    ${name}_status status = ${name}_create(&options, &model);
    if (argc != 2 || status != ${name}_OK || fread(x, sizeof x, 1, stdin) != 1)
        return 1;
    if (${name}_run(model, &input, 1, &output, 1) || ${name}_run(model, &input, 1, &output, 1))
        return 2;
    fwrite(y, sizeof y, 1, stdout);
    ${name}_destroy(model);
    return 0;
}
""".replace("${name}_OK", "${NAME}_OK")


@pytest.mark.skipif(EMULATOR is None, reason="qemu-aarch64 is not installed")
@pytest.mark.skipif(not Target.host().is_x86, reason="this machine is aarch64 itself")
def test_the_same_bits_as_its_program(tmp_path: Path) -> None:
    if "aarch64" not in os.environ.get("CC", "aarch64"):
        pytest.skip("CC is no compiler for aarch64")
    try:
        compiler = compiler_for(TARGET)
    except MissingPackageError:
        pytest.skip("neither aarch64-linux-gnu-gcc nor ziglang is installed")
    compiled = lucid.compile(resnest_digits(), (1, 1, 32, 32), threads=2)
    lucid.emit_c(compiled, tmp_path, name="net", targets=["aarch64"])
    x = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    values = {"name": "net", "NAME": "NET", "elements": x.size}
    (tmp_path / "dump.c").write_text(Template(DUMP).substitute(values))
    static = [
        part.replace("linux-gnu", "linux-musl") if "ziglang" in compiler else part
        for part in compiler
    ]
    command = [
        *static,
        "-static",
        "-std=c99",
        "dump.c",
        "net.c",
        "net.a",
        "-o",
        "dump",
        "-lpthread",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        [EMULATOR, "dump", "net.bin"], cwd=tmp_path, input=x.tobytes(), capture_output=True
    )
    assert done.returncode == 0
    snapshot = compiled.snapshot()
    ((shapes, plan),) = snapshot.plans.items()
    schedule = schedules_of(snapshot, TARGET)[shapes]
    (program,) = programs_of(snapshot, plan, schedule, TARGET)
    (wanted,) = emulate(program, payload_of(snapshot), [x], tmp_path)
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32), wanted[0])
