"""The matrix tile, called by itself: sums within bounds, and nothing read or written beside."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from amx_emulator import LEVEL, Tiles, as_a_machine_with_tiles
from llvmlite import ir

from lucid.codegen.kernels.body import CHANNEL, PLAIN, TENSOR, Body
from lucid.codegen.kernels.matrix_tile import BLOCK, PARTS, MatrixTile, blocks_of
from lucid.codegen.kernels.microkernels import HEIGHTS
from lucid.codegen.language import tiles as language
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.target import Target
from lucid.ir.ops import Add, Gelu, Mul, Relu, Silu
from lucid.ir.ops.base import Array
from lucid.runtime.library import library

BF16 = dtype("bf16")
ROUNDING = 2.0**-24
"""Of a float32, at most, of itself."""
TILE_TYPE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 5,
                             *[ctypes.c_void_p] * 2, ctypes.c_int64, ctypes.c_void_p)  # fmt: skip
STATE_TYPE = ctypes.CFUNCTYPE(None)

GELU = Body((TENSOR,), ((Add(), (0, 1)), (Gelu(), (2,))))
BODIES = {
    "plain": PLAIN,
    "relu": Body((), ((Relu(), (0,)),)),
    "extras": Body((CHANNEL, TENSOR), ((Mul(), (0, 1)), (Add(), (3, 2)), (Silu(), (4,)))),
    "gelu": GELU,
}


@dataclass(frozen=True)
class State(KernelSpec):
    """What the driver does around kernels."""

    family: ClassVar[str] = "test_state"
    exports: ClassVar[tuple[str, ...]] = ("configure", "release")

    def emit(self, target: Target) -> ir.Module:
        module = ir.Module("state")
        module.triple = target.triple
        for name in self.exports:
            k = Kernel(module, target, name, [])
            getattr(language, name)(k)
            k.finish()
        return module


@pytest.fixture(scope="module")
def tiles() -> Iterator[Tiles]:
    with as_a_machine_with_tiles() as found:
        yield found


@pytest.fixture
def configured(tiles: Tiles) -> Iterator[None]:
    code = library(LEVEL).load([State()])
    configure, release = (STATE_TYPE(code.address(State(), name)) for name in State.exports)
    configure()
    yield
    release()
    assert tiles.configured == 0


@functools.cache
def function(tile: MatrixTile, export: str) -> Any:
    code = library(LEVEL).load([tile])
    called = TILE_TYPE(code.address(tile, export))
    called.code = code  # type: ignore[attr-defined]
    return called


# -- operands -------------------------------------------------------------------------------------


def parts_of(x: Array, count: int) -> list[Array]:
    """The bfloat16 numbers, as float32, whose sum a float32 is; with one part, the nearest."""
    found, rest = [], x.astype(np.float32)
    for _ in range(count):
        with np.errstate(invalid="ignore"):
            found.append(BF16.decode(BF16.encode(rest)))
            rest = rest - found[-1]
    return found


def in_blocks(parts: list[Array]) -> Array:
    """Rows of parts as the tile reads them: [row][block][part][number], bits of bfloat16."""
    rows, numbers = parts[0].shape
    padded = np.zeros((rows, len(parts), blocks_of(-(-numbers // 2)) * 2), np.float32)
    padded[:, :, :numbers] = np.stack(parts, axis=1)
    by_block = padded.reshape(rows, len(parts), -1, 2 * BLOCK).swapaxes(1, 2)
    return BF16.encode(by_block.reshape(rows, -1))


@dataclass
class Call:
    """A tile's operands, drawn, in memory that shows what is written beside the result."""

    tile: MatrixTile
    rows: int
    columns: int
    numbers: int
    seed: int = 0
    x: Array = field(init=False)
    w: Array = field(init=False)

    def __post_init__(self) -> None:
        drawn = self.drawn = np.random.default_rng([self.seed, self.rows, self.columns])
        self.x = np.maximum(drawn.standard_normal((self.rows, self.numbers)), 0)
        self.w = drawn.standard_t(3, (self.numbers, self.columns))
        self.x, self.w = self.x.astype(np.float32), self.w.astype(np.float32)
        self.bias = drawn.standard_normal(self.columns).astype(np.float32)
        shapes = {"tensor": (self.rows, self.columns), "channel": (self.columns,)}
        self.extras = [
            drawn.standard_normal(shapes[e.kind]).astype(np.float32) for e in self.tile.body.extras
        ]

    @property
    def width(self) -> int:
        return self.tile.vectors * LEVEL.vector

    def run(self, export: str = HEIGHTS[0]) -> Array:
        """The result; beside it nothing is written."""
        rows = in_blocks(parts_of(self.x, self.tile.parts))
        slack = 24  # rows lie apart, and what lies there is NaN
        x = np.full((16, rows.shape[1] + slack), 0x7FC0, np.uint16)
        x[: self.rows, : rows.shape[1]] = rows
        padded = np.zeros((self.width, self.numbers), np.float32)
        padded[: self.columns] = self.w.T
        by_column = in_blocks(parts_of(padded, self.tile.parts))
        panel = aligned(by_column.reshape(self.width, -1, 2).swapaxes(0, 1))
        bias = aligned(np.pad(self.bias, (0, self.width - self.columns)))
        y = np.full((18, self.columns + 9), 7, np.float32)
        words, kept = self._extras()
        following = np.zeros(1 << 16, np.float32)
        function(self.tile, export)(
            x.ctypes.data, panel.ctypes.data, y[1:, 4:].ctypes.data,
            rows.shape[1] // 2, x.shape[1] // 2, y.shape[1], self.rows, self.columns,
            bias.ctypes.data, following.ctypes.data, 2, words.ctypes.data,
        )  # fmt: skip
        found = y[1 : 1 + self.rows, 4 : 4 + self.columns].copy()
        y[1 : 1 + self.rows, 4 : 4 + self.columns] = 7
        assert (y == 7).all(), "something beside the result was written"
        del kept
        return found

    def _extras(self) -> tuple[Array, list[Array]]:
        """The table of extra operands, and those: tensors end where their last number does."""
        words, kept = [0, 0], []
        for extra, array in zip(self.tile.body.extras, self.extras, strict=True):
            channel = extra.kind == "channel"
            pad = self.width - self.columns if channel else 0
            kept.append(np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, pad)]))
            words += [kept[-1].ctypes.data, 0 if channel else self.columns]
        return np.array(words[2:] or words, np.int64), kept

    @property
    def size(self) -> Array:
        """What the errors of sums are shares of."""
        absolute = np.abs(self.x).astype(np.float64) @ np.abs(self.w)
        return absolute + np.abs(self.bias)

    @property
    def exact(self) -> Array:
        """The sums, bias added."""
        return self.x.astype(np.float64) @ self.w + self.bias


