"""Every dtype of the table: buffers, packing, plan, guards, interpreter, and copies bit by bit."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import pytest
from emulated import EMULATOR, emulate
from emulated import TARGET as EMULATED
from harness import TARGETS, Run, set_apart

from lucid.codegen.kernels.packing import Channels, Flat, Packed, Packing
from lucid.codegen.kernels.transpose import Transpose
from lucid.codegen.language.dtypes import DTYPES, DType, dtype
from lucid.codegen.language.elements import CONSTANT, EVERY, STRIDED, VECTOR
from lucid.codegen.lowering import lower
from lucid.codegen.lowering.context import Lowering, row_major
from lucid.codegen.lowering.strided import broadcast, copy
from lucid.codegen.program.interpret import ProgramInterpreter
from lucid.codegen.program.json_form import program_json
from lucid.codegen.program.plan import plan
from lucid.codegen.program.program import Buffer, Program, View
from lucid.codegen.program.verify import verify_program
from lucid.codegen.scheduling.schedule import Schedule
from lucid.codegen.target import Target
from lucid.errors import UnknownNameError, VerifyError
from lucid.ir import Graph, interpret
from lucid.ir.recipe import Source
from lucid.ir.text import parse_graph
from lucid.ir.types import DTYPES as KNOWN
from lucid.ir.types import TensorType, held
from lucid.runtime.stored import packed_key, padded
from lucid.runtime.weights import WeightStore

SHAPE = (3, 11, 37)
NAMES = list(DTYPES)


def stored(row: DType, shape: tuple[int, ...], nans: bool = True) -> np.ndarray:
    """Any bits there are: signed zeros, infinities and, unless told otherwise, NaNs among them."""
    random = np.random.default_rng(row.bytes)
    bits = random.integers(0, 256, prod(shape) * row.bytes, np.uint8)
    if row.kind == "bool":
        bits &= 1
    array = bits.view(row.storage).reshape(shape)
    if not nans and row.kind == "float":
        array = np.where(np.isnan(row.decode(array)), row.storage.type(1), array)
    return array


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8)


def moves(name: str, target: Target) -> tuple[Program, np.ndarray]:
    """A program of copies between orders, spacings and places, and of a packed parameter; with the
    numbers of the parameter."""
    row = dtype(name)
    numbers = row.decode(stored(row, SHAPE[1:], nans=False))
    graph = Graph("moves", {"w": numbers})
    program = Program("moves", target.name, 1)
    ctx = Lowering(graph, Schedule({}), target, 1, 2, program, copy)

    def user(kind: str, label: str, shape: tuple[int, ...]) -> View:
        program.buffers[label] = Buffer(label, kind, prod(shape), name)
        view = View(label, name, shape, row_major(shape))
        (program.inputs if kind == "input" else program.outputs)[label] = view
        return view

    (images, rows, columns), x = SHAPE, user("input", "x", SHAPE)
    turned = ctx.allocate("turned", name, SHAPE, (rows * columns, 1, rows))
    copy(ctx, x, turned, "turned")
    copy(ctx, turned, user("output", "back", SHAPE), "back")
    for step in (2, 3, 5):
        count = -(-columns // step)
        some = x.over((images, rows, count), (rows * columns, columns, step), 0)
        kept = ctx.allocate(f"every{step}", name, some.shape, row_major(some.shape))
        copy(ctx, some, kept, f"every{step}")
        spread = ctx.allocate(f"spread{step}", name, (images, rows, count), (count * rows, 1, rows))
        copy(ctx, kept, spread, f"spread{step}")
        copy(ctx, spread, user("output", f"step{step}", some.shape), f"step{step}")
    first = x.over((images, rows, 1), x.strides)
    copy(ctx, broadcast(first, SHAPE), user("output", "repeated", SHAPE), "repeated")
    packed = ctx.weights(Source("w", TensorType(name, SHAPE[1:])), Flat(), SHAPE[1:], "w", name)
    weights = View(packed.name, name, SHAPE[1:], row_major(SHAPE[1:]))
    copy(ctx, weights, user("output", "parameter", SHAPE[1:]), "parameter")
    plan(program)
    verify_program(program)
    return program, numbers


def wanted(x: np.ndarray, parameter: np.ndarray) -> list[np.ndarray]:
    """What the outputs of `moves` are."""
    steps = [x[..., ::step] for step in (2, 3, 5)]
    return [x, *steps, np.broadcast_to(x[..., :1], x.shape), parameter]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_numpy_and_llvm_say(name: str) -> None:
    row = dtype(name)
    assert row.bytes == row.storage.itemsize
    assert row.element.get_abi_size(_data_layout()) == row.bytes
    if not row.is_bits:
        assert KNOWN[name] == row.storage


def _data_layout():
    from llvmlite import binding

    return binding.create_target_data("e-m:e-i64:64")


def test_an_unknown_dtype() -> None:
    with pytest.raises(UnknownNameError, match="no dtype is named 'f8'; there are f32"):
        dtype("f8")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_is_read_back(name: str) -> None:
    row = dtype(name)
    array = stored(row, (4096,), nans=False)
    np.testing.assert_array_equal(bits(row.encode(row.decode(array))), bits(array))


def test_bfloat16_is_rounded_to_the_nearest_ties_to_even() -> None:
    one = 0x3F80
    given = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF], np.uint32)
    expected = [one, one, one + 2, one + 1, 0x7F80]
    assert dtype("bf16").encode(given.view(np.float32)).tolist() == expected
    nans = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(dtype("bf16").decode(dtype("bf16").encode(nans))).all()


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", NAMES)
def test_copies_keep_every_bit(name: str, target: Target) -> None:
    """Natively with guards around everything, by one thread and by two, packed parameters too."""
    program, numbers = moves(name, target)
    families = {c.kernel.family for c in program.calls()}
    assert families == {"elementwise", "transpose"}
    kinds = {a.kind for c in program.calls() for a in getattr(c.kernel, "accesses", ())}
    assert kinds == {VECTOR, CONSTANT, EVERY, STRIDED}
    x = stored(dtype(name), SHAPE)
    expected = wanted(x, dtype(name).encode(numbers))
    together = Run(program, target, threads=2).outputs({"w": numbers}, [x])
    set_apart(program)
    alone = Run(program, target, skew=8 * dtype(name).bytes).outputs({"w": numbers}, [x])
    for value, other, exact in zip(together, alone, expected, strict=True):
        np.testing.assert_array_equal(bits(value), bits(exact))
        np.testing.assert_array_equal(bits(other), bits(exact))


@pytest.mark.skipif(EMULATOR is None, reason="qemu-aarch64 is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_copies_keep_every_bit_on_aarch64(name: str, tmp_path: Path) -> None:
    program, numbers = moves(name, EMULATED)
    x = stored(dtype(name), SHAPE)
    found = emulate(program, {"w": numbers}, [x], tmp_path)
    for value, exact in zip(found, wanted(x, dtype(name).encode(numbers)), strict=True):
        np.testing.assert_array_equal(bits(value), bits(exact))


@pytest.mark.parametrize("floating", [np.float32, np.float64])
@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_interpreter_moves_them_too(name: str, planned: bool, floating: type) -> None:
    program, numbers = moves(name, TARGETS[0])
    x = stored(dtype(name), SHAPE, nans=False)
    found = ProgramInterpreter(program, {"w": numbers}, planned, floating).run([x])
    for value, exact in zip(found, wanted(dtype(name).decode(x), numbers), strict=True):
        assert value.dtype == held(name, np.dtype(floating))
        np.testing.assert_array_equal(value, exact)


@pytest.mark.parametrize("packing", [Flat(), Channels(1, 16)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_packed_parameters_have_a_dtype(name: str, packing: Packing) -> None:
    row = dtype(name)
    numbers = row.decode(stored(row, (37,), nans=False))
    packed = Packed(Source("w", TensorType(name, (37,))), packing, (37,), name)
    assert packed.bytes == packed.elements * row.bytes
    store = WeightStore({"w": numbers})
    store.ensure([packed])
    (segment,) = store._segments
    found = segment.array(store.address(packed) - segment.address, packed.elements, name)
    np.testing.assert_array_equal(bits(found[:37]), bits(row.encode(numbers)))
    assert not bits(found[37:]).any()
    assert padded(packed) * row.bytes % 64 == 0
    others = {packed_key(Packed(packed.recipe, packing, (37,), other)) for other in NAMES}
    assert len(others) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_is_in_bytes(name: str) -> None:
    program, _ = moves(name, TARGETS[0])
    buffers = {b["name"]: b for b in program_json(program)["buffers"]}
    assert buffers["turned"]["bytes"] == prod(SHAPE) * dtype(name).bytes
    assert buffers["turned"]["at"] == program.offsets["turned"]
    assert f"arena turned: {prod(SHAPE)} {name} at " in str(program)


def test_a_buffer_of_another_dtype_than_the_code_takes() -> None:
    program, _ = moves("i16", TARGETS[0])
    call = next(c for c in program.calls() if c.kernel.family == "transpose")
    object.__setattr__(call, "kernel", Transpose("f16"))
    with pytest.raises(VerifyError, match="argument x is i16, the kernel takes f16"):
        verify_program(program)


def test_a_view_of_another_dtype_than_its_buffer() -> None:
    program, _ = moves("i16", TARGETS[0])
    program.buffers["x"] = Buffer("x", "input", prod(SHAPE), "u8")
    with pytest.raises(VerifyError, match=r"x\[.*is i16, its buffer u8"):
        verify_program(program)


HALVES = np.arange(1 << 16, dtype=np.uint16)
"""The bits of every number of two bytes."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_every_short_float_is_read_exactly(name: str, target: Target) -> None:
    row = dtype(name)
    x = HALVES.view(row.storage).reshape(1, -1)
    found = cast_by_kernel(name, "f32", x, target)
    exact = row.decode(x).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    kept = ~np.isnan(exact)
    np.testing.assert_array_equal(found[kept].view(np.uint32), exact[kept].view(np.uint32))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_floats_are_rounded_to_short_ones(name: str, target: Target) -> None:
    """Every short float, its neighbours, and the halfway points between two with theirs."""
    row = dtype(name)
    with np.errstate(invalid="ignore"):
        short = row.decode(HALVES.view(row.storage)).astype(np.float64)
    finite = np.unique(short[np.isfinite(short)])
    halfway = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    edges = np.concatenate([finite.astype(np.float32), halfway, np.float32([65520, -65520, 1e6])])
    beside = [np.nextafter(edges, np.float32(to)) for to in (-np.inf, np.inf)]
    x = np.concatenate([edges, *beside, np.float32([np.inf, -np.inf, np.nan, -0.0])])
    x = x[(np.abs(x) >= np.finfo(np.float32).tiny) | (x == 0) | np.isnan(x)][None]
    found = cast_by_kernel("f32", name, x, target)
    exact = row.encode(x)
    nan = np.isnan(x)
    np.testing.assert_array_equal(bits(found[~nan]), bits(exact[~nan]))
    assert np.isnan(row.decode(found[nan])).all()


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_doubles_are_rounded_to_floats(target: Target) -> None:
    x = np.random.default_rng(0).standard_normal((3, 41)) * 10.0 ** np.arange(-20, 21)
    x[0, :4] = np.inf, -np.inf, np.nan, 1e300
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    np.testing.assert_array_equal(cast_by_kernel("f64", "f32", x, target), single)
    np.testing.assert_array_equal(cast_by_kernel("f32", "f64", single, target), single)


