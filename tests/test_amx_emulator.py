"""AMX's instructions as tests run them, the processor's or emulated, against NumPy."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amx_emulator import Tiles, shared_library, tiles_here

REGISTERS = ["rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))]
SAVED = ["rbx", "rbp", "r12", "r13", "r14", "r15"]
PRODUCTS = ["tdpbf16ps", "tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud"]
FAULTS = {
    "unconfigured": "tilezero %tmm0",
    "same": "ldtilecfg (%rdi); .byte 0xc4, 0xe2, 0x72, 0x5c, 0xc0",  # tdpbf16ps 1, 0, 0
    "shapes": "ldtilecfg (%rdi); tdpbf16ps %tmm2, %tmm1, %tmm0",
    "absent": "ldtilecfg (%rdi); tilezero %tmm7",
    "foreign": "ud2",
    "configuration": "movb $1, 2(%rdi); ldtilecfg (%rdi)",
}
"""What processors refuse; the last one by SIGSEGV, the others as illegal instructions."""


# -- what is called -------------------------------------------------------------------------------


def function(name: str, lines: Sequence[str]) -> str:
    return "\n".join([f".globl {name}", f"{name}:", *lines, "ret"])


def addressed(name: str, instruction: str, base: str, index: str, scale: int, place: int) -> str:
    """A function of two words, base and index, that an instruction finds in these registers."""
    keep = [f"push %{r}" for r in SAVED]
    given = ["push %rdi", "push %rsi", f"pop %{index}", f"pop %{base}"]
    restore = [f"pop %{r}" for r in reversed(SAVED)]
    operand = f"{place}(%{base},%{index},{scale})"
    return function(name, [*keep, *given, instruction.format(operand), *restore])


def cases() -> list[tuple[str, str, int, int]]:
    """Base, index, scale and displacement: every register as each of the two."""
    drawn = random.Random(0)
    found = []
    for number, base in enumerate(REGISTERS):
        index = REGISTERS[(number + drawn.randrange(1, len(REGISTERS))) % len(REGISTERS)]
        for place in (0, -96, 5000):
            found.append((base, index, drawn.choice((1, 2, 4, 8)), place))
    for index in REGISTERS:
        base = drawn.choice([r for r in REGISTERS if r != index])
        found.append((base, index, drawn.choice((1, 2, 4, 8)), drawn.choice((0, 64, -4096))))
    return found


def source() -> str:
    functions = [
        function("configure", ["ldtilecfg (%rdi)"]),
        function("configuration", ["sttilecfg (%rdi)"]),
        function("far_configuration", ["sttilecfg 192(%rdi,%rsi,2)"]),
        function("release", ["tilerelease"]),
        *(function(f"load{t}", [f"tileloadd (%rdi,%rsi), %tmm{t}"]) for t in range(8)),
        *(function(f"store{t}", [f"tilestored %tmm{t}, (%rdi,%rsi)"]) for t in range(8)),
        function("zero5", ["tilezero %tmm5"]),
        function("hinted", ["tileloaddt1 (%rdi,%rsi), %tmm5"]),
        function("repeated", ["tileloadd (%rdi), %tmm5"]),
        *(function(name, [f"{name} %tmm6, %tmm7, %tmm4"]) for name in PRODUCTS),
        *(function(f"fault_{name}", [lines]) for name, lines in FAULTS.items()),
    ]
    for number, (base, index, scale, place) in enumerate(cases()):
        where = (base, index, scale, place)
        functions.append(addressed(f"at{number}", "tileloadd {}, %tmm3", *where))
        functions.append(addressed(f"to{number}", "tilestored %tmm3, {}", *where))
    return "\n".join([".text", *functions, '.section .note.GNU-stack,"",@progbits', ""])


@pytest.fixture(scope="module")
def tiles() -> Tiles:
    return tiles_here()


@pytest.fixture(scope="module")
def code(tiles: Tiles, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The instructions as functions of words."""
    folder = tmp_path_factory.mktemp("amx")
    (folder / "instructions.s").write_text(source())
    try:
        return Code(shared_library(folder / "instructions.s", folder))
    except subprocess.CalledProcessError:
        pytest.skip("the assembler does not know AMX")


class Code:
    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def __getattr__(self, name: str) -> Any:
        called = getattr(self._library, name)
        called.argtypes, called.restype = [ctypes.c_int64] * 2, None
        return lambda *words: called(*words, *[0] * (2 - len(words)))


