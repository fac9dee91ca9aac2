"""`import_onnx`: a model of ONNX as a graph, its weights by reference.

    graph = import_onnx("net.onnx")
    graph = import_onnx("net.onnx", (1, 3, 512, 512))  # where the file leaves the image size open

Here files are opened and inputs are given their types; `lucid.onnx` reads the operators.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import (
    InputError,
    LucidError,
    MissingPackageError,
    ModelFileError,
    ShapeError,
    UnsupportedError,
)
from lucid.ir.batch import mixing_node
from lucid.ir.graph import Graph
from lucid.ir.ops import Array
from lucid.ir.types import BATCH, Dim, TensorType
from lucid.onnx.known import Opaque
from lucid.onnx.operator import STANDARD, Operator
from lucid.onnx.order import in_order
from lucid.onnx.reader import read_stage
from lucid.onnx.stages import Given, Output, Program, Stage, listed
from lucid.onnx.tensors import StoredTensor, is_numeric, outer_dtype

if TYPE_CHECKING:
    import onnx

OLDEST = 7
"""The first version of ONNX's operators that is read."""

ASK = "give input_shape, such as (1, 3, 224, 224)"

logger = logging.getLogger("lucid.onnx")


Shapes = Mapping[str, Sequence[int]] | Sequence[Sequence[int]] | Sequence[int]
"""What users give for the sizes of inputs: by name, one shape for each in order, or the shape of
the first alone."""


def import_onnx(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto, input_shape: Shapes | None = None
) -> Graph:
    """The graph of an ONNX model: the path of a file, the bytes of one, or a ModelProto.

    `input_shape`: of the first input, or of all in order, or by name; needed where the file leaves
    sizes open. The first axis of inputs is the batch N where it is open, or 1 and what the file
    computes of one image holds for each of a batch; else it stays as it is. Weights remain where
    they are, in the model's memory or in its files, which are mapped. Floats are computed in
    float32, and truth values too; integers as what they are.

    Raises ModelFileError where the file is missing, damaged or breaks ONNX's rules;
    UnsupportedError, which lists every operator that a graph alone cannot express; ShapeError where
    an operator does not accept its operands; InputError where `input_shape` does not fit;
    MissingPackageError without the package onnx.
    """
    file = OnnxFile(model)
    stage = file.stage(input_shape)
    if not stage.is_whole:
        raise UnsupportedError(listed(file.name, stage.deferred))
    return stage.graph


def floating_initializers(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """The floating tensors of a file by name, which are read when used. Raises as `import_onnx`."""
    _, proto, files = open_model(path)
    tensors = {t.name: StoredTensor(t, files) for t in proto.graph.initializer}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating}


@dataclass(frozen=True)
class InputSpec:
    """An input as the file says it: a size, the name of one, or "" for each axis; None where it
    does not say how many. `element`: ONNX's number of its element type, of a sequence that of its
    elements. `is_tensor`: whether it is one of numbers that graphs take."""

    name: str
    element: int
    dims: tuple[int | str, ...] | None
    is_tensor: bool

    @property
    def dtype(self) -> str:
        """In the graph's terms; "" of an input that no graph takes."""
        return outer_dtype(self.element) if self.is_tensor else ""

    @property
    def text(self) -> str:
        """Its sizes, as messages show them."""
        return f"({', '.join(str(d) or '?' for d in self.dims or ())})"


