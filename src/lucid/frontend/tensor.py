"""Tensors, and `apply`, through which every op is executed or traced.

A `Tensor` wraps a NumPy array and is evaluated at once, by the references of the ops; its traced
form (trace.py) wraps a value of the graph being recorded. Tensors are values: nothing changes one
in place, and `x += y` gives `x` a new value.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Union

import numpy as np

from lucid.errors import InputError, kind_of
from lucid.frontend import recording
from lucid.frontend.batch import BatchSize
from lucid.frontend.indexing import index_ops
from lucid.ir import ops
from lucid.ir.ops.base import Array, Op
from lucid.ir.types import Dim, Shape, TensorType

Operand = Union["Tensor", Array, float, int]


def apply(op: Op, *operands: Operand) -> Tensor:
    """One result of `op`: a node of the trace under way if an operand belongs to it, else a value.

    Raises ShapeError where the operands do not fit the op.
    """
    (result,) = apply_all(op, *operands)
    return result


def apply_all(op: Op, *operands: Operand) -> tuple[Tensor, ...]:
    """`apply` for ops with any number of results."""
    recorder = recording.active.get()
    if recorder is not None and any(recorder.records(o) for o in operands):
        return recorder.record(op, operands)
    arrays = _arrays(operands)
    op.result_types(*(_type_of(a) for a in arrays))
    return tuple(Tensor(r) for r in op.results(*arrays))


def _arrays(operands: Sequence[Operand]) -> list[Array]:
    """The operands as arrays of one floating dtype; Python numbers take that of the tensors."""
    arrays = [np.asarray(o) for o in operands if not isinstance(o, float | int)]
    floats = [a.dtype for a in arrays if a.dtype.kind == "f"]
    wide = np.result_type(*floats) if floats else np.dtype(np.float32)
    whole = bool(arrays) and not floats

    def convert(operand: Operand) -> Array:
        if isinstance(operand, int) and whole:
            return np.asarray(operand, np.int64)
        if isinstance(operand, float | int):
            return np.asarray(operand, wide)
        array = np.asarray(operand)
        return array.astype(wide, copy=False) if array.dtype.kind == "f" else array

    return [convert(o) for o in operands]


def _type_of(array: Array) -> TensorType:
    if array.dtype == np.uint8:
        return TensorType("u8", array.shape)
    return TensorType("f32" if array.dtype.kind == "f" else "i64", array.shape)


def _as_array(data: Any, dtype: Any) -> Array:
    """`data` as float32, float64, int64, uint8 or bool. Raises InputError for anything else."""
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise InputError(f"{kind_of(data)} cannot become a tensor: {error}") from error
    if dtype is not None:
        return array.astype(dtype)
    if array.dtype.kind == "f":
        keep = array.dtype == np.float32 or (
            array.dtype == np.float64 and isinstance(data, np.ndarray | np.generic)
        )
        return array if keep else array.astype(np.float32)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind != "b":
        raise InputError(f"a tensor holds numbers, not {array.dtype}")
    return array


class Tensor:
    """An array of float32 (or float64, int64 or uint8) with the operations that `forward` methods
    use."""

    __slots__ = ("__weakref__", "_array")
    __array_priority__ = 1000  # array + tensor is a tensor
    __hash__ = object.__hash__

    def __init__(self, data: Any, dtype: Any = None) -> None:
        self._array = _as_array(data, dtype)

    # -- the value ----------------------------------------------------------------------------

    def numpy(self) -> Array:
        """The array itself, not a copy."""
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.numpy().__dlpack_device__()

    def item(self) -> Any:
        """The number that a tensor of one element holds."""
        return self.numpy().item()

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=64)
        return f"Tensor({text}, shape={self.shape}, dtype={self.dtype})"

    # -- its type -----------------------------------------------------------------------------

    @property
    def type(self) -> TensorType:
        """The type in the graph's terms; float64 counts as f32."""
        return _type_of(self._array)

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions; of a traced tensor the batch is a `BatchSize`."""
        return tuple(self.type.shape)  # type: ignore[arg-type]  # eager shapes hold ints only

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    @property
    def ndim(self) -> int:
        return self.type.rank

    def dim(self) -> int:
        return self.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # -- arithmetic ---------------------------------------------------------------------------

    def __add__(self, other: Operand) -> Tensor:
        return apply(ops.Add(), self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return apply(ops.Add(), other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return apply(ops.Sub(), self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return apply(ops.Sub(), other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return apply(ops.Mul(), self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return apply(ops.Mul(), other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return apply(ops.Div(), self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return apply(ops.Div(), other, self)

    def __matmul__(self, other: Operand) -> Tensor:
        return apply(ops.MatMul(), self, other)

    def __pow__(self, other: Operand) -> Tensor:
        return apply(ops.Pow(), self, other)

    def __neg__(self) -> Tensor:
        return apply(ops.Neg(), self)

    def __abs__(self) -> Tensor:
        return apply(ops.Abs(), self)

    def _compare(self, other: Any, relation: Callable[[Any, Any], Any]) -> Tensor:
        return Tensor(relation(self.numpy(), np.asarray(other)))

    def __lt__(self, other: Any) -> Tensor:
        return self._compare(other, operator.lt)

    def __le__(self, other: Any) -> Tensor:
        return self._compare(other, operator.le)

    def __gt__(self, other: Any) -> Tensor:
        return self._compare(other, operator.gt)

    def __ge__(self, other: Any) -> Tensor:
        return self._compare(other, operator.ge)

    def __eq__(self, other: object) -> Any:
        return False if other is None else self._compare(other, operator.eq)

    def __ne__(self, other: object) -> Any:
        return True if other is None else self._compare(other, operator.ne)

    # -- elementwise --------------------------------------------------------------------------

    def relu(self) -> Tensor:
        return apply(ops.Relu(), self)

    def sigmoid(self) -> Tensor:
        return apply(ops.Sigmoid(), self)

    def tanh(self) -> Tensor:
        return apply(ops.Tanh(), self)

    def exp(self) -> Tensor:
        return apply(ops.Exp(), self)

    def log(self) -> Tensor:
        return apply(ops.Log(), self)

    def sqrt(self) -> Tensor:
        return apply(ops.Sqrt(), self)

    def rsqrt(self) -> Tensor:
        return apply(ops.Rsqrt(), self)

    def abs(self) -> Tensor:
        return apply(ops.Abs(), self)

    def clamp(self, min: float | None = None, max: float | None = None) -> Tensor:
        return apply(ops.Clip(min, max), self)

    def float(self) -> Tensor:
        """As float32."""
        return apply(ops.Cast(), self)

    # -- reductions ---------------------------------------------------------------------------

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return apply(ops.Sum(self._axes(dim), keepdim), self)

    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return apply(ops.Mean(self._axes(dim), keepdim), self)

    def amax(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return apply(ops.Max(self._axes(dim), keepdim), self)

    def amin(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return apply(ops.Min(self._axes(dim), keepdim), self)

    def argmax(self, dim: int, keepdim: bool = False) -> Tensor:
        """Where along `dim` the maximum lies, int64."""
        return apply(ops.ArgMax(self.axis(dim), keepdim), self)

    def softmax(self, dim: int) -> Tensor:
        return apply(ops.Softmax(self.axis(dim)), self)

    # -- shape --------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape, of which one dimension may be -1."""
        return apply(ops.Reshape(_counted(_dims(shape), self.type.shape)), self)

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Dimensions start_dim to end_dim, both included, as one."""
        if self.ndim == 0:
            return self.reshape(1)
        start, end = self.axis(start_dim), self.axis(end_dim)
        if start == end:
            return self
        kept, merged = self.type.shape, self.type.shape[start : end + 1]
        sizes = [d for d in merged if isinstance(d, int)]
        size = math.prod(sizes) if len(sizes) == len(merged) else -1
        return apply(ops.Reshape((*kept[:start], size, *kept[end + 1 :])), self)

    def permute(self, *dims: Any) -> Tensor:
        return apply(ops.Permute(tuple(self.axis(d) for d in _unpack(dims))), self)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        axes = list(range(self.ndim))
        first, second = self.axis(dim0), self.axis(dim1)
        axes[first], axes[second] = axes[second], axes[first]
        return apply(ops.Permute(tuple(axes)), self)

    def unsqueeze(self, dim: int) -> Tensor:
        at = dim + self.ndim + 1 if dim < 0 else dim
        kept = self.type.shape
        return apply(ops.Reshape((*kept[:at], 1, *kept[at:])), self)

    def squeeze(self, dim: int | None = None) -> Tensor:
        """Without the dimension `dim` if it is 1, or without every dimension that is 1."""
        dropped = range(self.ndim) if dim is None else (self.axis(dim),)
        kept = [d for i, d in enumerate(self.type.shape) if i not in dropped or d != 1]
        return apply(ops.Reshape(tuple(kept)), self)

    def expand(self, *shape: Any) -> Tensor:
        """Broadcast to `shape`; -1 keeps a dimension."""
        wanted = _dims(shape)
        own = (1,) * (len(wanted) - self.ndim) + self.type.shape
        return apply(
            ops.Expand(tuple(o if w == -1 else w for w, o in zip(wanted, own, strict=True))), self
        )

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces of `split_size` along `dim`, the last one smaller, or of the sizes given."""
        axis = self.axis(dim)
        length = int(self.shape[axis])
        sizes = (
            [min(split_size, length - s) for s in range(0, length, split_size)]
            if isinstance(split_size, int)
            else list(split_size)
        )
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return tuple(
            apply(ops.Slice(axis, s, s + n), self) for s, n in zip(starts, sizes, strict=True)
        )

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        return self.split(-(-int(self.shape[self.axis(dim)]) // chunks), dim)

    def __getitem__(self, key: Any) -> Tensor:
        result = self
        for op in index_ops(self.type, key):
            result = apply(op, result)
        return result

    # -- what has no meaning here, and models call ----------------------------------------------

    def contiguous(self) -> Tensor:
        return self

    def detach(self) -> Tensor:
        return self

    # -- help for the methods above -------------------------------------------------------------

    def axis(self, dim: int) -> int:
        """A dimension's index, counted from the end if negative. Raises InputError."""
        rank = self.ndim
        if not -rank <= dim < rank:
            raise InputError(f"dim {dim} is out of range for a tensor of rank {rank}")
        return dim % rank

    def _axes(self, dim: int | Sequence[int] | None) -> tuple[int, ...]:
        if dim is None:
            return tuple(range(self.ndim))
        return tuple(self.axis(d) for d in ((dim,) if isinstance(dim, int) else dim))


def _unpack(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """`f(1, 2)` and `f((1, 2))` mean the same."""
    if len(arguments) == 1 and isinstance(arguments[0], tuple | list):
        return tuple(arguments[0])
    return arguments


def _counted(shape: Shape, own: Shape) -> Shape:
    """The shape with its -1 counted where there are no elements: of the dimensions but the zero."""
    if -1 not in shape or 0 not in own:
        return shape
    if 0 not in shape:
        return tuple(0 if d == -1 else d for d in shape)
    sizes, known = ([d for d in s if isinstance(d, int) and d > 0] for s in (own, shape))
    return tuple(math.prod(sizes) // math.prod(known) if d == -1 else d for d in shape)


def _dims(arguments: tuple[Any, ...]) -> Shape:
    """The dimensions given to a reshape, the batch as the graph's Dim."""
    return tuple(
        d.dim if isinstance(d, BatchSize) else d if isinstance(d, Dim) else operator.index(d)
        for d in _unpack(arguments)
    )