def configuration(shapes: dict[int, tuple[int, int]]) -> np.ndarray:
    """Of tiles with so many rows and bytes of each."""
    made = np.zeros(64, np.uint8)
    made[0] = 1
    for tile, (rows, row_bytes) in shapes.items():
        made[16 + 2 * tile] = row_bytes
        made[48 + tile] = rows
    return made


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Floats cut to bfloat16, as their bits."""
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def put(code: Any, tile: int, array: np.ndarray) -> None:
    getattr(code, f"load{tile}")(array.ctypes.data, array.strides[0])


def taken(code: Any, tile: int, like: np.ndarray) -> np.ndarray:
    found = np.zeros_like(like)
    getattr(code, f"store{tile}")(found.ctypes.data, found.strides[0])
    return found


# -- tests ----------------------------------------------------------------------------------------


def test_configurations(tiles: Tiles, code: Any) -> None:
    """They are of a thread, and released."""
    assert tiles.configured == 0
    own, found = configuration({0: (3, 8), 7: (16, 64)}), np.full(64, 9, np.uint8)
    code.configure(own.ctypes.data)
    code.configuration(found.ctypes.data)
    np.testing.assert_array_equal(found, own)
    assert tiles.configured == (1 if tiles.emulator else 0)
    other = threading.Thread(target=code.configuration, args=(found.ctypes.data,))
    other.start()
    other.join()
    assert not found.any(), "another thread's"
    room = np.zeros(1024, np.uint8)
    code.far_configuration(room.ctypes.data, 50)
    np.testing.assert_array_equal(room[292 : 292 + 64], own)
    code.release()
    code.configuration(found.ctypes.data)
    assert not found.any()
    code.configure(own.ctypes.data)
    code.configure(np.zeros(64, np.uint8).ctypes.data)
    assert tiles.configured == 0


@pytest.mark.parametrize("number", range(len(cases())))
def test_addresses(code: Any, number: int) -> None:
    """Rows go to and come from base + displacement + row * index * scale."""
    _, _, scale, place = cases()[number]
    drawn = np.random.default_rng(number)
    rows, row_bytes = int(drawn.integers(1, 17)), int(drawn.integers(1, 65))
    stride = int(drawn.integers(row_bytes, 300)) * int(drawn.choice([-1, 1]))
    memory = drawn.integers(0, 256, 100_000).astype(np.uint8)
    target, before = memory.copy(), memory.copy()
    at = 50_000
    own = configuration({3: (rows, row_bytes)})
    code.configure(own.ctypes.data)
    getattr(code, f"at{number}")(memory.ctypes.data + at - place, stride)
    places = at + stride * scale * np.arange(rows)[:, None] + np.arange(row_bytes)
    target[...] = 0
    getattr(code, f"to{number}")(target.ctypes.data + at - place, stride)
    code.release()
    wanted = np.zeros_like(target)
    wanted[places] = memory[places]
    np.testing.assert_array_equal(target, wanted)
    np.testing.assert_array_equal(memory, before)


def test_what_a_load_leaves_out_is_zero(code: Any) -> None:
    ones, few = configuration({5: (16, 64)}), configuration({5: (4, 12)})
    full = np.full((16, 64), 7, np.uint8)
    code.configure(ones.ctypes.data)
    for load in (code.load5, code.hinted):
        load(full.ctypes.data, 64)
        np.testing.assert_array_equal(taken(code, 5, full), full)
        code.zero5()
        assert not taken(code, 5, full).any()
    row = np.arange(64, dtype=np.uint8)
    code.repeated(row.ctypes.data)
    np.testing.assert_array_equal(taken(code, 5, full), np.tile(row, (16, 1)))
    code.configure(few.ctypes.data)
    code.load5(full.ctypes.data, 64)
    found = taken(code, 5, full)
    assert found[:4, :12].all()
    assert found.sum() == 7 * 4 * 12
    code.release()


def shapes(seed: int) -> tuple[int, int, int]:
    """Rows, columns and steps of four bytes."""
    if seed == 0:
        return 16, 16, 16
    return tuple(int(n) for n in np.random.default_rng(seed).integers(1, 17, 3))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", PRODUCTS[1:])
def test_products_of_bytes(code: Any, name: str, seed: int) -> None:
    rows, columns, steps = shapes(seed)
    drawn = np.random.default_rng(seed)
    signed = {"s": np.int8, "u": np.uint8}
    left, right = (
        drawn.integers(0, 256, size).astype(np.uint8).view(signed[kind])
        for kind, size in zip(name[4:6], ((rows, 4 * steps), (steps, 4 * columns)), strict=True)
    )
    start = drawn.integers(-(2**31), 2**31, (rows, columns)).astype(np.int32)
    own = configuration({4: (rows, 4 * columns), 7: (rows, 4 * steps), 6: (steps, 4 * columns)})
    code.configure(own.ctypes.data)
    for tile, array in ((4, start), (7, left), (6, right)):
        put(code, tile, array)
    getattr(code, name)()
    found = taken(code, 4, start)
    code.release()
    weights = right.reshape(steps, columns, 4).swapaxes(1, 2).reshape(4 * steps, columns)
    wanted = start + left.astype(np.int64) @ weights.astype(np.int64)
    np.testing.assert_array_equal(found, wanted.astype(np.int32))


def bf16(drawn: Any, shape: tuple[int, ...]) -> np.ndarray:
    return bfloat16(drawn.standard_normal(shape) * 2.0 ** drawn.integers(-9, 9, shape))


@pytest.mark.parametrize("seed", range(8))
def test_products_of_bfloat16(tiles: Tiles, code: Any, seed: int) -> None:
    """Within what adding up in any order may lose; bit by bit in the emulator's own."""
    rows, columns, steps = shapes(seed)
    drawn = np.random.default_rng(seed)
    left, right = bf16(drawn, (rows, 2 * steps)), bf16(drawn, (steps, 2 * columns))
    start = drawn.standard_normal((rows, columns)).astype(np.float32)
    own = configuration({4: (rows, 4 * columns), 7: (rows, 4 * steps), 6: (steps, 4 * columns)})
    code.configure(own.ctypes.data)
    for tile, array in ((4, start), (7, left), (6, right)):
        put(code, tile, array)
    code.tdpbf16ps()
    found = taken(code, 4, start)
    code.release()
    x, w = widened(left), widened(right).reshape(steps, columns, 2)
    products = [x[:, k::2, None].astype(np.float64) * w[None, :, :, k] for k in (0, 1)]
    exact = start + sum(p.sum(axis=1) for p in products)
    size = np.abs(start) + sum(np.abs(p).sum(axis=1) for p in products)
    assert (np.abs(found - exact) <= (2 * steps + 1) * 2.0**-24 * size).all()
    if tiles.emulator:
        apart = []
        for part in products:
            chain = np.zeros_like(start)
            for k in range(steps):
                chain = (chain + part[:, k]).astype(np.float32)
            apart.append(chain)
        np.testing.assert_array_equal(found, start + (apart[0] + apart[1]))


