"""What follows a graph where sizes depend on the elements of tensors.

Torch has a symbol for such a size (the boxes that `nms` keeps). The graph ends before it; the
operator itself runs in torch once its operands are there, which tells the size; and the program is
read on with it, as a graph that is compiled and kept for the next call of the same sizes.
"""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node
from torch.fx.node import map_arg

from lucid.errors import InputError, UnsupportedError
from lucid.frontend.torch.importer import NUMBERS, Importer
from lucid.frontend.torch.places import place_of
from lucid.frontend.torch.refused import DependsOnElements
from lucid.frontend.torch.sizes import Sizes
from lucid.frontend.torch.tables import Known
from lucid.ir.graph import Graph, Parameter
from lucid.ir.ops.base import Array
from lucid.ir.stage import Stage
from lucid.ir.types import DTYPES

KEPT = 32
"""Stages of a model that are kept: one for each combination of sizes that was met."""


class _Missing(Exception):  # noqa: N818  # what happened, and is dealt with here
    """An operand is not there yet."""


class Following:
    """The `Rest` of a graph that ends before nodes of unknown sizes."""

    def __init__(self, first: Importer, compile_graph: Callable[[Graph], Stage]) -> None:
        self._first = first
        self._compile = compile_graph
        self._stages: OrderedDict[Any, tuple[Importer, Stage | None]] = OrderedDict()
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
        """The operators that run in torch, which tell sizes, and their modules: all that ever
        will."""
        return [
            (str(node.target), place_of(node)[0])
            for node in self._first.later
            if node.meta.get("unbacked_bindings") and not isinstance(node.meta["val"], NUMBERS)
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
            call.run_ready(reading)
            if not reading.later or call.complete():
                return [call.result(reading, node) for node in reading.returned]
            reading, stage = self._next(reading, call)
            if stage is not None:
                call.take(reading, stage.results(call.inputs(reading)))
            if len(call.have) == before:
                names = ", ".join(sorted({str(node.target) for node in reading.later}))
                raise UnsupportedError(
                    f"{reading.graph.name} has sizes that depend on elements in a way that cannot "
                    f"be followed, by {names}"
                )

    def _next(self, reading: Importer, call: _Call) -> tuple[Importer, Stage | None]:
        """The program read on with what is known by now, and its graph compiled."""
        key = (id(reading), *sorted((str(s), v) for s, v in call.sizes.values.items()))
        with self._lock:
            if key not in self._stages:
                sizes = Sizes(call.sizes.values)
                made = Importer(
                    reading.module, reading.calling, reading.exported, sizes, reading, call.have
                )
                empty = not made.graph.outputs
                self._stages[key] = (made, None if empty else self._compile(made.graph))
                if len(self._stages) > KEPT:
                    self._stages.popitem(last=False)
            self._stages.move_to_end(key)
            return self._stages[key]


class _Call:
    """The tensors of one call, by the nodes that they are the results of, and its sizes."""

    def __init__(self, first: Importer) -> None:
        self.first = first
        self.sizes = Sizes(first.sizes.values)
        self.have: dict[Node, Any] = {}

    def take(self, reading: Importer, arrays: list[Array]) -> None:
        """The results of a graph."""
        for node, array in zip(reading.ends, arrays, strict=True):
            kind = node.meta["val"].dtype
            own = np.ascontiguousarray(array).reshape(array.shape)
            if kind is torch.bfloat16 and own.dtype == np.uint16:
                self.have[node] = torch.from_numpy(own.view(np.int16)).view(kind)
            else:
                self.have[node] = torch.from_numpy(own).to(kind)

    def inputs(self, reading: Importer) -> list[Array]:
        """What the graph takes."""
        return [_array(reading, self.have[node]) for node in reading.taken]

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

    def run_ready(self, reading: Importer) -> None:
        """Run the operators whose results have unknown sizes and whose operands are there."""
        for node in reading.later:
            value = node.meta.get("val")
            opens = self.sizes.unknown(value) or node.target is operator.getitem
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
                with torch.no_grad():
                    result = node.target(*args, **kwargs)
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
