"""What follows the first graph of an ONNX file: `Rest` for the runtime, over `lucid.onnx`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lucid.frontend.onnx import OnnxFile
from lucid.ir.graph import Graph
from lucid.ir.ops import Array
from lucid.ir.stage import CompileStage
from lucid.onnx.continuation import Runner
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

    def finish(self, results: list[Array]) -> list[Any]:
        return self.runner.finish(self.file.program, self.stage, results, {})


def compiler(compile_stage: CompileStage, as_model: Callable[[Graph], Any]) -> Callable[
    [Graph], RunArrays
]:
    """How a `Runner` compiles the graphs of later stages."""

    def compiled(graph: Graph) -> RunArrays:
        return compile_stage(as_model(graph)).results

    return compiled
