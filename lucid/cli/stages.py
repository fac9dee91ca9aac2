"""The stages a model goes through, by name, as text or as graphs."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lucid.cli.output import Report
    from lucid.cli.subject import Subject
    from lucid.codegen.kernels.base import KernelSpec
    from lucid.codegen.program import Program
    from lucid.codegen.target import Target
    from lucid.ir.graph import Graph

CODE_STAGES = ("scheduled", "llvm", "asm")


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
    """A model for one input shape, at every stage."""

    subject: Subject
    shape: tuple[int, ...]
    target: Target
    disable: list[str]
    precision: str = "fast"
    threads: int = 1

    def text(self, stage: str, report: Report) -> str:
        """The text of a stage: a graph, the Program, or the code of its kernels."""
        from lucid.codegen import llvm

        if stage == "scheduled":
            return str(self.program())
        if stage == "llvm":
            return self._code(llvm.ir_text, ";", report)
        if stage == "asm":
            return self._code(llvm.assembly, "#" if self.target.is_x86 else "//", report)
        return str(self.graph(stage))

    def graph(self, stage: str) -> Graph:
        """The graph at a stage. A pass that is disabled or unknown is a usage error."""
        kept = self.graphs()
        return kept[check_name(stage, list(kept), "stage")]

    def graphs(self) -> dict[str, Graph]:
        """The graph as captured, after each pass, and fused, in order."""
        from lucid.ir.passes import run_passes

        captured = self.subject.source().captured(self.shape)
        kept = {"captured": captured}

        def keep(name: str, graph: Graph) -> None:
            kept[name] = graph.clone()

        final = run_passes(captured, disable=self._disabled(), observe=keep)
        return kept | {"canonical": kept.get("canonicalise", captured), "fused": final}

    def _disabled(self) -> list[str]:
        return list(self.subject.source(self.disable).disable)

    def program(self) -> Program:
        """Scheduled and lowered for the target, which need not be one that runs here."""
        from lucid.codegen.lowering import lower
        from lucid.codegen.schedule import schedule

        graph, batch = self.graph("fused"), max(1, self.shape[0])
        choices = schedule(graph, self.target, batch, self.precision)
        return lower(graph, choices, self.target, batch, self.threads)

    def _code(self, show: Callable[[KernelSpec, Target], str], comment: str, report: Report) -> str:
        """The code of every kernel of the Program, each under its name."""
        kernels = self.program().kernels()
        parts = []
        for done, kernel in enumerate(kernels):
            report("kernels", done, len(kernels))
            name = " ".join(str(kernel).split())
            parts.append(f"{comment} kernel {name}\n{show(kernel, self.target)}")
        return "\n".join(parts)