def cast_by_kernel(source: str, name: str, x: np.ndarray, target: Target) -> np.ndarray:
    """What the kernel of a cast makes of an array (rank 2, as it is stored)."""
    count = x.shape[1]
    graph = parse_graph(
        f"graph cast(%x: {source}[N,{count}]) -> {name}[N,{count}] {{"
        f' %y = cast(%x){{dtype="{name}"}}: {name}[N,{count}]  return %y }}'
    )
    program = lower(graph, Schedule({}), target, len(x))
    (found,) = Run(program, target).outputs({}, [x])
    return found


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", ["i8", "u16", "i32", "u32", "u64", "bool"])
def test_integers_are_converted_as_they_are_read_and_written(name: str, target: Target) -> None:
    graph = parse_graph(
        f"graph there(%x: f32[N,40]) -> {name}[N,40], f32[N,40] {{"
        f' %y = cast(%x){{dtype="{name}"}}: {name}[N,40]'
        f' %z = cast(%y){{dtype="f32"}}: f32[N,40]  return %y, %z }}'
    )
    x = np.array([0, -0.0, 0.5, -1.7, 126.9, 1e3, -1e6, 3e9, -3e9, np.inf, np.nan, 77])
    given = np.resize(x, (2, 40)).astype(np.float32)
    program = lower(graph, Schedule({}), target, 2)
    found = Run(program, target).outputs({}, [given])
    for value, exact in zip(found, interpret(graph, [given]), strict=True):
        assert value.dtype == exact.dtype
        np.testing.assert_array_equal(value, exact)


