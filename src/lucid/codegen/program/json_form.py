"""Programs as plain data, for scripts that would rather not parse text."""

from __future__ import annotations

from typing import Any

from lucid.codegen.program.program import Code, KernelCall, Program, View, WeightRef

FORMAT = 2
"""2: sizes in elements and bytes, places and scratch in bytes, inputs and outputs by name; in 1
they were `floats`."""


def program_json(program: Program) -> dict[str, Any]:
    """A program: buffers with their places in bytes, packed weights, calls with their phases."""
    return {
        "format": FORMAT,
        "name": program.name,
        "target": program.target,
        "batch": program.batch,
        "arena": program.arena,
        "threads": program.threads,
        "inputs": {name: _view(v) for name, v in program.inputs.items()},
        "outputs": {name: _view(v) for name, v in program.outputs.items()},
        "buffers": [
            {
                "name": b.name,
                "kind": b.kind,
                "dtype": b.dtype,
                "elements": b.elements,
                "bytes": b.bytes,
                "at": program.offsets.get(b.name),
            }
            for b in program.buffers.values()
        ],
        "weights": [
            {
                "name": name,
                "dtype": packed.dtype,
                "elements": packed.elements,
                "bytes": packed.bytes,
                "packing": str(packed.packing),
            }
            for name, packed in program.weights.items()
        ],
        "calls": [
            {"phase": number, **call_json(call)}
            for number, phase in enumerate(program.phases)
            for call in phase
        ],
    }


def call_json(call: KernelCall) -> dict[str, Any]:
    return {
        "kernel": str(call.kernel),
        "origin": call.origin,
        "algorithm": call.algorithm,
        "tasks": call.tasks,
        "work": call.work,
        "scratch": call.scratch,
        "reads": [_view(v) for v in call.reads],
        "writes": [_view(v) for v in call.writes],
        "arguments": {name: _argument(v) for name, v in call.arguments.items()},
    }


def _view(view: View) -> dict[str, Any]:
    return {
        "buffer": view.buffer,
        "dtype": view.dtype,
        "offset": view.offset,
        "shape": list(view.shape),
        "strides": list(view.strides),
    }


def _argument(value: Any) -> Any:
    match value:
        case View():
            return _view(value)
        case WeightRef(name):
            return {"weights": name}
        case Code(kernel, export):
            return {"kernel": str(kernel), "export": export}
    return value
