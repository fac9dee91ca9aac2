"""The assembly of the microkernels' inner loops: just the multiply-adds, nothing put on the stack.

Deterministic, and it catches an LLVM that changes its mind about code that timings depend on.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import pytest

from lucid.codegen.kernels.accumulation import UNROLL
from lucid.codegen.kernels.admission import Admission
from lucid.codegen.kernels.arithmetic import ARITHMETIC
from lucid.codegen.kernels.body import CHANNEL, PLAIN, TENSOR, Body, Extra
from lucid.codegen.kernels.boxes import Listed, Suppress
from lucid.codegen.kernels.depthwise import Blocks, Depthwise
from lucid.codegen.kernels.direct import Direct
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.expand import ExpandDepthwise
from lucid.codegen.kernels.filter_transform import FilterTransform
from lucid.codegen.kernels.fold import Fold, MaxUnpool
from lucid.codegen.kernels.indexing import Put, Take
from lucid.codegen.kernels.integer_depthwise import IntegerDepthwise
from lucid.codegen.kernels.integer_rows import Copied, Shifted
from lucid.codegen.kernels.integer_winograd import IntegerWinograd
from lucid.codegen.kernels.loaders import Combine, Mapped, Patch, Stage, Sums
from lucid.codegen.kernels.lookup import Lookup
from lucid.codegen.kernels.matmul import MatMul
from lucid.codegen.kernels.matrix_tile import PARTS, MatrixTile
from lucid.codegen.kernels.microkernels import LEAST_ROWS, MOST_VECTORS, Tile, WindowTile
from lucid.codegen.kernels.normalisation import (
    GroupNormalise,
    Moments,
    NeighbourNorm,
    RowNorm,
)
from lucid.codegen.kernels.pool_indices import PoolIndices
from lucid.codegen.kernels.pooling import Pool
from lucid.codegen.kernels.product import Product
from lucid.codegen.kernels.recurrent import Recurrent
from lucid.codegen.kernels.reduction import ArgMax, Reduce, Softmax
from lucid.codegen.kernels.resample import Gather, Pad, Resize
from lucid.codegen.kernels.roi import RoiAlign
from lucid.codegen.kernels.sampling import DeformColumns, GridSample
from lucid.codegen.kernels.scan import Scan
from lucid.codegen.kernels.slices import DepthwiseSlices, DirectSlices, WinogradSlices
from lucid.codegen.kernels.strassen import Strassen, StrassenRows
from lucid.codegen.kernels.strided import Elementwise
from lucid.codegen.kernels.top_k import TopK
from lucid.codegen.kernels.transpose import Interleave, Transpose
from lucid.codegen.kernels.weighted import Weighted
from lucid.codegen.kernels.winograd import Winograd
from lucid.codegen.language.elements import Access
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.llvm import assembly, compile_object
from lucid.codegen.target import LEVELS, Target
from lucid.ir.ops import Add, Cast, Div, Gelu, Gru, Lstm, Mod, Mul, Pow, Relu, Rnn, Saturate, Silu

# -- a little of assembly -------------------------------------------------------------------------


@dataclass
class Block:
    """A basic block: its instructions, and where control goes from its end."""

    lines: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)


JUMP = re.compile(r"(j\w+|b|b\.\w+|cbn?z|tbn?z)$")


def blocks_of(text: str, function: str) -> dict[str, Block]:
    """The basic blocks of one function, by label."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{function}_"))
    blocks: dict[str, Block] = {"entry": Block()}
    name = "entry"

    def begin(label: str) -> None:
        nonlocal name
        blocks.setdefault(label, Block())
        name = label

    for line in lines[start + 1 :]:
        if line.startswith(".Lfunc_end"):
            break
        if label := re.match(r"(\.LBB\w+):", line):
            blocks[name].targets.append(label[1])
            begin(label[1])
            continue
        code = re.split(r"//|\s#\s|^#", line)[0].strip()
        if not code or code.startswith("."):
            continue
        blocks[name].lines.append(code)
        mnemonic = code.split()[0]
        if JUMP.match(mnemonic):
            blocks[name].targets.append(code.replace(",", " ").split()[-1])
        if JUMP.match(mnemonic) or mnemonic.startswith("ret"):
            following = f"{name}'"
            if mnemonic not in ("jmp", "b") and not mnemonic.startswith("ret"):
                blocks[name].targets.append(following)
            begin(following)
    return blocks


