"""How a model runs on after its first stage: results in, the next stage read, run, and so on.

    outputs = Runner(run).finish(stage, results, live)

Each stage is read for the shapes of what it is given and for the elements that were wanted, and is
kept for the next call that has the same.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lucid.errors import InputError, LucidError, ModelFileError, UnsupportedError
from lucid.ir.graph import Graph
from lucid.ir.interpret import interpret
from lucid.ir.ops import Array
from lucid.ir.pieces import Pieces, pays
from lucid.ir.types import TensorType
from lucid.onnx.host import contributed, control, plain, rational, reference
from lucid.onnx.known import Known, Nothing, Opaque
from lucid.onnx.operator import Operator
from lucid.onnx.reader import read_stage
from lucid.onnx.stages import Deferred, Given, Live, Output, Program, Stage, listed
from lucid.onnx.tensors import (
    External,
    as_computed,
    as_elements,
    as_stored,
    element_of,
    is_numeric,
    outer_dtype,
)

STAGES_KEPT = 24
"""Stages of other shapes and elements that are kept of one program."""

Compile = Callable[[Graph], Callable[[Sequence[Array]], Sequence[Array]]]
"""Compiles a graph: what gives its results for its inputs, in arrays as they are stored."""


LOOP_LIMIT = 100_000


def given_limit() -> int:
    """How often a loop may go round: LUCID_LOOP_LIMIT, or 100,000. Raises InputError."""
    text = os.environ.get("LUCID_LOOP_LIMIT", "")
    if text and not text.isdecimal():
        raise InputError(f"LUCID_LOOP_LIMIT is a number of rounds, not {text!r}")
    return int(text) if text else LOOP_LIMIT


@dataclass(eq=False)
class Entry:
    """A stage that is kept, and how its graph is run once it was. `varied`: there was one of other
    sizes before; `calls`: how often this one was met."""

    stage: Stage
    varied: bool = False
    calls: int = 0
    run: Callable[[Sequence[Array]], Sequence[Array]] | None = None


class Runner:
    """Runs what is left of models. It may be used by several threads at once.

    `compile_graph`: for the graphs of later stages. `refuse`: whether operators that would run on
    the host are refused. `loop_limit`: how often a loop may go round. `hosted`: the operators that
    have run on the host so far, by name, with the reason; `interpreted`: whether a graph has.
    """

    def __init__(
        self,
        compile_graph: Compile,
        external: External,
        refuse: bool = False,
        loop_limit: int | None = None,
    ) -> None:
        self.compile_graph = compile_graph
        self.external = external
        self.refuse = refuse
        self.loop_limit = given_limit() if loop_limit is None else loop_limit
        self.hosted: dict[str, str] = {}
        self.interpreted = False
        self._pieces = Pieces(compile_graph)
        self._entries: dict[Program, OrderedDict[Any, Entry]] = {}
        self._lock = threading.RLock()

    def run(
        self, program: Program, live: Mapping[str, Live], types: Mapping[str, int]
    ) -> list[Any]:
        """The outputs of a program for values of the names that it reads, in the element types that
        it says."""
        entry = self._entry(program, live, types, ())
        results = self._results(entry, live, passing=True)
        return self.finish(program, entry.stage, results, live, passing=True)

    def finish(
        self,
        program: Program,
        stage: Stage,
        results: Sequence[Array],
        live: Mapping[str, Live],
        passing: bool = False,
        given: Collection[str] = (),
    ) -> list[Any]:
        """The outputs of a program, from the results of the graph of its first stage. `passing`:
        its sizes depend on data, and may be others the next time. `given`: the names of what the
        user gives, on whose elements a model may be specialised."""
        outputs: list[Any] = [None] * len(program.outputs)
        places, varied = list(range(len(outputs))), False
        while True:
            for index, held in stage.finished.items():
                value = stage.collected(held, results, live)
                outputs[places[index]] = _as_output(value, program.outputs[index], stage)
            if not stage.left:
                return outputs
            kept = {n: stage.collected(h, results, live) for n, h in stage.kept.items()}
            types = dict(stage.rest.types)
            wanted = {name for deferred in stage.deferred for name in deferred.demands}
            for deferred in stage.deferred:
                if deferred.on_host:
                    self._host(deferred, kept, types, stage)
            places = [places[index] for index in stage.left]
            passing = (
                passing or bool(wanted.difference(given)) or any(d.on_host for d in stage.deferred)
            )
            program, live = stage.rest, kept
            entry = self._entry(program, live, types, sorted(wanted), varied)
            varied = entry.varied
            stage, results = entry.stage, self._results(entry, live, passing)

    def run_body(self, program: Program, values: Mapping[str, Any]) -> list[Any]:
        """The outputs of a program for values in the file's types, and in these."""
        types = {name: _element_type(value) for name, value in values.items()}
        return self.run(program, {name: as_live(v) for name, v in values.items()}, types)

    # -- stages -----------------------------------------------------------------------------

    def _entry(
        self,
        program: Program,
        live: Mapping[str, Live],
        types: Mapping[str, int],
        wanted: Sequence[str],
        varied: bool = False,
    ) -> Entry:
        read = program.wanted
        given = {
            name: _given(name, value, types.get(name, 0), name in wanted)
            for name, value in live.items()
            if name in read and name not in program.constants
        }
        key = tuple((name, _key(value)) for name, value in sorted(given.items()))
        with self._lock:
            entries = self._entries.setdefault(program, OrderedDict())
            if key not in entries:
                stage = read_stage(program, given, self.external)
                entries[key] = Entry(stage, varied or bool(entries))
                if len(entries) > STAGES_KEPT:
                    _, dropped = entries.popitem(last=False)
                    self._entries.pop(dropped.stage.rest, None)
            entries.move_to_end(key)
            entries[key].calls += 1
            return entries[key]

    def _results(self, entry: Entry, live: Mapping[str, Live], passing: bool) -> Sequence[Array]:
        """What the graph of a stage gives. One that may be another the next time is compiled where
        that pays."""
        graph = entry.stage.graph
        arrays = [_element(live, value.name) for value in graph.inputs]
        if all(value in graph.inputs for value in graph.outputs):
            return [arrays[graph.inputs.index(value)] for value in graph.outputs]
        if entry.run is None and passing and not pays(graph, entry.varied, entry.calls):
            self.interpreted = True
            return interpret(graph, arrays, natively=self._pieces)
        with self._lock:
            if entry.run is None:
                entry.run = self.compile_graph(graph)
        return entry.run([np.asarray(as_stored(a), order="C") for a in arrays])

    # -- the host ---------------------------------------------------------------------------

    def _host(
        self, deferred: Deferred, live: dict[str, Live], types: dict[str, int], stage: Stage
    ) -> None:
        """Run an operator by NumPy; its results join `live`, their types `types`."""
        operator = deferred.operator
        if self.refuse or deferred.impossible:
            raise UnsupportedError(listed(stage.rest.name, stage.deferred))
        self.hosted.setdefault(operator.kind, deferred.reason)
        values = {name: _as_file(live[name], types.get(name, 0)) for name in operator.reads}
        try:
            results = self._evaluated(operator, values)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
            if isinstance(problem, LucidError):
                raise
            where = f"{operator.kind} {operator.where}"
            raise ModelFileError(f"{where} is malformed: {problem}") from problem
        for name, result in zip(operator.proto.output, results, strict=False):
            if name:
                types[name] = _element_type(result) or types.get(name, 0)
                live[name] = as_live(result)

    def _evaluated(self, operator: Operator, values: Mapping[str, Any]) -> list[Any]:
        if operator.proto.op_type in control.RUNS and not operator.domain:
            return control.RUNS[operator.proto.op_type](operator, values, self)
        if rational.is_rational(operator, values):
            return rational.evaluate(operator, values)
        if plain.is_plain(operator):
            return plain.evaluate(operator, values)
        if contributed.is_contributed(operator):
            return contributed.evaluate(operator, values)
        return reference.evaluate(operator, values)


