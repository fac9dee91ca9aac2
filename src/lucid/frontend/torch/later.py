"""What follows a graph where sizes depend on the elements of tensors.

Torch has a symbol for such a size (the boxes that `nms` keeps). The graph ends before it; the
operator itself runs once its operands are there (`selection`), which tells the size; and the
program is read on with it, as a graph that is kept for the next call of the same sizes, and
compiled where that pays.
"""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Node
from torch.fx.node import map_arg

from lucid.errors import InputError, UnsupportedError
from lucid.frontend.torch.importer import NUMBERS, Importer
from lucid.frontend.torch.places import place_of
from lucid.frontend.torch.refused import DependsOnElements
from lucid.frontend.torch.selection import selected, selects
from lucid.frontend.torch.sizes import Sizes
from lucid.frontend.torch.tables import Known
from lucid.ir.graph import Graph, Parameter
from lucid.ir.interpret import interpret
from lucid.ir.ops.base import Array
from lucid.ir.pieces import Pieces, pays
from lucid.ir.stage import Stage
from lucid.ir.types import DTYPES

KEPT = 32
"""Stages of a model that are kept: one for each combination of sizes that was met."""


class _Missing(Exception):  # noqa: N818  # what happened, and is dealt with here
    """An operand is not there yet."""


@dataclass(eq=False)
class _Entry:
    """The program read on for some sizes, and its graph compiled once that pays. `varied`: it was
    read for others before; `calls`: how often these were met."""

    reading: Importer
    varied: bool
    calls: int = 0
    stage: Stage | None = None


class Following:
    """The `Rest` of a graph that ends before nodes of unknown sizes."""

    def __init__(self, first: Importer, compile_graph: Callable[[Graph], Stage]) -> None:
        self._first = first
        self._compile = compile_graph
        self._pieces = Pieces(lambda graph: compile_graph(graph).results)
        self._entries: OrderedDict[Any, _Entry] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def outputs(self) -> list[tuple[str, str, tuple[int | str, ...]]]:
        """Name, dtype and shape of each output; "?" for a size that is not known yet."""
        sizes, told = self._first.sizes, []
        for node, name in zip(self._first.returned, self._first.names, strict=True):
            value = node.meta["val"]
            shape = tuple("?" if sizes.unknown(d) else sizes.at(d, 0) for d in value.shape)
            told.append((name or node.name, self._first.declared(value.dtype), shape))
        return told

    @property
    def host_ops(self) -> list[tuple[str, str]]:
        """The operators that run between graphs, as they tell sizes, and their modules: all that
        ever will."""
        return [
            (str(node.target), place_of(node)[0])
            for node in self._first.later
            if selects(node)
            or (node.meta.get("unbacked_bindings") and not isinstance(node.meta["val"], NUMBERS))
        ]

    def refuse_host_ops(self) -> None:
        """Nothing to refuse beyond `host_ops`."""

    def finish(self, results: list[Array], apart: Sequence[Any] = ()) -> list[Array]:
        """The outputs of the forward, all of whose inputs are tensors. Raises InputError where an
        operator refuses its operands, UnsupportedError for what has no counterpart in Lucid."""
        call = _Call(self._first)
        call.take(self._first, results)
        reading = self._first
        while True:
            before = len(call.have)
            call.run_ready(reading, self._pieces)
            if not reading.later or call.complete():
                return [call.result(reading, node) for node in reading.returned]
            entry = self._next(reading, call)
            reading = entry.reading
            if reading.graph.outputs:
                call.take(reading, self._results(entry, call))
            if len(call.have) == before:
                names = ", ".join(sorted({str(node.target) for node in reading.later}))
                raise UnsupportedError(
                    f"{reading.graph.name} has sizes that depend on elements in a way that cannot "
                    f"be followed, by {names}"
                )

    def _next(self, reading: Importer, call: _Call) -> _Entry:
        """The program read on with what is known by now."""
        key = (id(reading), *sorted((str(s), v) for s, v in call.sizes.values.items()))
        with self._lock:
            if key not in self._entries:
                sizes = Sizes(call.sizes.values)
                made = Importer(
                    reading.module, reading.calling, reading.exported, sizes, reading, call.have
                )
                varied = any(known[0] == key[0] for known in self._entries)
                self._entries[key] = _Entry(made, varied)
                if len(self._entries) > KEPT:
                    self._entries.popitem(last=False)
            self._entries.move_to_end(key)
            self._entries[key].calls += 1
            return self._entries[key]

    def _results(self, entry: _Entry, call: _Call) -> Sequence[Array]:
        """What the graph of a stage gives."""
        graph = entry.reading.graph
        if entry.stage is None and not pays(graph, entry.varied, entry.calls):
            return interpret(graph, call.numbers(entry.reading), natively=self._pieces)
        with self._lock:
            if entry.stage is None:
                entry.stage = self._compile(graph)
        return entry.stage.results(call.inputs(entry.reading))


