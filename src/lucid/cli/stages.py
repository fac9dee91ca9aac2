"""The stages of a compilation, by name: as text or as plain data, whole or in part."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lucid.cli.model import Subject
    from lucid.cli.output import Report
    from lucid.codegen.language.kernel import KernelSpec
    from lucid.codegen.program.program import Program
    from lucid.codegen.scheduling.schedule import Schedule
    from lucid.codegen.target import Target
    from lucid.ir.graph import Graph, Node
    from lucid.ir.passes import RewriteLog
    from lucid.ir.types import Shapes
    from lucid.runtime.crash import CrashReporter

CODE_STAGES = ("scheduled", "llvm", "asm")
SUFFIXES = {"scheduled": "txt", "llvm": "ll", "asm": "s"}
"""How files of stages end; those of graphs in `lir`."""


def graph_stages() -> list[str]:
    """`captured`, `canonical`, every pass of the pipeline, `fused`."""
    from lucid.ir.passes import PIPELINE

    return ["captured", "canonical", *PIPELINE, "fused"]


def check_stage(name: str, code: bool) -> str:
    """`name`, if there is such a stage (`code`: those after the graph too); else a usage error."""
    known = [*graph_stages(), *(CODE_STAGES if code else ())]
    return check_name(name, known, "stage")


def check_name(name: str, known: list[str], kind: str) -> str:
    """`name`, if it is one of the known; else a usage error that suggests the closest."""
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise typer.BadParameter(f"no {kind} is named {name!r}; {hint}there are {', '.join(known)}")


def check_passes(names: list[str]) -> list[str]:
    """The names, if each is that of a pass; else a usage error."""
    from lucid.ir.passes import PASSES

    return [check_name(name, list(PASSES), "pass") for name in names]


@dataclass
class Stages:
    """A model for inputs of given shapes, at every stage.

    `forced`: kernel names by patterns over module paths; `given`: a schedule to take as it is.
    """

    subject: Subject
    shapes: Shapes
    target: Target
    disable: list[str]
    precision: str = "fast"
    threads: int = 1
    forced: Mapping[str, str] = field(default_factory=dict)
    given: Schedule | None = None

    @property
    def batch(self) -> int:
        """That of the Program: one image at least."""
        from lucid.ir.types import batch_of

        captured = self._graphs["captured"]
        return max(1, batch_of(captured.input_types(), self.shapes) or 1)

    def names(self) -> list[str]:
        """The stages of this model, in order."""
        return [*self.subject.source(self.disable).stages(), *CODE_STAGES]

    # -- graphs -----------------------------------------------------------------------------

    def graph(self, stage: str) -> Graph:
        """The graph at a stage. A pass that is disabled or unknown is a usage error."""
        return self._graphs[check_name(stage, list(self._graphs), "stage")]

    def graphs(self) -> dict[str, Graph]:
        """The graph as captured, after each pass, and fused, in order."""
        return dict(self._graphs)

    @cached_property
    def _graphs(self) -> dict[str, Graph]:
        from lucid.ir.passes import run_passes

        source = self.subject.source(self.disable)
        captured = source.captured(self.shapes)
        kept = {"captured": captured}

        def keep(name: str, graph: Graph) -> None:
            kept[name] = graph.clone()

        with self._reporter().watching(self.shapes):
            final = run_passes(captured, disable=source.disable, observe=keep)
        return kept | {"canonical": kept.get("canonicalise", captured), "fused": final}

    def part(self, stage: str, pattern: str | None) -> Graph:
        """The graph at a stage, or the part of it that matches; a usage error if none does."""
        from lucid.ir.cut import cut

        graph = self.graph(stage)
        found = graph if pattern is None else cut(graph, pattern)
        if found is None:
            raise self.no_match(pattern)
        return found

    def has(self, stage: str, pattern: str | None) -> bool:
        """Whether anything of the graph at a stage matches; a usage error if no stage has any."""
        from lucid.ir.lineage import stems_from

        def matching(graph: Graph) -> bool:
            return pattern is None or any(stems_from(n, pattern) for n in graph.nodes)

        graphs = self.graphs()
        if not any(map(matching, graphs.values())):
            raise self.no_match(pattern)
        return matching(graphs["fused" if stage in CODE_STAGES else stage])

    def no_match(self, pattern: str | None) -> typer.BadParameter:
        """The usage error where nothing matches."""
        from lucid.ir.cut import outermost

        known = ", ".join(outermost(self.graph("captured")))
        hint = f"the outermost modules are {known}" if known else "its nodes have no modules"
        return typer.BadParameter(
            f"nothing matches {pattern!r}; {hint}. Patterns are over module paths (layer1.0, "
            "'*.conv2') or, with a %, over results ('%relu*')"
        )

    def rewrites(self) -> RewriteLog:
        """What the passes do, rewrite by rewrite."""
        return self.subject.source(self.disable).rewrites(self.shapes)

    # -- programs and code ------------------------------------------------------------------

    def schedule(self) -> Schedule:
        """The choices for the fused graph: those given, else the cost model's."""
        from lucid.codegen.scheduling.schedule import schedule

        if self.given is not None:
            return self.given
        graph = self.graph("fused")
        return schedule(graph, self.target, self.batch, self.precision, self.forced)

    def programs(self, pattern: str | None = None) -> list[Program]:
        """One for each native call, scheduled and lowered for the target, which need not be one
        that runs here; or only the calls that match."""
        from lucid.codegen.program.attribution import part_of

        if pattern is None:
            return [program for program, _ in self.regions]
        found = [part_of(program, graph, pattern) for program, graph in self.regions]
        parts = [part for part in found if part is not None]
        if not parts:
            raise self.no_match(pattern)
        return parts

    @property
    def regions(self) -> list[tuple[Program, Graph]]:
        """The Programs, with the graphs that they compute; one that does nothing where nothing runs
        natively."""
        return self._parts[0]

    @property
    def on_host(self) -> list[Node]:
        """The nodes that run on the host."""
        return self._parts[1]

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs, by name."""
        return {v.name: v.type.concrete(self.batch) for v in self.graph("fused").inputs}

    @cached_property
    def _parts(self) -> tuple[list[tuple[Program, Graph]], list[Node]]:
        from lucid.codegen.lowering import HostNode, Lowered, lower_parts
        from lucid.codegen.program.program import Program
        from lucid.ir.graph import Graph

        graph = self.graph("fused")
        with self._reporter().watching(self.shapes):
            made = self.target, self.batch, self.threads
            parts = lower_parts(graph, self.schedule(), *made)
        lowered = [(p.program, p.region.graph) for p in parts if isinstance(p, Lowered)]
        nothing = Program(graph.name, self.target.name, self.batch), Graph(graph.name)
        return lowered or [nothing], [p.node for p in parts if isinstance(p, HostNode)]

    def _reporter(self) -> CrashReporter:
        """Who writes down what is needed to repeat a failure of ours."""
        from lucid.runtime.crash import CrashReporter

        source = self.subject.source(self.disable)
        options = self.target.name, self.precision, self.threads, source.disable, self.forced
        return CrashReporter(source.captured, *options)

    def _code(self, stage: str, pattern: str | None, report: Report) -> dict[KernelSpec, str]:
        """The code of every kernel of the Program, or of the calls that match."""
        from lucid.codegen.language import llvm

        show: Callable[[KernelSpec, Target], str]
        show = llvm.ir_text if stage == "llvm" else llvm.assembly
        programs = self.programs(pattern)
        kernels = list(dict.fromkeys(k for program in programs for k in program.kernels()))
        texts = {}
        for done, kernel in enumerate(kernels):
            report(f"kernels ({stage})", done, len(kernels))
            texts[kernel] = show(kernel, self.target)
        return texts

    # -- any stage --------------------------------------------------------------------------

    def text(self, stage: str, report: Report, pattern: str | None = None) -> str:
        """The text of a stage: a graph, the Program, or the code of its kernels."""
        if stage == "scheduled":
            return "\n".join(map(str, self.programs(pattern)))
        if stage not in CODE_STAGES:
            return str(self.part(stage, pattern))
        comment = ";" if stage == "llvm" else "#" if self.target.is_x86 else "//"
        code = self._code(stage, pattern, report).items()
        return "\n".join(f"{comment} kernel {_name(kernel)}\n{text}" for kernel, text in code)

    def data(self, stage: str, report: Report, pattern: str | None = None) -> Any:
        """The same as plain data."""
        from lucid.codegen.program.json_form import program_json
        from lucid.ir.json_form import graph_json

        if stage == "scheduled":
            programs = [program_json(program) for program in self.programs(pattern)]
            return programs[0] if len(programs) == 1 else programs
        if stage not in CODE_STAGES:
            return graph_json(self.part(stage, pattern))
        code = self._code(stage, pattern, report).items()
        return [{"kernel": _name(kernel), "code": text} for kernel, text in code]

    def show(self, stage: str, report: Report, pattern: str | None, as_json: bool) -> str:
        """A stage in the form asked for."""
        if as_json:
            return json.dumps(self.data(stage, report, pattern), indent=1) + "\n"
        return self.text(stage, report, pattern)


def _name(kernel: KernelSpec) -> str:
    return " ".join(str(kernel).split())