class OnnxFile:
    """A model of ONNX, opened: its inputs, and its operators as a program.

    Raises ModelFileError, UnsupportedError and MissingPackageError as `import_onnx` does.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> None:
        self.name, proto, self.files = open_model(model)
        with self._rules():
            proto = _without_functions(proto)
            opsets = _opsets(proto)
            self._proto = graph = proto.graph
            if graph.sparse_initializer:
                raise UnsupportedError(f"{self.name}: sparse initializers are not read")
            tensors: dict[str, onnx.TensorProto] = {}
            for tensor in graph.initializer:
                if tensor.name in tensors:
                    raise ModelFileError(f"two values of the model are named {tensor.name!r}")
                tensors[tensor.name] = tensor
            self.inputs = [_spec(value) for value in graph.input if value.name not in tensors]
            names = [spec.name for spec in self.inputs]
            if len(set(names)) < len(names):
                raise ModelFileError(f"two inputs have one name: {names}")
            nodes = in_order(graph.node, {*names, *tensors})
            self.program = Program(
                self.name,
                [Operator(node, opsets) for node in nodes],
                tensors,
                [Output(value.name, _element(value.type)) for value in graph.output],
            )

    @property
    def outputs(self) -> list[tuple[str, str, tuple[int | str, ...]]]:
        """Name, dtype and shape of each output, as the file says them; sizes that it leaves open
        are `"?"`."""
        told = []
        for value in self._proto.output:
            element, tensor = _element(value.type), value.type.tensor_type
            sizes = [d.dim_value if d.HasField("dim_value") else "?" for d in tensor.shape.dim]
            kind = outer_dtype(element) if is_numeric(element) else "f32"
            told.append((value.name, kind, tuple(sizes)))
        return told

    def stage(self, shapes: Shapes | None = None) -> Stage:
        """What the graph of the file can hold for inputs of these sizes. Raises as `import_onnx`
        does, but for operators that are deferred and that the host can run."""
        with self._rules():
            stage = self._stage(self._sizes(shapes))
        if any(deferred.impossible for deferred in stage.deferred):
            raise UnsupportedError(listed(self.name, stage.deferred))
        return stage

    @contextmanager
    def _rules(self) -> Iterator[None]:
        """Raise what is wrong with the file with its name in front."""
        try:
            yield
        except (ModelFileError, ShapeError) as error:
            raise type(error)(f"{self.name}: {error}") from None
        except LucidError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"{self.name} breaks the rules of ONNX files: {error}") from error

    def _stage(self, sizes: Sequence[tuple[int, ...] | None]) -> Stage:
        """With a batch N where it can be, else with sizes alone."""
        types = settled(self.name, self.inputs, sizes)
        batched, single = _batched(self.inputs, types)
        failure: LucidError | None = None
        if batched:
            try:
                stage = self._read({**types, **batched}, image_by_image=single)
                problem = _batch_problem(stage, single)
            except (UnsupportedError, ShapeError, ModelFileError) as error:
                failure, problem = error, str(error)
            if not problem:
                return stage
            logger.info("%s has no batch of any size: %s", self.name, problem)
        try:
            return self._read(types)
        except (UnsupportedError, ShapeError, ModelFileError) as error:
            raise (failure if failure is not None and not single else error) from None

    def _read(self, types: Mapping[str, TensorType], image_by_image: bool = False) -> Stage:
        given = {
            spec.name: Given(types.get(spec.name, Opaque(spec.name)), spec.element)
            for spec in self.inputs
        }
        return read_stage(self.program, given, self.files, image_by_image)

    def _sizes(self, shapes: Shapes | None) -> list[tuple[int, ...] | None]:
        """The shape of each input, None where it is not given or there is none. Raises
        InputError."""
        given = iter(self._shapes_of_tensors(shapes))
        return [next(given) if spec.is_tensor else None for spec in self.inputs]

    def _shapes_of_tensors(self, shapes: Shapes | None) -> list[tuple[int, ...] | None]:
        names = [spec.name for spec in self.inputs if spec.is_tensor]
        if shapes is None:
            return [None] * len(names)
        if isinstance(shapes, Mapping):
            strange = [name for name in shapes if name not in names]
            if strange:
                raise InputError(f"{self.name} has no inputs {strange}, but {names}")
            return [_checked(shapes[n]) if n in shapes else None for n in names]
        several = isinstance(shapes, Sequence) and all(
            isinstance(shape, tuple | list) for shape in shapes
        )
        if not several:
            return [_checked(shapes), *[None] * (len(names) - 1)]
        if len(shapes) > len(names):
            raise InputError(f"{self.name} has the inputs {names}, got {len(shapes)} shapes")
        given = [_checked(shape) for shape in shapes]
        return [*given, *[None] * (len(names) - len(given))]


def _batch_problem(stage: Stage, single: bool) -> str:
    """Why results for a batch may not be those of its images one by one; empty if they are."""
    if not stage.is_whole:
        return listed(stage.graph.name, stage.deferred)
    if not single:  # the file itself says that it has a batch
        return ""
    mixing = mixing_node(stage.graph)
    if mixing is not None:
        return f"{mixing} mixes the images of a batch"
    strangers = [v for v in stage.graph.outputs if not isinstance(next(iter(v.type.shape), 0), Dim)]
    return f"the batch is not in front of {strangers}" if strangers else ""


# -- files --------------------------------------------------------------------------------------


def open_model(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
) -> tuple[str, onnx.ModelProto, Files]:
    """The model's name, the model, and the files next to it. Raises as `import_onnx` does."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(
            "reading ONNX models needs the package onnx: `pip install onnx`"
        ) from error
    if isinstance(model, onnx.ModelProto):
        return model.graph.name or "the model", model, Files(None)
    if isinstance(model, bytes | bytearray | memoryview):
        proto = _parsed(bytes(model), "the model")
        return proto.graph.name or "the model", proto, Files(None)
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            f"import_onnx takes a path, bytes or a ModelProto, got {type(model).__name__}"
        )
    path = Path(model)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror or error}") from error
    return path.stem, _parsed(data, str(path)), Files(path)