@pytest.mark.parametrize("name", ["i8", "i16", "i32", "i64"])
def test_integer_constants_keep_all_their_bits(name: str) -> None:
    info = np.iinfo(dtype(name).storage)
    numbers = (int(info.max), int(info.min) + 1)
    graph = parse_graph(
        f"graph table(%x: f32[N,3]) -> {name}[N,2] {{"
        f' %t = constant() {{value={numbers}, dtype="{name}"}} : {name}[2]'
        f"  %y = expand(%t) {{shape=(N,2)}} : {name}[N,2]  return %y }}"
    )
    given = np.zeros((2, 3), np.float32)
    program = lower(graph, Schedule({}), TARGETS[0], 2)
    (found,) = Run(program, TARGETS[0]).outputs({}, [given])
    np.testing.assert_array_equal(found, [numbers] * 2)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", NAMES)
def test_ops_that_move_numbers_keep_every_bit(name: str, target: Target) -> None:
    """Borders of each kind, known indices, parts and joins."""
    graph = parse_graph(f"""
        graph moved(%x: {name}[N,3,6,5]) -> {name}[N,3,8,6], {name}[N,3,8,6], {name}[N,5,6,5],
            {name}[N,4,6,5], {name}[N,5,6,5] {{
          %i = constant() {{value=(2,-3,0,1), dtype="i64"}} : i64[4]
          %a = pad(%x) {{before=(0,0,1,0), after=(0,0,1,1)}} : {name}[N,3,8,6]
          %b = pad(%x) {{before=(0,0,1,0), after=(0,0,1,1), mode="reflect"}} : {name}[N,3,8,6]
          %c = pad(%x) {{before=(0,1,0,0), after=(0,1,0,0)}} : {name}[N,5,6,5]
          %d = gather(%x, %i) {{axis=1}} : {name}[N,4,6,5]
          %s = slice(%x) {{axis=1, start=1, stop=3}} : {name}[N,2,6,5]
          %e = concat(%s, %x) {{axis=1}} : {name}[N,5,6,5]
          return %a, %b, %c, %d, %e
        }}""")
    x = stored(dtype(name), (2, 3, 6, 5))
    sides = ((0, 0), (0, 0), (1, 1), (0, 1))
    wanted = [
        np.pad(x, sides),
        np.pad(x, sides, mode="reflect"),
        np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))),
        x[:, [2, -3, 0, 1]],
        np.concatenate([x[:, 1:], x], 1),
    ]
    program = lower(graph, Schedule({}), target, 2, threads=2)
    found = Run(program, target, threads=2).outputs({}, [x])
    for value, exact in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(bits(value), bits(exact))


