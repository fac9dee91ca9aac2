"""A case to check: a captured graph, inputs, and settings; and its form on disk.

A repro is a folder or a zip of `graph.lir` (IR text), `arrays.npz` (inputs and source tensors) and
`options.json`. Without the arrays they are generated, so that a bug report may leave them out.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lucid.codegen.language.llvm import versions
from lucid.codegen.lowering import HostNode, Lowered, lower, lower_parts
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import InputError
from lucid.ir.batch import misfit
from lucid.ir.graph import Graph, Node
from lucid.ir.interpret import interpret
from lucid.ir.ops.base import Array
from lucid.ir.passes import PIPELINE, run_passes
from lucid.ir.samples import sample_inputs, sample_payload
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.types import DTYPES, batch_of

GRAPH, ARRAYS, OPTIONS = "graph.lir", "arrays.npz", "options.json"
"""The files of a repro."""


@dataclass(frozen=True)
class Settings:
    """How a graph is compiled, as in `lucid.compile`."""

    target: str = "host"
    precision: str = "fast"
    threads: int = 1
    disable: tuple[str, ...] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)

    @property
    def machine(self) -> Target:
        return Target.named(self.target)


@dataclass(frozen=True)
class Case:
    """A captured graph with its payload, inputs in order, their batch, and settings."""

    graph: Graph
    inputs: tuple[Array, ...]
    batch: int
    settings: Settings = field(default_factory=Settings)

    def fused(self) -> Graph:
        """The graph after all passes."""
        return run_passes(self.graph, disable=self.settings.disable)

    def program(self, fused: Graph) -> Program:
        """Scheduled and lowered. Raises UnsupportedError where ops run on the host: see
        `regions`."""
        return lower(fused, self._schedule(fused), *self._made)

    def parts(self, fused: Graph) -> list[Lowered | HostNode]:
        """The Programs of its regions, and its host nodes, in the order in which they run."""
        return lower_parts(fused, self._schedule(fused), *self._made)

    def _schedule(self, fused: Graph) -> Schedule:
        s, batch = self.settings, max(1, self.batch)
        return schedule(fused, s.machine, batch, s.precision, s.kernels)

    @property
    def _made(self) -> tuple[Target, int, int]:
        return self.settings.machine, self.batch, self.settings.threads

    def regions(self) -> list[Case]:
        """The native calls between its host ops, each as a case of its own, whose inputs are what
        the interpreter has there; just this one where there are no host ops, or where it cannot be
        lowered."""
        fused = self.fused()
        try:
            parts = self.parts(fused)
        except Exception:  # which is for who checks to see
            return [self]
        if not any(isinstance(part, HostNode) for part in parts):
            return [self]
        values = dict(zip(fused.inputs, self.inputs, strict=True))

        def keep(node: Node, results: tuple[Array, ...]) -> None:
            values.update(zip(node.outputs, results, strict=True))

        interpret(fused, self.inputs, observe=keep)
        settings = replace(self.settings, disable=tuple(PIPELINE), kernels={})
        return [
            Case(p.region.graph, tuple(values[v] for v in p.region.inputs), self.batch, settings)
            for p in parts
            if isinstance(p, Lowered)
        ]

    def with_graph(self, graph: Graph, inputs: tuple[Array, ...]) -> Case:
        return replace(self, graph=graph, inputs=inputs)


def files_of(case: Case, arrays: bool = True) -> dict[str, bytes]:
    """The files of a repro, by name."""
    options = {**asdict(case.settings), "batch": case.batch, "versions": versions()}
    files = {
        GRAPH: print_graph(case.graph).encode(),
        OPTIONS: json.dumps(options, indent=2).encode(),
    }
    if arrays:
        kept = {f"input:{i}": np.asarray(a) for i, a in enumerate(case.inputs)}
        payload = case.graph.payload
        kept |= {f"weight:{n}": np.asarray(payload[n]) for n in case.graph.sources()}
        buffer = io.BytesIO()
        np.savez(buffer, **kept)  # type: ignore[arg-type]  # its third parameter is no array
        files[ARRAYS] = buffer.getvalue()
    return files


def write_files(files: Mapping[str, bytes], path: Path) -> None:
    """Write files into a folder, or into a zip where the name ends so."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)


def save_case(case: Case, path: Path) -> None:
    """Write a repro to a folder, or to a zip where the name ends so."""
    write_files(files_of(case), path)


def is_repro(path: Path) -> bool:
    """Whether this is a folder or a zip, and so no model."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def load_case(path: Path) -> Case:
    """The case of a repro. Raises InputError where it is none, ParseError."""
    files = _read(path)
    if GRAPH not in files:
        raise InputError(f"{path} is no repro: it holds no {GRAPH}")
    graph = parse_graph(files[GRAPH].decode())
    options = json.loads(files.get(OPTIONS, b"{}"))
    known = {name: options[name] for name in Settings.__dataclass_fields__ if name in options}
    if "disable" in known:
        known["disable"] = tuple(known["disable"])
    batch = int(options.get("batch", 1))
    arrays: dict[str, Array] = {}
    if ARRAYS in files:
        with np.load(io.BytesIO(files[ARRAYS]), allow_pickle=False) as archive:
            arrays = dict(archive)
    graph.payload = {n.removeprefix("weight:"): a for n, a in arrays.items() if n[:2] == "we"}
    inputs = [arrays[n] for n in (f"input:{i}" for i in range(len(graph.inputs))) if n in arrays]
    if not graph.payload:
        graph.payload = sample_payload(graph)
    if not inputs:
        inputs = sample_inputs(graph, batch)
    return Case(graph, tuple(inputs), batch, Settings(**known))


def _read(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return {
            name: (path / name).read_bytes()
            for name in (GRAPH, ARRAYS, OPTIONS)
            if (path / name).is_file()
        }
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile as problem:
        raise InputError(f"{path} is no repro: {problem}") from problem


def read_inputs(path: Path, graph: Graph) -> tuple[tuple[Array, ...], int]:
    """A graph's inputs from an .npz file, by name or, where it has other names, by order; and
    their batch. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, Any] = dict(archive)
    except (ValueError, zipfile.BadZipFile) as problem:
        raise InputError(f"{path} is no .npz file of arrays: {problem}") from problem
    names = [v.name for v in graph.inputs]
    if not set(names) <= arrays.keys():
        names = list(arrays)
    if len(names) != len(graph.inputs):
        wanted = ", ".join(f"{v.name}: {v.type}" for v in graph.inputs)
        raise InputError(f"{path} holds {', '.join(arrays)}; expected {wanted}")
    kinds = [DTYPES[v.type.dtype] for v in graph.inputs]
    given = tuple(np.ascontiguousarray(arrays[n], k) for n, k in zip(names, kinds, strict=True))
    shapes = tuple(array.shape for array in given)
    batch = batch_of(graph.input_types(), shapes)
    if batch is None:
        raise InputError(f"{path}: {misfit(graph, shapes)}")
    return given, batch