def is_product(code: str) -> bool:
    return bool(re.match(r"(\{vex\}\s+)?(vfmadd\d+ps|fmla|mulps|v?pmaddwd|vpdpwssd|smlal)\s", code))


def is_product_of_bytes(code: str) -> bool:
    return bool(re.match(r"(\{vex\}\s+)?(vpmaddubsw|vpdpbusd|sdot)\s", code))


def is_product_of_bf16(code: str) -> bool:
    return code.startswith("vdpbf16ps")


def inner_loop(
    text: str, function: str, is_product: Callable[[str], bool] = is_product
) -> list[str]:
    """The instructions of the innermost loop around the longest run of products: the shortest way
    from their block back to it."""
    blocks = blocks_of(text, function)
    for name in sorted(blocks, key=lambda n: -sum(map(is_product, blocks[n].lines))):
        path = way_back(blocks, name)
        if path:  # an epilogue may have more products, but it is no loop
            return [line for block in path for line in blocks[block].lines]
    raise AssertionError(f"{function} has no loop")


def way_back(blocks: dict[str, Block], start: str) -> list[str]:
    """The blocks on the shortest way from a block to itself; none where there is no way."""
    came: dict[str, str] = {}
    queue = deque([start])
    while queue and start not in came:
        name = queue.popleft()
        for target in blocks[name].targets:
            if target in blocks and target not in came:
                came[target] = name
                queue.append(target)
    path, name = [], came.get(start)
    while name is not None and name != start:
        path.append(name)
        name = came[name]
    return [start, *path] if start in came else []


VECTOR = re.compile(r"%[xyz]mm|\b[qv]\d")


def stack_accesses(text: str, function: str, lines: list[str]) -> list[str]:
    """Those of the lines that read or write the function's stack, by its stack pointer or by the
    frame pointer, where that is one and not just another register."""
    everything = [line for block in blocks_of(text, function).values() for line in block.lines]
    framed = re.compile(r"mov[q]?\s+(%rsp, %rbp|x29, sp)$|leaq\s+.*\(%rsp\), %rbp|add\s+x29, sp")
    pattern = r"\(%rsp|\[sp"
    if any(framed.search(line) for line in everything):
        pattern += r"|\(%rbp|\[x29"
    return [line for line in lines if re.search(pattern, line)]


# -- the tiles ------------------------------------------------------------------------------------

BODIES = {
    "plain": PLAIN,
    "relu": Body((), ((Relu(), (0,)),)),
    "gelu": Body((), ((Gelu(), (0,)),)),
    "residual": Body((TENSOR,), ((Add(), (0, 1)), (Relu(), (2,)))),
    "channel": Body((CHANNEL, TENSOR), ((Mul(), (0, 1)), (Add(), (3, 2)), (Silu(), (4,)))),
}


FLOAT_LEVELS = [target for target in LEVELS.values() if not target.dot]
"""Those whose code for floats differs."""


def height(tile: Tile | WindowTile, export: str) -> int:
    """Rows of a tile's function."""
    return tile.rows - tile.exports.index(export)


def tiles() -> list:
    return [
        pytest.param(
            target,
            Tile(vectors, body, raw, rows=target.tile_rows(vectors)),
            id=f"{target.name}-{vectors}-{name}",
        )
        for target in FLOAT_LEVELS
        for vectors in range(1, MOST_VECTORS + 1)
        if target.tile_rows(vectors) >= LEAST_ROWS
        for name, body, raw in [("raw", PLAIN, True), *((n, b, False) for n, b in BODIES.items())]
    ]


