"""Programs as plain data, for scripts that would rather not parse text."""

from __future__ import annotations

from typing import Any

from lucid.codegen.program.program import Code, KernelCall, Program, View, WeightRef


def program_json(program: Program) -> dict[str, Any]:
    """A program: buffers with their places (floats), packed weights, calls with their phases."""
    return {
        "name": program.name,
        "target": program.target,
        "batch": program.batch,
        "arena": program.arena,
        "buffers": [
            {
                "name": b.name,
                "kind": b.kind,
                "dtype": b.dtype,
                "floats": b.floats,
                "at": program.offsets.get(b.name),
            }
            for b in program.buffers.values()
        ],
        "weights": [
            {"name": name, "floats": packed.floats, "packing": str(packed.packing)}
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
