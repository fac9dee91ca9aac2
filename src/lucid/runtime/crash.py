"""Crash bundles: when Lucid itself fails, everything needed to reproduce it is written to a folder.

The folder lies in $LUCID_CRASH_DIR, else in `crashes` in the cache folder. It is a repro that
`lucid check` takes, without weights, and holds the graph as the failing stage got it as well.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lucid.errors import CompileError, LucidError, VerifyError
from lucid.ir.types import batch_of
from lucid.runtime.cache import default_folder

if TYPE_CHECKING:
    from lucid.ir.graph import Graph
    from lucid.ir.types import Shapes
    from lucid.runtime.kernel_compiler import Progress

FAILING, TRACEBACK, README = "before.lir", "traceback.txt", "README.txt"
"""What a bundle holds besides the files of a repro."""


def crash_folder() -> Path:
    """$LUCID_CRASH_DIR, else `crashes` in the cache folder."""
    forced = os.environ.get("LUCID_CRASH_DIR")
    return Path(forced) if forced else default_folder() / "crashes"


CALLERS = "raised by the progress callback"
"""The note on exceptions that are no failure of Lucid's."""


def callers(progress: Progress | None) -> Progress | None:
    """The caller's `progress`; what it raises goes through as it is."""
    if progress is None:
        return None

    def report(what: str, done: int, total: int) -> None:
        try:
            progress(what, done, total)
        except Exception as error:
            error.add_note(CALLERS)
            raise

    return report


@dataclass(frozen=True)
class CrashReporter:
    """Watches over the compilation of one model.

    `captured` gives its graph before any pass for the shapes of its inputs; the rest is as in
    `lucid.compile`.
    """

    captured: Callable[[Shapes], Graph]
    target: str = "host"
    precision: str = "fast"
    threads: int = 1
    disable: Sequence[str] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def watching(self, shapes: Shapes) -> Iterator[None]:
        """Turn an internal failure into a CompileError that says where its bundle is.

        What is about the user's model or input goes through as it is: a LucidError of another
        kind, whatever tracing the model raises, and what the caller's `progress` does.
        """
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:
            if CALLERS in getattr(error, "__notes__", ()):
                raise
            expected = isinstance(error, LucidError)
            if expected and not isinstance(error, CompileError | VerifyError):
                raise
            if isinstance(error, CompileError) and error.bundle is not None:
                raise
            graph = self._legal_graph(shapes)
            if graph is None:
                raise
            what = str(error) if expected else f"{type(error).__name__}: {error}"
            bundle, where = self._write(graph, shapes, error)
            failure = CompileError(f"{what}\n{where}")
            failure.bundle = bundle
            raise failure from error

    def _legal_graph(self, shapes: Shapes) -> Graph | None:
        """The captured graph; None where the model cannot be traced, or gives an illegal one."""
        from lucid.ir.verify import verify

        try:
            graph = self.captured(shapes)
            verify(graph)
        except Exception:
            return None
        return graph

    def _write(self, graph: Graph, shapes: Shapes, error: Exception) -> tuple[Path | None, str]:
        """Write the bundle; where it is, and what to tell about it."""
        try:
            files = self._files(graph, shapes, error)
            digest = hashlib.sha256(files[TRACEBACK] + files[FAILING]).hexdigest()[:12]
            name = "".join(c if c.isalnum() or c in "-_." else "_" for c in graph.name)
            folder = crash_folder() / f"{name}-{digest}"
            files[README] = readme(folder, error).encode()
            default_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for file, data in files.items():
                (folder / file).write_bytes(data)
        except Exception as problem:  # the failure itself is what matters
            return None, f"(no crash bundle: {type(problem).__name__}: {problem})"
        return folder, (
            f"What repeats this defect of Lucid is in {folder}: "
            f"`lucid check {shlex.quote(str(folder))} --bisect`"
        )

    def _files(self, graph: Graph, shapes: Shapes, error: Exception) -> dict[str, bytes]:
        from lucid.ir.text import print_graph
        from lucid.runtime.check.case import Case, Settings, files_of

        settings = Settings(
            self.target, self.precision, self.threads, tuple(self.disable), dict(self.kernels)
        )
        batch = batch_of(graph.input_types(), shapes) or 1
        files = files_of(Case(graph, (), batch, settings), arrays=False)
        stage, before = before_failure(graph, self.disable)
        files[FAILING] = f"# before {stage}\n{print_graph(before)}".encode()
        files[TRACEBACK] = "".join(traceback.format_exception(error)).encode()
        return files


def before_failure(captured: Graph, disable: Sequence[str]) -> tuple[str, Graph]:
    """The pass that fails and the graph it got; else the fused graph, and that it is lowered."""
    from lucid.ir.passes import PIPELINE, run_passes

    graph = captured
    for name in PIPELINE:
        if name not in disable:
            try:
                graph = run_passes(graph, [name])
            except LucidError:
                return name, graph
    return "scheduling, lowering and code generation", graph


def readme(folder: Path, error: Exception) -> str:
    """What happened, with which versions, and how to see it again."""
    import importlib.metadata

    path = shlex.quote(str(folder))
    versions = [f"Python {platform.python_version()}, {platform.platform()}"]
    for package in ("lucid-compiler", "numpy", "llvmlite"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package}, not installed as a package")
    return "\n".join(
        [
            f"Lucid failed: {type(error).__name__}: {error}",
            "",
            "To repeat it:",
            f"  lucid check {path} --bisect",
            f"  lucid check {path} --reduce -o smaller.zip",
            "or from Python:",
            "  from pathlib import Path",
            "  from lucid.runtime.check import bisect, load_case",
            f"  print(bisect(load_case(Path({str(folder)!r}))))",
            "",
            f"It happened in: {shlex.join(sys.argv)}",
            "With: " + "; ".join(versions),
            "",
            "graph.lir      the model as captured",
            f"{FAILING:14} the graph as the failing stage got it",
            "options.json   target, precision, threads, passes left out, batch",
            f"{TRACEBACK:14} where it failed",
            "The weights are not here: a repeated run generates some.",
            "",
        ]
    )
