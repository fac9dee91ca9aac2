"""Filters transformed by native code: the bits of NumPy's, in guarded memory."""

from __future__ import annotations

import re

import numpy as np
import pytest
from harness import TARGETS, Guarded

from lucid.codegen.kernels.filter_transform import FilterTransform
from lucid.codegen.kernels.winograd_panels import TAPS, points, transform, transform_name
from lucid.codegen.language.llvm import assembly
from lucid.codegen.target import Target
from lucid.runtime.library import KERNEL_TYPE, library

RANDOM = np.random.default_rng(20)
COLUMNS = [1, 7, 16, 31, 32, 33, 80]


def drawn(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Taps of all magnitudes, denormals, zeros and infinities among them; or of 9 bits."""
    if dtype == "i16":
        return RANDOM.integers(-255, 256, shape).astype(np.int16)
    with np.errstate(over="ignore"):
        taps = RANDOM.standard_normal(shape) * 10.0 ** RANDOM.integers(-44, 39, shape)
        return (taps * (RANDOM.random(shape) > 0.1)).astype(np.float32)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("dtype", ["f32", "i16"])
@pytest.mark.parametrize("m", [2, 4])
def test_bits_are_those_of_numpy(m: int, dtype: str, target: Target) -> None:
    spec = FilterTransform(m, dtype)
    code = library(target).load([spec])
    kernel = KERNEL_TYPE(code.address(spec))
    for columns in COLUMNS:
        taps = drawn(dtype, (4, TAPS, columns))
        wanted = np.zeros((4, points(m), columns), taps.dtype)
        with np.errstate(all="ignore"):
            transform(taps, m, wanted)
        given, made = Guarded(taps.nbytes, skew=4), Guarded(wanted.nbytes, skew=4)
        given.array(taps.shape, taps.dtype)[...] = taps
        words = np.array([columns, 0, 0, 1, 0], np.int64)
        buffers = np.array([given.address, made.address], np.int64)
        for first, last in ((2, 4), (0, 1), (1, 1), (1, 2)):
            kernel(words.ctypes.data, buffers.ctypes.data, first, last, None)
        found = made.array(wanted.shape, taps.dtype)
        nans = np.isnan(wanted)  # whose bits may differ
        np.testing.assert_array_equal(np.isnan(found), nans)
        bits = [np.where(nans, 0, array).tobytes() for array in (found, wanted)]
        assert bits[0] == bits[1], f"{columns} columns"
        given.assert_intact("taps")
        made.assert_intact("points")
        np.testing.assert_array_equal(given.array(taps.shape, taps.dtype), taps)


def test_its_name_is_known_without_the_compiler() -> None:
    for m in (2, 4):
        for dtype in ("f32", "i16"):
            assert FilterTransform(m, dtype).called() == transform_name(m, dtype)


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4", "aarch64"])
def test_products_and_sums_are_rounded_each(level: str) -> None:
    """NumPy has no instruction for both, nor may this have."""
    text = assembly(FilterTransform(4, "f32"), Target.named(level))
    assert not re.search(r"f(n?m(add|sub)|ml[as])", text)