def test_denormals_are_zeros_and_what_is_not_finite_stays_so(code: Any) -> None:
    own = configuration({4: (1, 16), 7: (1, 4), 6: (1, 16)})
    left = bfloat16(np.array([[1.0, 1.0]]))
    right = widened(np.zeros((1, 8), np.uint16))
    right[0, ::2] = [np.inf, np.nan, 1e-39, 2.0**-126]
    right[0, 1::2] = [-np.inf, 1, 0, 0]
    code.configure(own.ctypes.data)
    put(code, 7, left)
    put(code, 6, bfloat16(right))
    start = np.array([[0, 0, 0, 1e-39]], np.float32)
    put(code, 4, start)
    code.tdpbf16ps()
    found = taken(code, 4, start)
    half = bfloat16(np.array([[0.5, 0.0]]))
    put(code, 7, half)
    put(code, 4, np.zeros_like(start))
    code.tdpbf16ps()
    halved = taken(code, 4, start)
    code.release()
    np.testing.assert_array_equal(found, [[np.nan, np.nan, 0, 2.0**-126]])
    assert halved[0, 3] == 0, "a denormal result"


FAULT = """
import ctypes, sys
import numpy as np
sys.path[:0] = {path}
from amx_emulator import tiles_here
tiles_here()
own = np.zeros(128, np.uint8)
own[64], own[80:86:2], own[112:115] = 1, (64, 64, 32), (16, 16, 16)
getattr(ctypes.CDLL({library!r}), {name!r})(ctypes.c_int64(own.ctypes.data + 64))
"""


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_refused(code: Any, name: str) -> None:
    """The process ends as it would with the processor's own."""
    path, library = sys.path, code._library._name
    program = FAULT.format(path=path, library=library, name=f"fault_{name}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == (-11 if name == "configuration" else -4), done.stderr
