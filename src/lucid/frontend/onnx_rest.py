"""What follows the first graph of an ONNX file: `Rest` for the runtime, over `lucid.onnx`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lucid.frontend.onnx import OnnxFile
from lucid.ir.graph import Graph
from lucid.ir.ops import Array
from lucid.ir.stage import CompileStage
from lucid.onnx.continuation import Runner, as_live
from lucid.onnx.stages import Stage

RunArrays = Callable[[Sequence[Array]], Sequence[Array]]


class OnnxRest:
    """The stages of a file behind its first one, for inputs of some shapes."""

    def __init__(self, file: OnnxFile, stage: Stage, runner: Runner) -> None:
        self.file = file
        self.stage = stage
        self.runner = runner

    @property
    def outputs(self) -> Sequence[tuple[str, str, tuple[int | str, ...]]]:
        return self.file.outputs

    @property
    def host_ops(self) -> Sequence[tuple[str, str]]:
        return [
            (deferred.operator.kind, deferred.operator.where)
            for deferred in self.stage.deferred
            if deferred.on_host or deferred.unread
        ]

    def refuse_host_ops(self) -> None:
        self.runner.refuse = True

    def finish(self, results: list[Array], apart: Sequence[Any] = ()) -> list[Any]:
        names = [spec.name for spec in self.file.inputs if not spec.is_tensor]
        live = dict(zip(names, map(as_live, apart), strict=True))
        given = [spec.name for spec in self.file.inputs]
        return self.runner.finish(self.file.program, self.stage, results, live, given=given)


def compiler(
    compile_stage: CompileStage, as_model: Callable[[Graph], Any]
) -> Callable[[Graph], RunArrays]:
    """How a `Runner` compiles the graphs of later stages."""

    def compiled(graph: Graph) -> RunArrays:
        return compile_stage(as_model(graph)).results

    return compiled
