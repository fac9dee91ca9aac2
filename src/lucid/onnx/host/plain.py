"""Operators that are one function of NumPy's. A detector has hundreds of them, one for each class,
and the reference of the package onnx takes ten times as long around each as what it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lucid.ir.ops import Array
from lucid.onnx.operator import Operator


def is_plain(operator: Operator) -> bool:
    """Whether it is one of these."""
    return not operator.domain and operator.proto.op_type in RUNS


def evaluate(operator: Operator, values: Mapping[str, Any]) -> list[Any]:
    """The results of an operator for values of the names that it reads."""
    return [RUNS[operator.proto.op_type](*(values[name] for name in operator.proto.input))]


def nonzero(x: Array) -> Array:
    """The places of what is not zero, (rank, count); a scalar has one place of no axes, or none."""
    if not x.ndim:
        return np.empty((0, np.count_nonzero(x)), np.int64)
    return np.array(np.nonzero(x), np.int64)


RUNS: Mapping[str, Callable[..., Array]] = {"NonZero": nonzero}
