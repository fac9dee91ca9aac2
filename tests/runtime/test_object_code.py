"""Objects are read without being believed: damaged ones are refused, and do no other harm."""

import random
import struct

import pytest
from llvmlite import binding

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.reduction import Softmax
from lucid.codegen.language.llvm import compile_object, symbol, target_machine
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.runtime.code_memory import Layout
from lucid.runtime.object_code import HEADER, SECTION, ObjectCode, _Header

KERNELS = (Driver(), Softmax())
TARGETS = ("x86-64-v3", "aarch64")


@pytest.fixture(scope="module")
def objects():
    return {t: [compile_object(k, Target.named(t)) for k in KERNELS] for t in TARGETS}


def linked(data, base=0x7000_0000_0000):
    layout = Layout([ObjectCode(data)])
    image = layout.linked(base)
    assert len(image) == layout.size
    return image


@pytest.mark.parametrize("name", TARGETS)
def test_kernels_have_code_and_constants(objects, name):
    for kernel, data in zip(KERNELS, objects[name], strict=True):
        obj = ObjectCode(data)
        assert {symbol(kernel, e) for e in kernel.exports} <= set(obj.symbols)
        assert any(section.is_code for section in obj.sections.values())
    assert obj.fixups
    assert not all(section.is_code for section in obj.sections.values())


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_truncated_is_refused(objects, name):
    for data in objects[name]:
        for size in (*range(0, 200, 7), *range(200, len(data), 97), len(data) - 1):
            with pytest.raises(CompileError, match="object code cannot be loaded"):
                linked(data[:size])


@pytest.mark.parametrize("name", TARGETS)
def test_flipped_bits_do_no_harm(objects, name):
    """Those in instructions and constants are what checksums are for; all others are refused, or
    change nothing that is read, or an offset within the object."""
    draw = random.Random(7)
    refused = 0
    for data in objects[name]:
        for _ in range(400):
            damaged = bytearray(data)
            for _ in range(draw.choice((1, 1, 8))):
                damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            refused += is_refused(bytes(damaged))
    assert refused > 20


@pytest.mark.parametrize("name", TARGETS)
def test_tables_of_nonsense_do_no_harm(objects, name):
    """The headers and tables, where each bit says something."""
    draw = random.Random(8)
    data = objects[name][1]
    first, count = HEADER.unpack_from(data)[6], HEADER.unpack_from(data)[12]
    places = [*range(HEADER.size), *range(first, first + count * SECTION.size)]
    for _ in range(1000):
        damaged = bytearray(data)
        damaged[draw.choice(places)] = draw.choice((0, 1, 4, 0x7F, 0xFF, draw.randrange(256)))
        is_refused(bytes(damaged))


def is_refused(data):
    """Any exception but CompileError is a failure."""
    try:
        linked(data)
    except CompileError:
        return True
    return False


def changed(data, section, **fields):
    """The object with other fields in the header of one of its sections, chosen by type."""
    names = _Header._fields
    first, count = HEADER.unpack_from(data)[6], HEADER.unpack_from(data)[12]
    out = bytearray(data)
    for at in range(first, first + count * SECTION.size, SECTION.size):
        row = dict(zip(names, SECTION.unpack_from(data, at), strict=True))
        if row["kind"] == section and (section != 1 or row["flags"] & 6 == 6):
            SECTION.pack_into(out, at, *(row | fields).values())
    return bytes(out)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: b"", "too short"),
        (lambda data: b"MZ" + data[2:], "no relocatable ELF64"),
        (lambda data: data[:16] + struct.pack("<H", 2) + data[18:], "no relocatable ELF64"),
        (lambda data: data[:18] + struct.pack("<H", 40) + data[20:], "for machine 40"),
        (lambda data: data[:60] + bytes(2) + data[62:], "no table of sections"),
        (lambda data: data[:62] + b"\xff\xff" + data[64:], "no table of sections"),
        (lambda data: changed(data, 1, flags=7), "neither code nor constants"),
        (lambda data: changed(data, 1, flags=0x406), "neither code nor constants"),
        (lambda data: changed(data, 1, kind=8), "neither code nor constants"),
        (lambda data: changed(data, 1, alignment=48), "multiples of 48"),
        (lambda data: changed(data, 1, alignment=1 << 40), "multiples of 1,0"),
        (lambda data: changed(data, 1, size=1 << 62), "ends before byte"),
        (lambda data: changed(data, 1, size=4), "outside its section"),
        (lambda data: changed(data, 2, entry=25), "rows of a table"),
        (lambda data: changed(data, 2, link=99), "no row 99"),
        (lambda data: changed(data, 4, link=0), "no row"),
        (lambda data: changed(data, 4, kind=9), "without addends"),
    ],
)
def test_what_is_wrong_is_said(objects, damage, told):
    with pytest.raises(CompileError, match=f"object code cannot be loaded: .*({told})"):
        linked(damage(objects["x86-64-v3"][1]))


def test_an_undefined_symbol_is_named():
    target = Target.host()
    machine = target_machine(target)
    module = binding.parse_assembly(
        "declare void @abort() define void @f() { call void @abort() ret void }",
        context=binding.create_context(),
    )
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    with pytest.raises(CompileError, match="asks for the symbol 'abort', which it does not have"):
        ObjectCode(machine.emit_object(module))