# -- what values are ------------------------------------------------------------------------------


def _given(name: str, value: Live, element: int, wanted: bool) -> Given:
    return Given(_described(name, value, wanted), element)


def _described(name: str, value: Live, wanted: bool) -> Any:
    if value is None:
        return Nothing()
    if isinstance(value, list):
        items = [_described(name, item, wanted) for item in value]
        return Opaque(name) if any(isinstance(i, Opaque) for i in items) else tuple(items)
    array = np.asarray(value)
    element = element_of(array.dtype)
    if not is_numeric(element):
        return Opaque(name)
    if wanted:
        return Known(as_computed(array, element))
    return TensorType(outer_dtype(element), array.shape)


def _key(given: Any) -> Any:
    """What of a given value a stage depends on."""
    match given:
        case Given(value, element):
            return element, _key(value)
        case tuple():
            return tuple(map(_key, given))
        case Known(array):
            return array.dtype.str, array.shape, array.tobytes()
    return given


def _element(live: Mapping[str, Live], name: str) -> Array:
    """The array for an input of a graph: of that name, or the element of a sequence."""
    if name in live:
        return np.asarray(live[name])
    stem, _, index = name.rpartition(".")
    items = live[stem] if stem in live else _element(live, stem)
    return np.asarray(items[int(index)])


def _as_file(value: Live, element: int) -> Any:
    """A value in the element type of the file."""
    if isinstance(value, list):
        return [_as_file(item, element) for item in value]
    if value is None or not is_numeric(element):
        return value
    return as_elements(np.asarray(value), element)


def as_live(value: Any) -> Live:
    if isinstance(value, list | tuple):
        return [as_live(item) for item in value]
    if value is None:
        return None
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "SU" else array


def _element_type(value: Any) -> int:
    """The element type of a value of the file; of a sequence, that of its elements."""
    if isinstance(value, list | tuple):
        return next(filter(None, map(_element_type, value)), 0)
    return 0 if value is None else element_of(np.asarray(value).dtype)


def _as_output(value: Live, output: Output, stage: Stage) -> Any:
    return _as_file(value, output.element or stage.rest.types.get(output.name, 0))