INTEGERS = [name for name in NAMES if DTYPES[name].kind in ("signed", "unsigned")]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("source", INTEGERS)
def test_integers_become_others_without_being_floats(source: str, target: Target) -> None:
    """Each bit counts, and what is out of range wraps around."""
    own = np.iinfo(DTYPES[source].storage)
    edges = [np.iinfo(DTYPES[n].storage) for n in INTEGERS]
    values = {v + d for e in edges for v in (e.min, e.max) for d in (-1, 0, 1)} | {16777217, 3}
    inside = sorted(v for v in values if own.min <= v <= own.max)
    text = ", ".join(map(str, inside))
    for name in INTEGERS:
        graph = parse_graph(
            f"""
            graph g(%x: f32[N,{len(inside)}]) -> {name}[N,{len(inside)}] {{
              %c = constant() {{value=({text}), dtype="{source}"}} : {source}[{len(inside)}]
              %e = expand(%c) {{shape=(N,{len(inside)})}} : {source}[N,{len(inside)}]
              %y = cast(%e) {{dtype="{name}"}} : {name}[N,{len(inside)}]
              return %y
            }}"""
        )
        x = np.zeros((2, len(inside)), np.float32)
        program = lower(graph, Schedule({}), target, 2)
        (value,) = Run(program, target).outputs(graph.payload, [x])
        (wanted,) = interpret(graph, [x])
        np.testing.assert_array_equal(value, wanted)