@pytest.mark.parametrize(("target", "tile"), tiles())
def test_the_inner_loop_of_a_tile(target: Target, tile: Tile) -> None:
    """Rows x vectors multiply-adds for each step, and no vector to or from the stack. What the
    prefetch is advanced by may be read from there, once in a trip."""
    text = assembly(tile, target)
    for export in tile.exports:
        rows = height(tile, export)
        loop = inner_loop(text, export)
        kinds = Counter(line.split()[0] for line in loop)
        wanted = rows * tile.vectors * UNROLL
        assert sum(map(is_product, loop)) == wanted, export
        assert not [line for line in loop if "gather" in line], export
        if not target.fused:
            assert kinds["addps"] == wanted, export
            continue  # a product needs a register of its own there, and some tiles are put by
        stack = stack_accesses(text, export, loop)
        assert not [line for line in stack if VECTOR.search(line)], export
        assert len(stack) <= 2, (export, stack)


@pytest.mark.parametrize(("vectors", "lines"), [(1, 6), (2, 6), (3, 12)])
def test_tiles_ask_for_the_lines_of_results_before_the_products(vectors: int, lines: int) -> None:
    """All lines of each row of the tallest tile, as ones that will be written, where that pays."""
    for target, wanted in (("x86-64-v3", lines), ("x86-64", 0)):
        tile = Tile(vectors, BODIES["relu"])
        entry = blocks_of(assembly(tile, LEVELS[target]), "tallest")["entry"]
        assert sum(line.startswith("prefetchw") for line in entry.lines) == wanted, target


ASKING = [
    Winograd(4, BODIES["channel"]),
    MatMul("columns"),
    Depthwise(patterns=Blocks.of(30, 28, 3, 1, 1, 0).patterns, ahead=True),
    Strassen(BODIES["channel"]),
]


@pytest.mark.parametrize("kernel", ASKING, ids=lambda k: k.family)
def test_kernels_ask_for_what_they_will_write(kernel: KernelSpec) -> None:
    for level in ("x86-64-v3", "x86-64-v4"):
        target = LEVELS[level]
        assert ("prefetchw" in assembly(kernel, target)) == (
            target.asks_to_write or kernel.family == "depthwise"
        )


QUANTISED = Body(
    (CHANNEL, Extra("tensor", "u8")),
    ((Cast("f32"), (0,)), (Mul(), (3, 1)), (Relu(), (4,)), (Saturate("u8", 3), (5,))),
)