def _parsed(data: bytes, source: str) -> onnx.ModelProto:
    import onnx

    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own classes, by which implementation is installed
        raise ModelFileError(
            f"{source}: not a whole ONNX file ({error}); it may be truncated or damaged: fetch it"
            " again"
        ) from error
    if not proto.HasField("graph"):
        raise ModelFileError(f"{source}: not an ONNX file, or one without a graph")
    return proto


class Files:
    """The files next to a model, in which it may keep weights: mapped, never read as a whole."""

    def __init__(self, model: Path | None) -> None:
        self._model = model
        self._maps: dict[Path, Array] = {}

    def __call__(self, location: str, offset: int, length: int | None) -> Array:
        """`length` bytes of a file from `offset` on (None: up to its end).

        Raises ModelFileError where there are not as many, and for files outside the model's folder.
        """
        if self._model is None:
            raise ModelFileError(
                f"weights are in a file of their own, {location!r}: give the path of the model"
            )
        path = self._path(self._model, location)
        if path not in self._maps:
            try:
                self._maps[path] = np.asarray(np.memmap(path, np.uint8, "r"))
            except (OSError, ValueError) as error:
                raise ModelFileError(
                    f"the file of weights {path} cannot be read: {error}"
                ) from None
        data = self._maps[path]
        end = data.size if length is None else offset + length
        if end > data.size:
            raise ModelFileError(
                f"the file of weights {path} has {data.size} bytes, but the model reads up to byte"
                f" {end}: it may be truncated"
            )
        return data[offset:end]

    def _path(self, model: Path, location: str) -> Path:
        """Links may lead out of the folder only to where a link to the model itself leads."""
        allowed = [model.parent.resolve(), model.resolve().parent]
        path = (model.parent / location).resolve()
        inside = any(path.is_relative_to(folder) for folder in allowed)
        if Path(location).is_absolute() or ".." in Path(location).parts or not inside:
            raise ModelFileError(
                f"weights are said to be in {location!r}, outside the model's folder: refused"
            )
        return path


# -- the head of a model ------------------------------------------------------------------------


