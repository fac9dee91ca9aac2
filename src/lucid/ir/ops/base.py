"""The base of all ops: a frozen dataclass with typed attributes, a shape rule and a NumPy
reference.

Declaring an op registers it, and what can follow from the class does: printing, parsing, verifying
and hashing from its fields; the importers', exporter's and pictures' treatment, and the tests that
sweep over all ops, from the class variables below. What else a new op needs stands in
CONTRIBUTING.md: a lowering (`lucid/codegen/lowering`, or `codegen/language/vector_math.py` where it
is elementwise), and a row in the table of ops that the tests hold it against.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from lucid.errors import ShapeError, UnknownNameError
from lucid.ir.types import FLOATS, Dim, TensorType

Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True)
class Op:
    """Base of all ops. Fields of subclasses are the op's attributes.

    `infer` takes operand types and gives the result type (or a tuple of them), and raises
    ShapeError where the operands do not fit. `evaluate` takes arrays, floats of one dtype (float32
    or float64) and integers of their own, and gives the result array (or a tuple), floats in that
    same dtype.
    """

    name: ClassVar[str] = ""
    """What IR text calls the op. Given by `@op`."""
    family: ClassVar[str] = ""
    """What it is drawn and listed with; where a class does not say, the file it is declared in."""
    onnx: ClassVar[str] = ""
    """The operator of ONNX that is this op, without attributes: read and written without more."""
    torch: ClassVar[str] = ""
    """The operator of PyTorch (`aten.NAME`, its overloads `default`, `Tensor` and `Scalar`) that is
    this op, without attributes."""
    images_apart: ClassVar[bool] = False
    """Whether images of a batch stay apart wherever the batch lies, since the shape rule refuses it
    on the axes that are mixed. Where it depends on the axes: `keeps_images_apart`."""
    never_negative: ClassVar[bool] = False
    """Whether no element of a result of floats is below 0 (-0.0 is not)."""
    takes: ClassVar[tuple[str, ...]] = FLOATS
    """The dtypes of operands, for shape rules that ask `require_taken`."""

    # Subclasses spell out their operands. `Any` for all arguments is what lets a type checker
    # accept any such signature.
    def infer(self, *operands: Any, **_: Any) -> TensorType | tuple[TensorType, ...]:
        raise NotImplementedError(f"{type(self).__name__} declares no shape rule")

    def evaluate(self, *operands: Any, **_: Any) -> Array | tuple[Array, ...]:
        raise NotImplementedError(f"{type(self).__name__} declares no reference")

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        """Whether each image's part of the result depends on that image of the operands alone and
        lies in one piece, so that a batch can be run in slices. The worst is assumed of an op that
        does not say."""
        return self.images_apart

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """`infer`, always as a tuple, with the number of operands checked."""
        least, most = self.arity()
        if len(operands) < least or (most is not None and len(operands) > most):
            wanted = {least: f"{least}", None: f"at least {least}"}.get(most, f"{least} or {most}")
            self.require(False, f"takes {wanted} operands, got {len(operands)}")
        result = self.infer(*operands)
        return result if isinstance(result, tuple) else (result,)

    def results(self, *operands: Array) -> tuple[Array, ...]:
        """`evaluate`, always as a tuple of arrays (NumPy turns 0-d results into scalars)."""
        result = self.evaluate(*operands)
        return tuple(map(np.asarray, result if isinstance(result, tuple) else (result,)))

    @classmethod
    @cache
    def arity(cls) -> tuple[int, int | None]:
        """The least and the most number of operands (None: any), as `infer` declares them."""
        operands = list(inspect.signature(cls.infer).parameters.values())[1:]
        if any(p.kind is p.VAR_POSITIONAL for p in operands):
            return len(operands) - 1, None
        return sum(p.default is p.empty for p in operands), len(operands)

    def require(self, condition: bool, message: str) -> None:
        """Raise ShapeError with the op's name unless `condition` holds."""
        if not condition:
            raise ShapeError(f"{self.name}: {message}")

    def integers(self, *dims: int | Dim) -> tuple[int, ...]:
        """The dimensions, none of which may depend on the batch. Raises ShapeError."""
        for d in dims:
            self.require(isinstance(d, int), f"only the batch axis may depend on the batch: {d}")
        return tuple(d for d in dims if isinstance(d, int))

    def require_float(self, **operands: TensorType | None) -> None:
        """Raise ShapeError unless every operand given is of a floating dtype."""
        for name, kind in operands.items():
            wrong = kind is not None and kind.dtype != "f32"
            self.require(not wrong, f"{name} must be f32, got {kind}")

    def require_computed(self, **operands: TensorType) -> None:
        """Raise ShapeError for floats of 16 bits, which are only stored: they are cast first."""
        for name, kind in operands.items():
            stored = kind.dtype in ("f16", "bf16")
            self.require(not stored, f"{name} must be cast to f32 first, got {kind}")

    def require_taken(self, **operands: TensorType) -> None:
        """Raise ShapeError unless every operand is of a dtype that the op takes."""
        for name, kind in operands.items():
            taken = kind.dtype in self.takes
            self.require(taken, f"{name} must be {' or '.join(self.takes)}, got {kind}")


OPS: dict[str, type[Op]] = {}
"""Every op by the name it has in IR text."""

T = TypeVar("T", bound=type[Op])


@dataclass_transform(frozen_default=True)
def op(name: str) -> Callable[[T], T]:
    """Class decorator: make the class a frozen dataclass and register it under `name`."""

    def declare(cls: T) -> T:
        cls.name = name
        cls.family = cls.family or cls.__module__.rpartition(".")[2]
        assert name not in OPS, f"two ops are named {name}"
        OPS[name] = dataclasses.dataclass(frozen=True)(cls)
        return cls

    return declare


OpT = TypeVar("OpT", bound=Op)


def declared(base: type[OpT]) -> list[type[OpT]]:
    """The ops that are of this class, in the order in which they were declared."""
    return [cls for cls in OPS.values() if issubclass(cls, base)]


V = TypeVar("V")


def nearest(table: Mapping[type[Op], V], cls: type[Op]) -> V | None:
    """What a table holds for a class of ops, or else for the nearest of its bases."""
    return next((table[base] for base in cls.__mro__ if base in table), None)


def op_class(name: str) -> type[Op]:
    """The op class of this name. Raises UnknownNameError."""
    if name not in OPS:
        raise UnknownNameError(f"no op is named {name!r}; `lucid ops` lists them")
    return OPS[name]