def aligned(array: Array) -> Array:
    """A copy that begins at a cache line."""
    room = np.zeros(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


# -- sums -----------------------------------------------------------------------------------------

SHAPES = [
    *((rows, 1 + rows * 5 % 64, 1 + rows * 17 % 130) for rows in range(1, 17)),
    (16, 64, 576),
    (7, 33, 32),
    (16, 17, 31),
    (1, 1, 1),
]
"""Rows, columns and numbers of a row: every height, ragged columns, parts of a block."""


def within_one(call: Call) -> Array:
    """A bound on the error of one product: each factor is off by 2^-8 of itself at most, and each
    of as many additions as there are numbers by 2^-24 of all that is added."""
    return (2 * 2.0**-8 + 2.0**-16 + call.numbers * ROUNDING) * call.size


def within_parts(call: Call) -> Array:
    """Of six products: those left out are 2^-23 of the product of floats at most, as the second
    part is 2^-8 of the first and the third of the second. Sums of the leading ones round as often
    as a chain of float32, or less; the others are 2^-7 of these, and twice as many."""
    left_out = 2.0**-23 * (1 + 2.0**-8)
    return (left_out + (1 + 2.0**-5) * (2 + call.numbers) * ROUNDING) * call.size


@pytest.mark.parametrize("parts", [1, PARTS])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums(shape: tuple[int, int, int], parts: int, configured: None) -> None:
    rows, columns, _ = shape
    call = Call(MatrixTile(-(-columns // LEVEL.vector), PLAIN, parts), *shape)
    found = call.run(HEIGHTS[max(0, min(2, 16 - rows))])
    bound = within_one(call) if parts == 1 else within_parts(call)
    assert (np.abs(found - call.exact) <= bound).all()


@pytest.mark.parametrize("numbers", [64, 576, 2304])
def test_parts_are_no_worse_than_float32(numbers: int, configured: None) -> None:
    """The root mean square of errors is less than that of one chain of multiply-adds."""
    call = Call(MatrixTile(4, PLAIN, PARTS), 16, 64, numbers)
    chain = np.tile(call.bias, (16, 1))
    for k in range(numbers):
        product = call.x[:, k : k + 1].astype(np.float64) * call.w[k]
        chain = (chain + product).astype(np.float32)
    own, others = (np.sqrt(((y - call.exact) ** 2).mean()) for y in (call.run(), chain))
    assert own < others


@pytest.mark.parametrize("parts", [1, PARTS])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_integers_are_summed_up_exactly(vectors: int, parts: int, configured: None) -> None:
    call = Call(MatrixTile(vectors, PLAIN, parts), 13, vectors * 16 - 3, 77)
    largest = 100 if parts == 1 else 300  # which three parts hold exactly, and one does not
    for array in (call.x, call.w, call.bias):
        array[...] = call.drawn.integers(-largest, largest, array.shape)
    np.testing.assert_array_equal(call.run(), call.exact)


@pytest.mark.parametrize("parts", [1, PARTS])
@pytest.mark.parametrize("name", BODIES)
def test_bodies(name: str, parts: int, configured: None) -> None:
    """The body of the plain tile's sums, by NumPy."""
    tile = MatrixTile(3, BODIES[name], parts)
    call = Call(tile, 11, 41, 100)
    found = call.run()
    sums = Call(MatrixTile(3, PLAIN, parts), 11, 41, 100).run()
    values: list[Array] = [sums.astype(np.float64), *call.extras]
    for op, operands in tile.body.steps:
        values.append(op.evaluate(*(values[int(o)] for o in operands)))
    np.testing.assert_allclose(found, values[-1] if tile.body.steps else values[0], 2e-5, 2e-6)


@pytest.mark.parametrize("parts", [1, PARTS])
@pytest.mark.parametrize("stranger", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite(stranger: float, parts: int, configured: None) -> None:
    """It makes of results what it makes in float32: an infinity stays one, whatever the parts of
    weights that it meets, and is NaN where it meets a zero or another infinity."""
    call = Call(MatrixTile(2, PLAIN, parts), 5, 32, 40)
    call.w[3, ::5] = 0
    call.w[3, 1::5] = 1.25
    call.x[2, 3] = stranger
    call.w[7, 4] = stranger
    call.x[:, 7] = [1, 2, 3, 0, -5]
    with np.errstate(invalid="ignore"):
        found, exact = call.run(), call.exact
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(np.where(finite, 0, found), np.where(finite, 0, exact))
    assert (np.isfinite(found) == finite).all()


def test_the_largest_numbers_and_the_smallest(configured: None) -> None:
    """Where parts are not what float32 is: beyond the largest bfloat16, and near the smallest."""
    call = Call(MatrixTile(1, PLAIN, PARTS), 2, 2, 2)
    call.bias[...] = 0
    call.w[...] = [[1, 0.5], [0, 0]]
    call.x[...] = [[3.38e38, 0], [3.4e38, 0]]
    wanted = np.array([[3.38e38, 1.69e38], [np.inf, np.inf]], np.float32)
    np.testing.assert_array_equal(call.run(), wanted)
    call.x[...] = np.float32([[1.2345678e-32, 0], [1.2345678e-36, 0]])
    error = np.abs(call.run()[:, 0] / call.x[:, 0].astype(np.float64) - 1)
    assert error[0] < 1e-6
    assert error[1] < 2.0**-8