def _without_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions written out where they are called."""
    if not proto.functions:
        return proto
    from onnx.inliner import inline_local_functions

    return inline_local_functions(proto)


def _opsets(proto: onnx.ModelProto) -> dict[str, int]:
    """The versions of the operators by their domains. Raises UnsupportedError for one that is not
    known."""
    from onnx.defs import onnx_opset_version

    versions = {
        "" if entry.domain in STANDARD else entry.domain: int(entry.version)
        for entry in proto.opset_import
    }
    if "" not in versions:
        if any(node.domain in STANDARD for node in proto.graph.node):
            raise ModelFileError("does not say which version of ONNX's operators it speaks")
        return versions
    newest = onnx_opset_version()
    if not OLDEST <= versions[""] <= newest:
        raise UnsupportedError(
            f"the model speaks version {versions['']} of ONNX's operators (its opset); Lucid reads"
            f" {OLDEST} to {newest}, the newest that the installed package onnx knows"
        )
    return versions


def _spec(value: onnx.ValueInfoProto) -> InputSpec:
    element, tensor = _element(value.type), value.type.tensor_type
    dims: tuple[int | str, ...] | None = None
    if value.type.HasField("tensor_type") and tensor.HasField("shape"):
        dims = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value >= (not axis) else d.dim_param
            for axis, d in enumerate(tensor.shape.dim)
        )  # a batch of 0 is how some exporters leave it open
    numbers = value.type.HasField("tensor_type") and is_numeric(element)
    return InputSpec(value.name, element, dims, numbers)


def _element(kind: onnx.TypeProto) -> int:
    """The element type of a tensor, or of the elements of a sequence or an optional."""
    if kind.HasField("sequence_type"):
        return _element(kind.sequence_type.elem_type)
    if kind.HasField("optional_type"):
        return _element(kind.optional_type.elem_type)
    return int(kind.tensor_type.elem_type)


# -- sizes --------------------------------------------------------------------------------------


def _checked(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else None
    whole = sizes is not None and all(
        isinstance(d, int | np.integer) and not isinstance(d, bool) for d in sizes
    )
    if sizes is None or not whole or any(d < 0 for d in sizes):
        raise InputError(
            f"input_shape must be ints, batch first, such as (1, 3, 224, 224); got {shape!r}"
        )
    return tuple(int(d) for d in sizes)


def settled(
    name: str, inputs: Sequence[InputSpec], shapes: Sequence[tuple[int, ...] | None]
) -> dict[str, TensorType]:
    """The type of each input that is a tensor of numbers, without a batch: sizes that the file
    leaves open are those of `shapes`, the batch is 1 where nothing says it. Raises InputError for
    what contradicts the file, or itself."""
    named: dict[str, tuple[int, str]] = {}
    for spec, shape in zip(inputs, shapes, strict=True):
        _check_shape(name, spec, shape, named)
    types = {}
    for spec, shape in zip(inputs, shapes, strict=True):
        if spec.is_tensor:
            sizes = shape if shape is not None else _stated(name, spec, named)
            types[spec.name] = TensorType(outer_dtype(spec.element), sizes)
    return types


def _check_shape(
    name: str,
    spec: InputSpec,
    shape: tuple[int, ...] | None,
    named: dict[str, tuple[int, str]],
) -> None:
    """`named`: sizes by the names that the file gives them, and the input that told them."""
    if shape is None or spec.dims is None:
        return
    if len(shape) != len(spec.dims):
        raise InputError(f"input {spec.name!r} of {name} is {spec.text}, not {shape}")
    for axis, (size, stated) in enumerate(zip(shape, spec.dims, strict=True)):
        if isinstance(stated, int) and size != stated and not (axis == 0 and stated == 1):
            raise InputError(f"input {spec.name!r} of {name} is {spec.text}, not {shape}")
        if isinstance(stated, str) and stated.strip("?_-* "):  # "?" is the name of no size
            known, teller = named.setdefault(stated, (size, spec.name))
            if known != size and teller != spec.name:
                raise InputError(
                    f"inputs {teller!r} and {spec.name!r} of {name} contradict each other: the size"
                    f" {stated} is {known} in one and {size} in the other"
                )


def _stated(name: str, spec: InputSpec, named: Mapping[str, tuple[int, str]]) -> tuple[int, ...]:
    """The shape of an input of which the call says nothing."""
    if spec.dims is None:
        raise InputError(f"{name} does not say the shape of its input {spec.name!r}: {ASK}")
    sizes = []
    for axis, stated in enumerate(spec.dims):
        if isinstance(stated, int):
            sizes.append(stated)
        elif stated in named:
            sizes.append(named[stated][0])
        elif axis == 0:
            sizes.append(_multiple(stated))
        else:
            raise InputError(
                f"{name} leaves sizes of its input {spec.name!r} {spec.text} open: {ASK}"
            )
    return tuple(sizes)


def _batched(
    inputs: Sequence[InputSpec], types: Mapping[str, TensorType]
) -> tuple[dict[str, TensorType], bool]:
    """The inputs that may have the batch N in front: where the file leaves that open, or else where
    it says 1 (True)."""
    tensors = [spec for spec in inputs if spec.is_tensor and types[spec.name].rank]
    free = [spec for spec in tensors if spec.dims is None or isinstance(spec.dims[0], str)]
    single = not free
    chosen = free or [spec for spec in tensors if spec.dims is not None and spec.dims[0] == 1]
    batched = {}
    for spec in chosen:
        label = spec.dims[0] if spec.dims and isinstance(spec.dims[0], str) else ""
        factor = _multiple(label)
        kind = types[spec.name]
        batched[spec.name] = kind.with_shape((BATCH * factor, *kind.shape[1:]))
    return ({}, single) if _differ(chosen, types) else (batched, single)


def _differ(inputs: Sequence[InputSpec], types: Mapping[str, TensorType]) -> bool:
    """Whether the inputs of a call have batches of several sizes."""
    batches = set()
    for spec in inputs:
        label = spec.dims[0] if spec.dims and isinstance(spec.dims[0], str) else ""
        size = types[spec.name].concrete(1)[0]
        batches.add(size / _multiple(label))
    return len(batches) > 1


def _multiple(label: str | int) -> int:
    """`2N`, as Lucid writes it, is twice the batch."""
    factor = str(label).removesuffix(BATCH.symbol)
    return int(factor) if factor.isdecimal() and int(factor) > 0 else 1
