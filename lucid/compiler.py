"""`lucid.compile`: the one place that strings front, passes, code generation and runtime together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lucid.codegen.schedule import Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import InputError, UnknownNameError
from lucid.frontend.tensor import Tensor
from lucid.frontend.trace import trace
from lucid.frontend.weights import load_weights, match_weights
from lucid.ir.graph import Graph
from lucid.ir.passes import run_passes
from lucid.ir.types import Dim
from lucid.nn.module import Module
from lucid.runtime.arrays import register_converter
from lucid.runtime.cache import ObjectCache
from lucid.runtime.executable import CompiledModel
from lucid.runtime.library import Progress
from lucid.runtime.team import default_threads

__all__ = ["CompileOptions", "CompiledModel", "compile"]

PRECISIONS = ("fast", "strict")

register_converter(Tensor, Tensor)


@dataclass(frozen=True)
class CompileOptions:
    """For those who look inside.

    `target`: a name such as "x86-64-v3", or "host". `disable`: passes to leave out (LUCID_DISABLE
    adds to them). `kernels`: kernel names by patterns over module paths, such as
    {"layer1.*.conv2.conv": "winograd4x4"}. `schedule`: choices to take as they are.
    """

    target: str = "host"
    disable: Sequence[str] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)
    schedule: Schedule | None = None

    def disabled(self) -> list[str]:
        return [*self.disable, *filter(None, os.environ.get("LUCID_DISABLE", "").split(","))]


def compile(
    model: Module | Graph,
    input_shape: Sequence[int] | None = None,
    *,
    threads: int | None = None,
    precision: str = "fast",
    cache: bool = True,
    options: CompileOptions | None = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile a model to native code.

    `input_shape`: (batch, channels, height, width); the schedule is chosen for it, and every batch
    and image size runs. Without it the model is compiled at its first call. `threads`: by default
    what the process may use (LUCID_NUM_THREADS). `precision`: "strict" leaves out what changes the
    order of magnitude of rounding errors (Winograd F(4x4)). Raises InputError, TraceError,
    UnsupportedError, UnknownNameError.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    chosen = options or CompileOptions()
    target = Target.named(chosen.target)
    if not target.runs_here():
        raise UnknownNameError(f"this machine ({Target.host().name}) cannot run {target.name}")
    count = default_threads() if threads is None else threads
    if not isinstance(count, int) or count < 1:
        raise InputError(f"threads must be a positive integer, got {threads!r}")

    def schedule_for(graph: Graph, batch: int) -> Schedule:
        return chosen.schedule or schedule(graph, target, batch, precision, chosen.kernels)

    compiled = CompiledModel(
        ModelSource(model, chosen.disabled()),
        schedule_for,
        target,
        count,
        ObjectCache() if cache else None,
        progress,
    )
    if input_shape is None and isinstance(model, Graph):
        input_shape = model.inputs[0].type.concrete(1)
    if input_shape is not None:
        compiled.prepare(input_shape)
    return compiled


class ModelSource:
    """Graphs of a module, traced for each image size, or of a graph, which has just one."""

    def __init__(self, model: Module | Graph, disable: Sequence[str]) -> None:
        if not isinstance(model, Module | Graph):
            raise InputError(
                f"compile wants a lucid.nn.Module or a lucid.ir.Graph, got {type(model).__name__}"
            )
        self.model = model
        self.disable = disable

    def captured(self, shape: tuple[int, ...]) -> Graph:
        """The graph as traced, before any pass. Raises InputError where the shape does not fit."""
        if isinstance(self.model, Module):
            return trace(self.model, shape)
        wanted = self.model.inputs[0].type
        fits = len(shape) == wanted.rank and all(
            isinstance(d, Dim) or d == s for d, s in zip(wanted.shape, shape, strict=True)
        )
        if not fits:
            raise InputError(f"{self.model.name} takes {wanted}, got an array of shape {shape}")
        return self.model

    def graph(self, shape: tuple[int, ...]) -> Graph:
        return run_passes(self.captured(shape), disable=self.disable)

    def stage(self, shape: tuple[int, ...], name: str) -> Graph:
        """The graph at `captured`, `canonical`, after a pass, or `fused`."""
        if name == "captured":
            return self.captured(shape)
        kept: dict[str, Graph] = {}
        final = run_passes(
            self.captured(shape),
            disable=self.disable,
            observe=lambda done, graph: kept.setdefault(done, graph.clone()) and None,
        )
        kept |= {"canonical": kept.get("canonicalise", final), "fused": final}
        if name not in kept:
            raise UnknownNameError(f"no stage is named {name!r}; there are captured, {', '.join(kept)}")
        return kept[name]

    def match(self, weights: Any) -> Mapping[str, Any]:
        found = weights if isinstance(weights, Mapping) else load_weights(weights)
        if isinstance(self.model, Module):
            expected = {n: s.type.shape for n, s in self._tensors().items()}
        else:
            expected = {n: s.type.shape for n, s in self.model.sources().items()}
        matched, _ = match_weights(expected, found, str(weights)[:200], "model", True)
        return matched

    def _tensors(self) -> dict[str, Any]:
        assert isinstance(self.model, Module)
        return {n: p for n, p in self.model.state_dict().items()}
