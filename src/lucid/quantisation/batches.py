"""Calibration data: batches of a model's inputs, read as often as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import pairwise
from typing import Any

import numpy as np

from lucid.errors import InputError, kind_of
from lucid.frontend.sources import Model
from lucid.ir.batch import misfit, obstacle
from lucid.ir.graph import Graph
from lucid.ir.ops.base import Array
from lucid.ir.types import Dim, batch_of
from lucid.runtime.inputs import Inputs

KEPT = 256 * 2**20
"""Bytes of the batches of an iterator that are kept for the passes after the first."""
ROWS = 8
"""Images that go through the model at a time, where images of a batch stay apart: intermediate
results of all layers are in memory together."""
WANTED = (
    "batches is an iterable of arrays as the model takes them, such as [x, y] with x of shape "
    "(N, 3, 224, 224), or of tuples or dicts where it has several inputs"
)


class Batches:
    """Batches of inputs, checked. Each pass over them reads them again; of an iterator, which ends,
    as many of the first ones are kept as fit into KEPT bytes, and later passes go over those.

    `given`: an iterable of arrays, or of tuples or dicts of them for several inputs; one array is
    one batch.
    """

    def __init__(self, given: Any, progress: Callable[[str, int, int], None]) -> None:
        if isinstance(given, np.ndarray) or hasattr(given, "__array__"):
            given = [given]
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise InputError(f"{WANTED}; got {kind_of(given)}")
        self._given = given
        self._ends = iter(given) is given
        self._first: Iterator[Any] | None = None
        self._kept: list[list[Array]] = []
        self._count = len(given) if isinstance(given, Sized) else 0
        self._progress = progress
        self._graph: Graph | None = None
        self._inputs: Inputs | None = None

    def first(self) -> Any:
        """The first batch as it is given, which the first pass begins with. Raises InputError where
        there is none."""
        batches = iter(self._given)
        try:
            first = next(batches)
        except StopIteration:
            raise InputError(
                "batches is empty: quantising measures what the layers compute, and wants some "
                "images like those that the model will see, 100 or so"
            ) from None

        def all_of_them() -> Iterator[Any]:
            yield first
            yield from batches

        self._first = all_of_them()
        return first

    def suit(self, graph: Graph, model: Model) -> None:
        """Be checked against the inputs of a graph of floats."""
        self._graph = graph
        self._inputs = Inputs(model.name, graph.input_dtypes(), [v.name for v in graph.inputs])
        self._inputs.compiled(graph.inputs)

    def passes(self, what: str) -> Iterator[list[Array]]:
        """The inputs of each call of the model: the batches in pieces of ROWS. `what`: is being
        done, for who looks on. Raises InputError for a batch that does not fit, or holds what is no
        number."""
        assert self._graph is not None
        apart = obstacle(self._graph) is None
        number = 0
        for number, arrays in enumerate(self._arrays(), 1):
            yield from _pieces(self._graph, arrays) if apart else [arrays]
            self._count = max(self._count, number)
            self._progress(what, number, self._count)
        if not number:
            raise InputError(
                "batches had some the first time it was read and has none now: give a list, or a "
                "generator itself (quantising reads them several times)"
            )

    def _arrays(self) -> Iterator[list[Array]]:
        if self._first is None and self._ends:
            yield from self._kept
            return
        given, first = self._first or iter(self._given), self._first is not None
        self._first = None
        kept = 0
        for number, batch in enumerate(given):
            arrays = self._checked(batch, number)
            kept += sum(array.nbytes for array in arrays)
            if first and self._ends and (not self._kept or kept <= KEPT):
                self._kept.append([array.copy() for array in arrays])
            yield arrays

    def _checked(self, batch: Any, number: int) -> list[Array]:
        """One batch as arrays, in the order of the inputs. Raises InputError."""
        assert self._graph is not None
        assert self._inputs is not None
        try:
            positional, named = as_call(batch)
            arrays = self._inputs.read(self._inputs.in_order(positional, named))
            shapes = tuple(array.shape for array in arrays)
            if batch_of(self._graph.input_types(), shapes) is None:
                advice = self._inputs.advice(positional, arrays) if not named else ""
                raise InputError(advice or misfit(self._graph, shapes))
        except InputError as problem:
            raise InputError(f"batch {number} of the calibration data: {problem}") from problem
        for value, array in zip(self._graph.inputs, arrays, strict=True):
            if not array.size:
                raise InputError(f"batch {number} of the calibration data is empty: {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                bad = array[~np.isfinite(array)][0]
                raise InputError(
                    f"batch {number} of the calibration data: {value.name} holds {bad}, and no "
                    "range of integers can stand for it; leave such batches out"
                )
        return arrays


def as_call(batch: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """A batch as the arguments of a call: by position, and by name."""
    if isinstance(batch, Mapping):
        return (), batch
    if isinstance(batch, tuple | list):
        return tuple(batch), {}
    return (batch,), {}


def _pieces(graph: Graph, arrays: list[Array]) -> Iterator[list[Array]]:
    """The inputs, a few rows of the batch at a time, of pieces as much of a size as there can be:
    each size is planned by itself."""
    shapes = tuple(array.shape for array in arrays)
    batch = batch_of(graph.input_types(), shapes) or 0
    count = -(-batch // ROWS)
    for start, stop in pairwise(batch * i // count for i in range(count + 1)):
        yield [
            array[start * dim.coefficient : stop * dim.coefficient]
            if value.type.rank and isinstance(dim := value.type.shape[0], Dim)
            else array
            for value, array in zip(graph.inputs, arrays, strict=True)
        ]
