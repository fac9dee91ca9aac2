"""What answers requests: a compiled model, behind a Batcher where its rows are independent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lucid.errors import CompileError, InputError, LucidError, QueueFullError
from lucid.ir.types import Dim, Shape, concrete, parse_dim
from lucid.loading import load
from lucid.runtime.batcher import Batcher
from lucid.runtime.executable import CompiledModel
from lucid.runtime.executor import executor
from lucid.runtime.planner import MAX_BATCH
from lucid.runtime.signature import TensorSpec
from lucid.serve.errors import RequestError
from lucid.serve.images import ImageInput
from lucid.serve.tensors import ANY, DTYPES, Array, Tensor
from lucid.vision import Preprocess

log = logging.getLogger("lucid.serve")


class Model(Protocol):
    """What the server needs of a model: another engine's can be served by the same code."""

    @property
    def platform(self) -> str: ...
    @property
    def inputs(self) -> Sequence[Tensor]: ...
    @property
    def outputs(self) -> Sequence[Tensor]: ...
    @property
    def images(self) -> ImageInput | None:
        """How the one input can be made of encoded images."""
        ...

    async def infer(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """All outputs for arrays of the inputs' datatypes and shapes. Raises InputError."""
        ...

    def batch_sizes(self) -> Mapping[int, int]:
        """How many calls had so many rows, so far."""
        ...


@dataclass(frozen=True)
class Batching:
    """`max_batch`: rows of one call at most, so that a request of more is several calls; where rows
    depend on one another it is refused. `max_delay_ms`: for how long a request waits for company
    at most. `threads`: of a call, None for all."""

    max_batch: int = 8
    max_delay_ms: float = 2.0
    threads: int | None = None


class LucidModel:
    """A `.lucid` file. Raises what `lucid.load` does, and InputError for a model that the protocol
    cannot serve."""

    platform = "lucid"

    def __init__(self, path: Path, batching: Batching, queue: int) -> None:
        compiled = load(path, threads=batching.threads or "auto")
        self.inputs = tuple(map(Tensor.of, compiled.inputs))
        self.outputs = tuple(map(Tensor.of, compiled.outputs))
        self.images = _image_input(compiled, self.inputs, path)
        self._compiled = compiled
        self._call_once()
        self._apart = compiled.independent(_shapes(compiled.inputs, 1)) is not None
        self._rows = most = batching.max_batch
        self._batcher: Batcher | None = None
        if self._apart and most > 1:
            self._rows = self._planned(most, path)
            self._batcher = Batcher(compiled, self._rows, batching.max_delay_ms, queue)

    def _planned(self, most: int, path: Path) -> int:
        """Plan for batches of up to so many rows, of which larger ones run in slices; up to how
        many that can be done."""
        for rows in range(2, min(most, MAX_BATCH) + 1):
            try:
                self._compiled.prepare_calls(_shapes(self._compiled.inputs, rows))
            except LucidError as error:  # code that is not in the file, and no compiler
                log.warning("%s: no batches of more than %d: %s", path, rows - 1, error)
                return rows - 1
        return most

    def _call_once(self) -> None:
        """What the model returns must be what it says."""
        shapes = _shapes(self._compiled.inputs, 1)
        zeros = [
            np.zeros(shape, DTYPES[tensor.datatype])
            for shape, tensor in zip(shapes, self.inputs, strict=True)
        ]
        found = [array.dtype for array in _flat(self._compiled(*zeros))]
        if found != [DTYPES[tensor.datatype] for tensor in self.outputs]:
            raise InputError(f"{self._compiled} cannot be served: it returns what is no tensor")

    async def infer(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """A call is cancelled with who waits for it, unless it has begun. Requests of many rows are
        calls of as many as are planned, one after another: nothing is compiled while others wait,
        and theirs come in between."""
        rows = _rows(self._compiled.inputs, inputs)
        if rows <= self._rows:
            return await self._call(inputs)
        if not self._apart:
            raise InputError(
                f"{rows} rows in a request, of {self._rows} at most (--max-batch): the rows of "
                "this model depend on one another"
            )
        parts = []
        for start in range(0, rows, self._rows):
            end = min(start + self._rows, rows)
            sliced = [a[len(a) * start // rows : len(a) * end // rows] for a in inputs]
            parts.append(await self._call(sliced))
        return [
            np.concatenate(column) if tensor.shape[:1] == (ANY,) else column[0]
            for tensor, column in zip(self.outputs, zip(*parts, strict=True), strict=True)
        ]

    async def _call(self, inputs: Sequence[Array]) -> Sequence[Array]:
        if self._batcher is None:
            return _flat(await self._compiled.acall(*inputs))
        return _flat(await asyncio.wrap_future(self._batcher.submit(*inputs, timeout=0)))

    def batch_sizes(self) -> Mapping[int, int]:
        return self._batcher.statistics().sizes if self._batcher else {}


def _image_input(
    compiled: CompiledModel, inputs: Sequence[Tensor], path: Path
) -> ImageInput | None:
    """How images become the input of a model whose metadata says how they are preprocessed."""
    try:
        found = Preprocess.find(compiled)
    except (InputError, TypeError) as error:  # another version's
        log.warning("%s takes arrays alone, no images: its preprocessing: %s", path, error)
        return None
    return ImageInput.of(inputs[0], found) if found and len(inputs) == 1 else None


def _shapes(specs: Sequence[TensorSpec], rows: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of inputs with so many rows."""
    return tuple(concrete(_dims(spec), rows) for spec in specs)


def _dims(spec: TensorSpec) -> Shape:
    """The shape with its "N" and "2N", the batch and twice as many, as dimensions."""
    return tuple(parse_dim(str(dim)) for dim in spec.shape)


def _rows(specs: Sequence[TensorSpec], inputs: Sequence[Array]) -> int:
    """How many rows arrays have that are given for inputs; 1 where none has a batch, and where they
    do not agree, of which the model says more."""
    found = {
        divmod(size, dim.coefficient)
        for spec, array in zip(specs, inputs, strict=True)
        for dim, size in zip(_dims(spec), array.shape, strict=True)
        if isinstance(dim, Dim)
    }
    rows, left = found.pop() if len(found) == 1 else (1, 0)
    return 1 if left else rows


def _flat(output: Any) -> list[Array]:
    """The arrays in what a model returns, in order. Raises InputError for anything else in it."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [array for part in output for array in _flat(part)]
    if not isinstance(output, np.ndarray):
        raise InputError(f"the model returns {type(output).__name__}, which is no tensor")
    return [output]


async def run(model: Model, inputs: Sequence[Array | list[memoryview]]) -> Sequence[Array]:
    """The outputs for the inputs of a request, images among them, which are decoded first. Raises
    RequestError for what does not fit the model."""
    arrays = []
    for given in inputs:
        if isinstance(given, list):
            assert model.images is not None, "only then are images read"
            loop = asyncio.get_running_loop()
            given = await loop.run_in_executor(executor(), model.images.decode, given)
        arrays.append(given)
    try:
        return await model.infer(arrays)
    except QueueFullError as error:  # calls that nobody waits for any longer fill it
        raise RequestError(429, str(error), retry_after=1) from error
    except CompileError:  # a defect
        raise
    except LucidError as error:  # inputs that do not fit, or sizes that cannot be compiled here
        raise RequestError(400, str(error)) from error
