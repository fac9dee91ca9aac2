"""`import_onnx`: a model of ONNX as a graph, its weights by reference.

    graph = import_onnx("net.onnx")
    graph = import_onnx("net.onnx", (1, 3, 512, 512))  # where the file leaves the image size open

Here files are opened and inputs are given their types; `lucid.onnx` reads the operators.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
from lucid.onnx.reader import STANDARD, read_graph
from lucid.onnx.tensors import StoredTensor, graph_dtype

if TYPE_CHECKING:
    import onnx

OLDEST = 9
"""The first version of ONNX's operators that is read."""

ASK = "give input_shape, such as (1, 3, 224, 224)"

logger = logging.getLogger("lucid.onnx")


def import_onnx(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    input_shape: Sequence[int] | None = None,
) -> Graph:
    """The graph of an ONNX model: the path of a file, the bytes of one, or a ModelProto.

    `input_shape`: of the first input, batch first; needed where the file leaves image sizes open.
    The first axis of inputs is the batch N where it is open, or 1 and what the file computes of one
    image holds for each of a batch; else it stays as it is. Weights remain where they are, in the
    model's memory or in its files, which are mapped; float16, bfloat16 and float64 are read as
    float32, and so are inputs of these types.

    Raises ModelFileError where the file is missing, damaged or breaks ONNX's rules;
    UnsupportedError, which lists every operator that Lucid cannot express; ShapeError where an
    operator does not accept its operands; InputError where `input_shape` does not fit;
    MissingPackageError without the package onnx.
    """
    name, proto, files = open_model(model)
    try:
        proto = _without_functions(proto)
        opset = _opset(proto)
        graph = _read(name, proto, files, opset, _checked(input_shape))
    except (ModelFileError, ShapeError) as error:
        raise type(error)(f"{name}: {error}") from None
    except LucidError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{name} breaks the rules of ONNX files: {error}") from error
    return graph


def input_dtypes(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> list[str]:
    """Of the inputs, in order, as graphs of the model have them. Raises as `import_onnx`."""
    _, proto, _ = open_model(model)
    return [graph_dtype(value.type.tensor_type.elem_type) for value in _inputs(proto.graph)]


def floating_initializers(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """The floating tensors of a file by name, which are read when used. Raises as `import_onnx`."""
    _, proto, files = open_model(path)
    tensors = {t.name: StoredTensor(t, files) for t in proto.graph.initializer}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating}


def _read(
    name: str, proto: onnx.ModelProto, files: Files, opset: int, shape: tuple[int, ...] | None
) -> Graph:
    """The graph with a batch N where it can be, else with the file's own."""
    inputs, single = _input_types(name, proto.graph, shape)
    if single:
        batched = {
            label: kind.with_shape((BATCH, *kind.shape[1:])) if label in single else kind
            for label, kind in inputs.items()
        }
        try:
            graph = read_graph(proto, batched, files, name, opset, image_by_image=True)
            problem = _batch_problem(graph)
        except (UnsupportedError, ShapeError, ModelFileError) as error:
            problem = str(error)
        if not problem:
            return graph
        logger.info("%s keeps its batch of 1: %s", name, problem)
    return read_graph(proto, inputs, files, name, opset)


def _batch_problem(graph: Graph) -> str:
    """Why results for a batch may not be those of its images one by one; empty if they are."""
    mixing = mixing_node(graph)
    if mixing is not None:
        return f"{mixing} mixes the images of a batch"
    strangers = [v for v in graph.outputs if not (v.type.shape and v.type.shape[0] == BATCH)]
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


def _opset(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operators. Raises UnsupportedError for one that is not known."""
    from onnx.defs import onnx_opset_version

    versions = [entry.version for entry in proto.opset_import if entry.domain in STANDARD]
    if not versions:
        raise ModelFileError("does not say which version of ONNX's operators it speaks")
    newest = onnx_opset_version()
    if not OLDEST <= versions[0] <= newest:
        raise UnsupportedError(
            f"the model speaks version {versions[0]} of ONNX's operators (its opset); Lucid reads"
            f" {OLDEST} to {newest}, the newest that the installed package onnx knows"
        )
    return int(versions[0])


def _checked(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    whole = all(isinstance(d, int | np.integer) and not isinstance(d, bool) for d in sizes)
    if not sizes or not whole or any(d < 1 for d in sizes):
        raise InputError(
            f"input_shape must be ints, batch first, such as (1, 3, 224, 224); got {shape!r}"
        )
    return tuple(int(d) for d in sizes)


def _input_types(
    name: str, graph: onnx.GraphProto, shape: tuple[int, ...] | None
) -> tuple[dict[str, TensorType], set[str]]:
    """The type of each input, and those whose batch the file fixes at 1."""
    inputs = _inputs(graph)
    if not inputs:
        raise UnsupportedError(f"{name} has no inputs: there is nothing to compute")
    named: dict[str, int] = {}
    types = {
        value.name: _input_type(name, value, shape if i == 0 else None, named)
        for i, value in enumerate(inputs)
    }
    if len(types) < len(inputs):
        raise ModelFileError(f"two inputs have one name: {[v.name for v in inputs]}")
    single = {label for label, kind in types.items() if kind.shape[:1] == (1,)}
    if any(isinstance(d, Dim) for kind in types.values() for d in kind.shape):
        single = set()
    return types, single


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Initializers that are listed as inputs are none: their values are given."""
    given = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in given]


def _input_type(
    name: str, value: onnx.ValueInfoProto, shape: tuple[int, ...] | None, named: dict[str, int]
) -> TensorType:
    """`named`: sizes by the names that the file gives them, as `shape` has told them so far."""
    if not value.type.HasField("tensor_type"):
        raise UnsupportedError(f"input {value.name!r} of {name} is no tensor")
    tensor = value.type.tensor_type
    dtype = graph_dtype(tensor.elem_type)
    if not tensor.HasField("shape"):
        if shape is None:
            raise InputError(f"{name} does not say the shape of its input {value.name!r}: {ASK}")
        return TensorType(dtype, (BATCH, *shape[1:]))
    stated = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    labels = [d.dim_param for d in tensor.shape.dim]
    known = zip(stated, labels, strict=True)
    text = f"({', '.join(str(size) if size > 0 else label or '?' for size, label in known)})"
    if shape is not None and (
        len(shape) != len(stated)
        or any(s > 0 and s != d for s, d in zip(stated[1:], shape[1:], strict=True))
    ):
        raise InputError(f"input {value.name!r} of {name} is {text}, not {shape}")
    sizes: list[int | Dim] = []
    for axis, (size, label) in enumerate(zip(stated, labels, strict=True)):
        if size > 0:
            sizes.append(size)
        elif axis == 0:
            sizes.append(_batch(label))
        elif shape is not None:
            sizes.append(shape[axis])
            named.setdefault(label, shape[axis])
        elif label and label in named:
            sizes.append(named[label])
        else:
            raise InputError(f"{name} leaves sizes of its input {value.name!r} {text} open: {ASK}")
    return TensorType(dtype, tuple(sizes))


def _batch(label: str) -> Dim:
    """The batch; `2N`, as Lucid writes it, is a multiple."""
    factor = label.removesuffix(BATCH.symbol)
    return BATCH * int(factor) if factor.isdecimal() and int(factor) > 0 else BATCH