class _Call:
    """The tensors of one call, by the nodes that they are the results of, and its sizes."""

    def __init__(self, first: Importer) -> None:
        self.first = first
        self.sizes = Sizes(first.sizes.values)
        self.have: dict[Node, Any] = {}

    def take(self, reading: Importer, arrays: Sequence[Array]) -> None:
        """The results of a graph."""
        for node, array in zip(reading.ends, arrays, strict=True):
            kind = node.meta["val"].dtype
            own = np.ascontiguousarray(array).reshape(array.shape)
            if kind is torch.bfloat16 and own.dtype == np.uint16:
                self.have[node] = torch.from_numpy(own.view(np.int16)).view(kind)
            else:
                self.have[node] = torch.from_numpy(own).to(kind)

    def inputs(self, reading: Importer) -> list[Array]:
        """What the graph takes, as it is stored."""
        return [_array(reading, self.have[node]) for node in reading.taken]

    def numbers(self, reading: Importer) -> list[Array]:
        """What the graph takes, as numbers: bfloat16 as float32."""
        tensors = [self.have[node].detach().cpu() for node in reading.taken]
        return [(t.float() if t.dtype is torch.bfloat16 else t).numpy() for t in tensors]

    def complete(self) -> bool:
        """Whether all that the forward returns is there."""
        returned = self.first.returned
        return all(n in self.have or self._is_constant(self.first, n) for n in returned)

    @staticmethod
    def _is_constant(reading: Importer, node: Node) -> bool:
        return isinstance(reading.results[node], Known | Parameter)

    def result(self, reading: Importer, node: Node) -> Array:
        """What the forward returns, as users get it: bfloat16 as float32."""
        tensor = self._operand(reading, node)
        return _array(reading, tensor.float() if tensor.dtype is torch.bfloat16 else tensor)

    def run_ready(self, reading: Importer, pieces: Pieces) -> None:
        """Run the operators whose results have unknown sizes and whose operands are there."""
        for node in reading.later:
            value = node.meta.get("val")
            opens = self.sizes.unknown(value) or node.target is operator.getitem or selects(node)
            if node in self.have or not opens:
                continue
            try:
                args, kwargs = map_arg(
                    (node.args, node.kwargs), lambda n: self._operand(reading, n)
                )
            except (_Missing, DependsOnElements):
                continue
            assert callable(node.target), "only calls are left for later"
            try:
                result = selected(node.target, args, kwargs, pieces)
            except Exception as problem:  # torch raises many kinds
                raise InputError(f"{node.target} of {reading.graph.name}: {problem}") from problem
            self.sizes.learn(value, result)
            self.have[node] = result

    def _operand(self, reading: Importer, node: Node) -> Any:
        if node in self.have:
            return self.have[node]
        value = node.meta.get("val")
        if value is not None and not isinstance(value, torch.Tensor | tuple | list):
            return self.sizes.at(value, 0)
        result = reading.results[node]
        if isinstance(result, Known):
            return reading.notes.tables.tensor(result)
        if isinstance(result, Parameter):
            return reading.tensors[result.name]
        raise _Missing


def _array(reading: Importer, tensor: torch.Tensor) -> Array:
    """A tensor as graphs take it."""
    name = reading.declared(tensor.dtype)
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype is torch.bfloat16 and name == "bf16":
        return np.asarray(plain.view(torch.int16).numpy().view(np.uint16))
    if plain.dtype is torch.bfloat16:
        plain = plain.float()
    array: Array = plain.numpy()
    return array.astype(DTYPES[name], copy=False)