@pytest.mark.parametrize("target", LEVELS.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("tile", [Tile(2, QUANTISED, numbers="i16"), Tile(2, PLAIN, True, "i16")])
def test_the_inner_loop_of_a_tile_of_integers(target: Target, tile: Tile) -> None:
    """One multiply-add of pairs for each element of the tile and step (of each number elsewhere
    than on x86), and an addition where it does not add; no vector to or from the stack."""
    tile = replace(tile, vectors=target.panel_vectors)
    text, pairs = assembly(tile, target), ARITHMETIC["i16"]
    for export in tile.exports:
        loop = inner_loop(text, export)
        kinds = Counter(line.removeprefix("{vex}").split()[0] for line in loop)
        wanted = height(tile, export) * tile.vectors * pairs.unroll
        assert sum(map(is_product, loop)) == wanted * (1 if target.is_x86 else 2), export
        assert kinds["vpdpwssd"] == (wanted if target.is_x86 and target.dot else 0), export
        apart = target.is_x86 and not target.dot
        assert kinds["vpaddd"] + kinds["paddd"] == (wanted if apart else 0), export
        stack = [s for s in stack_accesses(text, export, loop) if VECTOR.search(s)]
        assert not stack or not target.fused or not target.is_x86, export


@pytest.mark.parametrize("target", LEVELS.values(), ids=lambda t: t.name)
def test_the_inner_loop_of_a_tile_of_bytes(target: Target) -> None:
    """Each element of the tile takes five instructions for eight products, or two with VNNI; none
    makes 16-bit integers of bytes. Some sums of the tallest tile are put by, where the weights of
    two steps are held at once. Arm's takes one for four, of lanes of a vector for each row."""
    if not target.byte_products:
        return
    vectors, bytes_ = target.panel_vectors, ARITHMETIC["i8"]
    tile = Tile(vectors, QUANTISED, numbers="i8", rows=bytes_.tile_rows(target, vectors))
    text = assembly(tile, target)
    for export in tile.exports:
        rows = height(tile, export)
        loop = inner_loop(text, export, is_product_of_bytes)
        kinds = Counter(line.removeprefix("{vex}").split()[0] for line in loop)
        each = rows * tile.vectors
        if not target.is_x86:
            lanes = [line[-3:] for line in loop if line.startswith("sdot")]
            assert Counter(lanes) == {f"[{lane}]": each for lane in range(4)}, export
            assert kinds["eor"] == rows, export
            assert not kinds["dup"] + kinds["ld1r"], export
        elif target.dot:
            assert kinds["vpdpbusd"] == 2 * each, export
            products = [line.replace(",", "").split() for line in loop if "vpdpbusd" in line]
            unsigned = {operands[-2] for operands in products}
            assert unsigned == {line.split()[-1] for line in loop if "vpbroadcastd" in line}
        else:
            assert kinds["vpmaddubsw"] == 2 * each, export
            assert kinds["vpaddw"] == kinds["vpmaddwd"] == kinds["vpaddd"] == each, export
        assert not [kind for kind in kinds if re.match("vpmov|vps[rl]|vpand", kind)], export
        stack = [s for s in stack_accesses(text, export, loop) if VECTOR.search(s)]
        assert len(stack) <= (0 if target.dot else 14), (export, stack)


AMX = LEVELS["x86-64-v4-amx"]


def tile_products(tile: MatrixTile) -> list[str]:
    """The inner loop of a tile of matrices, in which no vector goes to or comes from the stack."""
    text = assembly(tile, AMX)
    loop = inner_loop(text, "matrix", lambda line: line.startswith("tdpbf16ps"))
    assert not [line for line in stack_accesses(text, "matrix", loop) if VECTOR.search(line)]
    return loop


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("vectors", range(1, MOST_VECTORS + 1))
def test_the_inner_loop_of_a_tile_of_matrices(vectors: int, body: Body) -> None:
    """One load of the rows and one of each vector of the panel, which it is multiplied by."""
    loop = tile_products(MatrixTile(vectors, body))
    kinds = Counter(line.split()[0] for line in loop)
    assert kinds["tdpbf16ps"] == vectors
    assert kinds["tileloadd"] == 1 + vectors


@pytest.mark.parametrize("vectors", [1, 2])
def test_the_inner_loop_of_a_tile_of_parts(vectors: int) -> None:
    """Six products for each vector. Of two vectors none is added to what the one before it is."""
    loop = tile_products(MatrixTile(vectors, PLAIN, PARTS))
    sums = [line.split()[-1] for line in loop if line.startswith("tdpbf16ps")]
    assert len(sums) == 6 * vectors
    assert len(set(sums)) == 3 * vectors
    assert sum(line.startswith("tileloadd") for line in loop) == PARTS + 6 * vectors
    assert vectors == 1 or all(one != other for one, other in pairwise(sums))


@pytest.mark.parametrize("target", LEVELS.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("body", [PLAIN, BODIES["residual"]], ids=["plain", "residual"])
def test_the_inner_loop_of_a_tile_of_bfloat16(target: Target, body: Body) -> None:
    """One instruction for the two products of an element, and no vector to or from the stack; or
    two multiply-adds."""
    vectors = target.panel_vectors
    tile = Tile(vectors, body, numbers="bf16", rows=target.tile_rows(vectors))
    text = assembly(tile, target)
    for export in tile.exports:
        loop = inner_loop(text, export, is_product_of_bf16 if target.bf16 else is_product)
        kinds = Counter(line.split()[0] for line in loop)
        wanted = height(tile, export) * tile.vectors * UNROLL
        assert kinds["vdpbf16ps"] == (wanted if target.bf16 else 0), export
        if not target.bf16:
            assert sum(map(is_product, loop)) == 2 * wanted, export
        if target.bf16:
            stack = [s for s in stack_accesses(text, export, loop) if VECTOR.search(s)]
            assert not stack, (export, stack)


def test_short_segments_of_integers_are_added_up_in_order() -> None:
    target = LEVELS["x86-64-v3"]
    tile = WindowTile(2, QUANTISED, 11, "i16")
    text = assembly(tile, target)
    for export in tile.exports:
        loop = inner_loop(text, export)
        assert sum(map(is_product, loop)) == height(tile, export) * 2 * 11
        stack = stack_accesses(text, export, loop)
        assert len([s for s in stack if VECTOR.search(s)]) <= 10  # 74 in an order of LLVM's own


@pytest.mark.parametrize("target", LEVELS.values(), ids=lambda t: t.name)
def test_a_body_multiplies_and_adds_apart(target: Target) -> None:
    """Each operation of a quantised body is rounded, so that all targets give the same bits."""
    steps = ((Cast("f32"), (0,)), (Mul(), (3, 1)), (Add(), (4, 2)))
    text = assembly(Tile(2, Body((CHANNEL, CHANNEL), steps), numbers="i16"), target)
    assert not re.search(r"vfm(add|sub)|fml[as]|fmadd", text)


@pytest.mark.parametrize("target", FLOAT_LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("m", [2, 4])
def test_winograd_needs_no_gather(m: int, target: Target) -> None:
    text = assembly(Winograd(m, BODIES["residual"], sums=True), target)
    assert "gather" not in text
    assert "scatter" not in text


REQUANTISED = Body((CHANNEL,), ((Cast("f32"), (0,)), (Mul(), (2, 1)), (Saturate("u8", 3), (3,))))
"""What follows the sums of integers: a multiplication by channel, rounded to a byte."""


@pytest.mark.parametrize("target", LEVELS.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("m", [2, 4])
def test_integer_winograd_needs_no_gather(m: int, target: Target) -> None:
    text = assembly(IntegerWinograd(m, REQUANTISED), target)
    assert "gather" not in text
    assert "scatter" not in text


@pytest.mark.parametrize("target", [t for t in LEVELS.values() if t.is_x86], ids=lambda t: t.name)
def test_integer_depthwise_multiplies_pairs(target: Target) -> None:
    """Nine taps are three pairs on two lines and two on the last one, for each output."""
    patterns = Blocks.of(34, 32, 3, 1, 1, 0).patterns
    text = assembly(IntegerDepthwise(REQUANTISED, patterns=patterns), target)
    taps = sum(pattern.outputs * 5 for pattern in patterns)
    kinds = Counter(re.findall(r"\bv?(pmaddwd|pmulld|pdpwssd)\b", text))
    assert kinds == {"pdpwssd" if target.dot else "pmaddwd": taps}, kinds


# -- every kernel, for a machine that need not be here -------------------------------------------

KERNELS: list[KernelSpec] = [
    *(Tile(4, body) for body in BODIES.values()),
    Tile(4, raw=True),
    Product(),
    Product(Patch()),
    *(Product(Shifted("i8", strided), QUANTISED.extras, "i16", "u8") for strided in (False, True)),
    Product(None, QUANTISED.extras, "i8", "u8"),
    Product(Copied("u8", True), QUANTISED.extras, "i8", "u8"),
    Tile(4, QUANTISED, numbers="i8"),
    *(Direct(QUANTISED.extras, p, "u8", "i16", "i8", sparse=p == 0) for p in (0, 3)),
    Direct((TENSOR,), in_place=True, sparse=True),
    *(WindowTile(n, QUANTISED, short, "i16") for n in (1, 2, 4) for short in (0, 5)),
    WindowTile(4, BODIES["channel"]),
    WindowTile(2, BODIES["channel"], sorted=True),
    WindowTile(2, QUANTISED, 0, "i16", sorted=True),
    WindowTile(4, BODIES["channel"], short=9),
    Direct((TENSOR,), planes=3),
    Product(Sums(2)),
    Product(Mapped(BODIES["channel"])),
    Product(Combine(2, "folded", "fixed"), (TENSOR, CHANNEL)),
    *(Stage(Combine(2, g, p)) for g in ("folded", "weights") for p in ("none", "inside")),
    Stage(Combine(1, "none", "padded")),
    *(Winograd(m, BODIES["channel"], sums) for m in (2, 4) for sums in (False, True)),
    *(StrassenRows(), Strassen(BODIES["channel"]), Tile(2, raw=True, summed="minus")),
    *(
        Depthwise(BODIES["channel"], group=g, patterns=Blocks.of(30, 28, 3, 1, 1, 0).patterns)
        for g in (1, 4, 8)
    ),
    *(IntegerWinograd(m, REQUANTISED, x="i8") for m in (2, 4)),
    *(
        IntegerDepthwise(REQUANTISED, group=g, patterns=Blocks.of(30, 28, 3, 1, 1, 0).patterns)
        for g in (1, 4, 8)
    ),
    IntegerDepthwise(patterns=Blocks.of(9, 9, 3, 1, 1, 1).patterns, narrow=True, y="i32"),
    ExpandDepthwise(Depthwise(patterns=Blocks.of(28, 28, 3, 1, 1, 1).patterns)),
    *(Pool(kind, taps) for kind, taps in (("max", (3, 3)), ("max", (0, 0)), ("inside", (0, 3)))),
    Pool("inside", adaptive=True, body=BODIES["channel"]),
    *(MatMul(side) for side in ("columns", "depth", "none")),
    *(Resize(bilinear, planar) for bilinear in (False, True) for planar in (False, True)),
    *(Pad(mode) for mode in ("constant", "reflect", "edge")),
    *(Gather(single) for single in (False, True)),
    Transpose(),
    Elementwise(BODIES["channel"], (Access(), Access("constant"), Access(), Access())),
    Elementwise(PLAIN, (Access("strided"), Access("strided"))),
    Elementwise(PLAIN, (Access("every", "u8", 3), Access())),
    *(Transpose(d) for d in ("f16", "i8")),
    *(Interleave(columns, d) for columns, d in ((3, "f32"), (2, "u8"), (4, "u8"))),
    *(
        Lookup((Access(kind, "i8"), Access(kind, result)))
        for kind in ("vector", "strided")
        for result in ("u8", "f32")
    ),
    *(
        Elementwise(PLAIN, (Access(k, "f16", 2), Access("vector", "f16")))
        for k in ("vector", "every")
    ),
    Elementwise(PLAIN, (Access("strided", "f16"), Access("strided", "f16"))),
    Elementwise(PLAIN, (Access(), Access("vector", "bool"))),
    *(Reduce(kind, (Access(), Access())) for kind in ("sum", "max", "min", "squares")),
    *(Reduce("squares", (Access(),) * 3, along, centred=True) for along in (False, True)),
    ArgMax((Access(), Access(dtype="i64"))),
    ArgMax((Access("strided"), Access("strided", "i64")), along=True),
    Softmax(),
    Softmax((Access("strided"), Access())),
    Softmax(along=True),
    *(RowNorm(BODIES["channel"], (Access(),) * 4, centred) for centred in (True, False)),
    Moments(),
    *(GroupNormalise(PLAIN, (Access(), Access()), single) for single in (True, False)),
    *(NeighbourNorm((Access(), Access()), beta) for beta in (0.75, 0.6)),
    *(DirectSlices((TENSOR,), planes) for planes in (0, 3)),
    WinogradSlices(2, BODIES["channel"]),
    DepthwiseSlices(patterns=Blocks.of(30, 28, 3, 1, 1, 0).patterns),
    PoolIndices(),
    *(Fold(dense) for dense in (False, True)),
    MaxUnpool(),
    *(Weighted(planar) for planar in (False, True)),
    *(GridSample(mode, "reflection") for mode in ("nearest", "bilinear", "bicubic")),
    GridSample(axes=3, planar=True),
    *(DeformColumns(masked) for masked in (False, True)),
    *(RoiAlign(largest=largest) for largest in (False, True)),
    *(Recurrent(cell, True, cell.states == 2) for cell in (Rnn(), Gru(), Lstm())),
    Recurrent(Gru(linear_before_reset=True)),
    *(TopK(dtype, True, whole) for dtype in ("f32", "i64") for whole in (False, True)),
    Take(2, (Access(), Access(dtype="i64"), Access())),
    *(
        Put(2, r, (Access(), Access(dtype="i64"), Access(), Access()))
        for r in ("none", "add", "max")
    ),
    *(Suppress(form, True) for form in ("corners", "centre")),
    Listed(),
    *(Scan(kind, True, False, (Access(), Access()), along=False) for kind in ("add", "mul")),
    *(
        Elementwise(Body((), ((op, (0, 0)),)), (Access(dtype=dtype), Access(dtype=dtype)))
        for op in (Div(), Mod(), Pow(), Mul())
        for dtype in ("i8", "u32", "i64")
    ),
    FilterTransform(4, "f32"),
    FilterTransform(2, "i16"),
    Driver(),
    Driver(profiled=True),
    Admission(),
]

TILED: list[KernelSpec] = [MatrixTile(4, BODIES["channel"]), MatrixTile(3, PLAIN, PARTS)]
"""Those for levels with tiles alone."""

ELF_MACHINES = {"x86_64": 62, "aarch64": 183}


@pytest.mark.parametrize(
    ("kernel", "level"),
    [*product(KERNELS, ["x86-64", "aarch64"]), *((k, AMX.name) for k in TILED)],
    ids=str,
)
def test_every_kernel_is_assembled(kernel: KernelSpec, level: str) -> None:
    """An ELF object for the machine, without undefined symbols, with the exported functions."""
    target = Target.named(level)
    code = compile_object(kernel, target)
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == ELF_MACHINES[target.triple.split("-")[0]]
    symbols = elf_symbols(code)
    assert all(defined for defined in symbols.values()), symbols
    for export in kernel.exports:
        assert any(name.startswith(f"{export}_") for name in symbols), export


@pytest.mark.parametrize("kernel", [Driver(), Admission()], ids=str)
def test_code_for_aarch64_takes_what_its_level_says(kernel: KernelSpec) -> None:
    """ARMv8.3 has weaker loads, which LLVM would use."""
    assert "ldapr" not in assembly(kernel, Target.named("aarch64"))


def elf_symbols(code: bytes) -> dict[str, bool]:
    """The symbols of a 64-bit ELF object, and whether each lies in a section of it."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(code[at : at + size], "little")

    table, entry, count = number(0x28, 8), number(0x3A, 2), number(0x3C, 2)
    headers = [table + entry * i for i in range(count)]
    symbols = next(h for h in headers if number(h + 4, 4) == 2)
    strings = number(headers[number(symbols + 0x28, 4)] + 0x18, 8)
    begin, size = number(symbols + 0x18, 8), number(symbols + 0x20, 8)
    found = {}
    for at in range(begin + 24, begin + size, 24):
        place = strings + number(at, 4)
        name = code[place : code.index(b"\0", place)].decode()
        found[name] = number(at + 6, 2) != 0
    return found


def test_every_family_is_listed() -> None:
    """No kernel family escapes the tests above."""
    own = [cls for cls in KernelSpec.__subclasses__() if cls.__module__.startswith("lucid.")]
    families = {cls.family for cls in own}
    assert families - {kernel.family for kernel in [*KERNELS, *TILED]} <= {"peak"}
