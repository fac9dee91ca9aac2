"""A program in C around an emitted library of any model, for other machines: it reads the first
shapes' inputs from standard input, and writes the outputs of its last call to standard output."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np

from lucid.codegen.target import Target
from lucid.emit.linking import compiler_for

SOURCE = """
#include "${name}.h"
#include <stdio.h>
#include <stdlib.h>

static void *room(const int64_t *shape, int rank, size_t bytes, size_t *total)
{
    for (*total = bytes; rank > 0; rank--)
        *total *= (size_t)shape[rank - 1];
    return malloc(*total + 1);
}

int main(int argc, char **argv) /* weights, threads, calls, level */
{
    ${name}_options options = {argv[1], atoi(argv[2]), 1, argc > 4 ? argv[4] : NULL};
    ${name}_input inputs[${NAME}_INPUTS + 1];
    ${name}_output outputs[${NAME}_OUTPUTS];
    ${name}_model *model;
    ${name}_status status = ${name}_create(&options, &model);
    size_t i, calls = (size_t)atoi(argv[3]);
    for (i = 0; i < ${NAME}_INPUTS; i++) {
        const ${name}_tensor *told = ${name}_input_info(i);
        void *data = room(told->shape, told->rank, told->item_bytes, &inputs[i].bytes);
        if (fread(data, 1, inputs[i].bytes, stdin) != inputs[i].bytes)
            return 1;
        inputs[i].data = data;
        inputs[i].shape = NULL;
    }
    for (i = 0; i < ${NAME}_OUTPUTS; i++) {
        const ${name}_tensor *told = ${name}_output_info(i);
        outputs[i].data = room(told->shape, told->rank, told->item_bytes, &outputs[i].bytes);
    }
    for (i = 0; i < calls && status == ${NAME}_OK; i++)
        status = ${name}_run(model, inputs, ${NAME}_INPUTS, outputs, ${NAME}_OUTPUTS);
    fprintf(stderr, "%s", status == ${NAME}_OK ? ${name}_level(model) : ${name}_error(status));
    for (i = 0; i < ${NAME}_OUTPUTS && status == ${NAME}_OK; i++)
        fwrite(outputs[i].data, 1, outputs[i].bytes, stdout);
    ${name}_destroy(model);
    return status != ${NAME}_OK;
}
"""


def built(folder: Path, name: str, target: Target, shared: bool = False) -> Path:
    """The program of a folder: of its source and static library, and all else that it needs, or of
    `name.so`, beside which it looks for that."""
    (folder / "dump.c").write_text(Template(SOURCE).substitute(name=name, NAME=name.upper()))
    compiler = compiler_for(target)
    if shared:
        made, rest = "dump_so", ["-L.", f"-l:{name}.so", "-Wl,-rpath,$ORIGIN"]
    else:
        made, rest = "dump", ["-static", f"{name}.c", f"{name}.a", "-lpthread"]
        if "ziglang" in compiler:  # which links musl alone statically
            compiler = [word.replace("linux-gnu", "linux-musl") for word in compiler]
    command = [*compiler, "-std=c99", "-O2", "dump.c", *rest, "-o", made]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / made


def outputs(
    command: Sequence[object], inputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], str]:
    """The outputs of a call of the program, as arrays like those that are wanted, and its level."""
    given = b"".join(np.ascontiguousarray(array).tobytes() for array in inputs)
    done = subprocess.run(list(map(str, command)), input=given, capture_output=True)
    assert done.returncode == 0, done.stderr
    found, at = [], 0
    for array in wanted:
        found.append(np.frombuffer(done.stdout, array.dtype, array.size, at).reshape(array.shape))
        at += array.nbytes
    assert at == len(done.stdout)
    return found, done.stderr.decode()
