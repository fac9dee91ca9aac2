"""The tables of programs in a file, by which a model is called without being lowered again.

A section is JSON: the kernels, the keys of packed weights, and for each size and number of threads
the tables, whose numbers count in those two lists. Only the Lucid that wrote them reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lucid.artifact.contents import ir_hash
from lucid.artifact.tensors import Tensors
from lucid.codegen.kernels.admission_tables import ADMISSION
from lucid.codegen.kernels.driver_tables import DRIVER, PHASE_WORDS
from lucid.codegen.language.names import KernelName
from lucid.codegen.program.program_tables import Function, ProgramTables, Step
from lucid.ir.types import TensorType
from lucid.runtime.binding import BoundTables
from lucid.runtime.cache import generator_hash
from lucid.runtime.library import library
from lucid.runtime.memory import ALIGNMENT
from lucid.runtime.plans import Ready
from lucid.runtime.signature import Interface, Port

if TYPE_CHECKING:
    from lucid.artifact.contents import Artifact, ForTarget
    from lucid.codegen.target import Target
    from lucid.ir.graph import Graph, Value
    from lucid.ir.ops.base import Array
    from lucid.ir.types import Shapes


class Written(NamedTuple):
    """A program to be written: of a graph for inputs of these shapes, made for so many threads.
    `keys`: those of its weights, by their names in the tables."""

    shapes: Shapes
    graph: Graph
    batch: int
    threads: int
    tables: ProgramTables
    keys: Mapping[str, str]


# -- writing ----------------------------------------------------------------------------------


def to_json(programs: Iterable[Written], kernels: Mapping[KernelName, str]) -> str:
    """The section; `kernels`: all that there are, and what their object code is stored under."""
    numbers = {name: number for number, name in enumerate(kernels)}
    weights: dict[str, int] = {}
    rows = [_row(program, numbers, weights) for program in programs]
    listed = [[name.text, name.exports, key] for name, key in kernels.items()]
    whole = {"kernels": listed, "weights": list(weights), "programs": rows}
    return json.dumps(whole, separators=(",", ":"))


def _row(
    program: Written, numbers: Mapping[KernelName, int], weights: dict[str, int]
) -> dict[str, Any]:
    from lucid.ir.batch import obstacle

    tables = program.tables

    def place(name: str) -> int:
        return weights.setdefault(program.keys[name], len(weights))

    return {
        "shapes": program.shapes,
        "batch": program.batch,
        "threads": program.threads,
        "inputs": _ports(program.graph.inputs),
        "outputs": _ports(program.graph.outputs),
        "apart": obstacle(program.graph) is None,
        "steps": [[numbers[s.kernel], s.first, s.tasks] for s in tables.steps],
        "words": tables.words.tolist(),
        "codes": [[word, numbers[f.kernel], f.export] for word, f in tables.codes.items()],
        "weights": [[word, place(name)] for word, name in tables.weights.items()],
        "phases": tables.phases.tolist(),
        "users": tables.users,
        "arena": tables.arena,
        "scratch": tables.scratch,
    }


def _ports(values: Sequence[Value]) -> list[list[str]]:
    return [[value.name, str(value.type)] for value in values]


# -- reading ----------------------------------------------------------------------------------


def ready_plans(
    artifact: Artifact, made: ForTarget, packed: Mapping[str, Array], target: Target, threads: int
) -> dict[Shapes, Ready]:
    """What calls by so many threads need, by the shapes of inputs, as far as the file has it: a
    program that was made for as many threads, or the next larger number, or else the largest.
    `packed`: its weights. Nothing where another version of Lucid made the file. Raises
    ModelFileError, CompileError."""
    by = artifact.manifest.made_by
    same = (by.get("ir"), by.get("generator")) == (ir_hash(), generator_hash())
    if not (same and made.programs and made.packed and made.objects):
        return {}
    try:
        section = json.loads(bytes(artifact.container.read(made.programs)))
        return _Reader(artifact, made.objects, packed, target, section).plans(threads)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as problem:
        artifact.container.fail(f"its section {made.programs!r} cannot be read ({problem!r})")


class _Reader:
    """A section that is read, and the kernels and weights that its numbers count in."""

    def __init__(
        self,
        artifact: Artifact,
        objects: str,
        packed: Mapping[str, Array],
        target: Target,
        section: Mapping[str, Any],
    ) -> None:
        self._dtypes = artifact.manifest.dtypes
        self._library = library(target)
        self._objects = Tensors(artifact.container, objects)
        self._packed = packed
        self._kernels = {
            KernelName(t, tuple(exports)): key for t, exports, key in section["kernels"]
        }
        self._names = list(self._kernels)
        self._weights: Sequence[str] = section["weights"]
        self._rows: Sequence[Mapping[str, Any]] = section["programs"]

    def plans(self, threads: int) -> dict[Shapes, Ready]:
        chosen: dict[Shapes, Mapping[str, Any]] = {}
        most_first = sorted(self._rows, key=lambda row: int(row["threads"]), reverse=True)
        for row in most_first:  # of those that are enough, the last one stays
            shapes = tuple(map(tuple, row["shapes"]))
            if row["threads"] >= threads or shapes not in chosen:
                chosen[shapes] = row
        own = [tuple(map(tuple, row["shapes"])) for row in self._rows]
        return {s: self._ready(chosen[s]) for s in dict.fromkeys(own) if s in chosen}

    def _ready(self, row: Mapping[str, Any]) -> Ready:
        steps = tuple(Step(self._names[k], first, tasks) for k, first, tasks in row["steps"])
        codes = {word: Function(self._names[k], e) for word, k, e in row["codes"]}
        weights = {word: self._weights[number] for word, number in row["weights"]}
        words = np.array(row["words"], np.int64)
        phases = np.array(row["phases"], np.int64).reshape(-1, PHASE_WORDS)
        _require_inside(words, [*codes, *weights, *(step.first for step in steps)])
        tables = ProgramTables(
            steps, words, codes, weights, phases, row["users"], row["arena"], row["scratch"]
        )
        used = dict.fromkeys([s.kernel for s in steps] + [f.kernel for f in codes.values()])
        names = [*used, DRIVER, ADMISSION]
        objects = {k: self._objects[self._kernels[k]].data for k in names}
        code = self._library.take(names, objects)
        places = {key: self._place(key) for key in set(weights.values())}
        ports = _read_ports(row["inputs"]), _read_ports(row["outputs"])
        graph = Interface(*ports, row["apart"] is True)
        if [port.type.dtype for port in graph.inputs] != self._dtypes:
            raise ValueError(f"its inputs are {graph.inputs}")
        return Ready(graph, row["batch"], BoundTables(tables, code, places), self._packed)

    def _place(self, key: str) -> int:
        """Where a packed weight lies."""
        place = int(self._packed[key].ctypes.data)
        if place % ALIGNMENT:
            raise ValueError(f"a weight lies at {place:#x}")
        return place


def _require_inside(words: Any, places: Sequence[int]) -> None:
    if words.ndim != 1 or any(not 0 <= place <= len(words) for place in places):
        raise ValueError("a word lies outside its table")


def _read_ports(rows: Sequence[Sequence[str]]) -> tuple[Port, ...]:
    return tuple(Port(name, TensorType.parse(text)) for name, text in rows)
