"""The references give what PyTorch gives, which `tests/data/torch_ops.npz` holds."""

import numpy as np
import pytest
from data.torch_ops import cases

from lucid.ir.ops import Floor, Neg, Pad, Round, Softplus, Where
from lucid.ir.types import TensorType

CASES = cases()
EXACT = (Floor, Round, Neg, Where, Pad)
"""Ops that keep the sign of zero, as torch's do."""
KINDS = {"f": "f32", "i": "i64", "u": "u8"}


def types_of(*arrays):
    return [TensorType(KINDS[a.dtype.kind], a.shape) for a in arrays]


def narrow(array):
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype.kind == "f" else array


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_are_those_of_pytorch(case):
    (kind,) = case.op.result_types(*types_of(*case.operands))
    assert kind.shape == case.result.shape
    with np.errstate(all="ignore"):
        (wide,) = case.op.results(*case.operands)
        (single,) = case.op.results(*map(narrow, case.operands))
    least = 1e-10 if isinstance(case.op, Softplus) else 1e-12  # torch cuts off above 20
    np.testing.assert_allclose(wide, case.result, rtol=least, atol=1e-12)
    if isinstance(case.op, EXACT):
        np.testing.assert_array_equal(np.signbit(wide), np.signbit(case.result))
    np.testing.assert_allclose(single, narrow(case.result), rtol=1e-5, atol=1e-5)
