"""What an op is: a frozen dataclass with typed attributes, a shape rule and a NumPy reference.

Declaring an op registers it. Printing, parsing, verifying and hashing follow from its fields, so
a new op is one class here, one lowering in `lucid/codegen/kernels`, and one row in the op tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from lucid.errors import ShapeError, UnknownNameError
from lucid.ir.types import TensorType

Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True)
class Op:
    """Base of all ops. Fields of subclasses are the op's attributes.

    `infer` takes operand types and gives the result type (or a tuple of them), and raises
    ShapeError where the operands do not fit. `evaluate` takes arrays of one floating dtype
    (float32 or float64) and gives the result array (or a tuple), in that same dtype.
    """

    name: ClassVar[str] = ""

    def infer(self, *operands: TensorType) -> TensorType | tuple[TensorType, ...]:
        raise NotImplementedError(f"{type(self).__name__} declares no shape rule")

    def evaluate(self, *operands: Array) -> Array | tuple[Array, ...]:
        raise NotImplementedError(f"{type(self).__name__} declares no reference")

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """`infer`, always as a tuple."""
        result = self.infer(*operands)
        return result if isinstance(result, tuple) else (result,)

    def results(self, *operands: Array) -> tuple[Array, ...]:
        """`evaluate`, always as a tuple."""
        result = self.evaluate(*operands)
        return result if isinstance(result, tuple) else (result,)

    def require(self, condition: bool, message: str) -> None:
        """Raise ShapeError with the op's name unless `condition` holds."""
        if not condition:
            raise ShapeError(f"{self.name}: {message}")


OPS: dict[str, type[Op]] = {}
"""Every op by the name it has in IR text."""

T = TypeVar("T", bound=type[Op])


@dataclass_transform(frozen_default=True)
def op(name: str) -> Callable[[T], T]:
    """Class decorator: make the class a frozen dataclass and register it under `name`."""

    def declare(cls: T) -> T:
        cls.name = name
        declared = dataclasses.dataclass(frozen=True)(cls)
        assert name not in OPS, f"two ops are named {name}"
        OPS[name] = declared
        return declared

    return declare


def op_class(name: str) -> type[Op]:
    """The op class of this name. Raises UnknownNameError."""
    if name not in OPS:
        raise UnknownNameError(f"no op is named {name!r}; `lucid ops` lists them")
    return OPS[name]
