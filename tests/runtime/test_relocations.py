"""Each relocation as LLVM's own loader does it, at the same addresses, for both machines."""

import ctypes

import pytest
from llvmlite import binding

from lucid.codegen.language.llvm import target_machine
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.runtime.object_code import ObjectCode
from lucid.runtime.relocations import AARCH64, RELOCATIONS, X86_64, relocation

LOADED = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "<4 x i32>": 16}
DISTANCE = "i64 sub (i64 ptrtoint (ptr @first to i64), i64 ptrtoint (ptr @{} to i64))"
CONSTANTS = [
    f"@c{size} = dso_local constant [9 x {kind}] zeroinitializer, align {size}"
    for kind, size in LOADED.items()
]
LOADS = [
    f'define dso_local {kind} @load{size}() section ".text.{size}" {{\n'
    f"  %x = load volatile {kind}, ptr getelementptr (i8, ptr @c{size}, i64 {3 * size})\n"
    f"  ret {kind} %x\n}}"
    for kind, size in LOADED.items()
]
MODULE = "\n".join(
    [
        *CONSTANTS,
        "@pointer = dso_local constant ptr getelementptr (i8, ptr @c8, i64 24)",
        f"@narrow = dso_local constant i32 trunc ({DISTANCE.format('narrow')} to i32)",
        f"@wide = dso_local constant {DISTANCE.format('wide')}",
        *LOADS,
        "define dso_local ptr @first(i64 %n) {",
        "  call void @second(i64 %n)",
        "  %p = getelementptr i8, ptr @c1, i64 %n",
        "  ret ptr %p\n}",
        'define dso_local void @second(i64 %n) noinline section ".text.second" {',
        "  store volatile i64 %n, ptr null",
        "  ret void\n}",
        'define dso_local ptr @last(i64 %n) section ".text.last" {',
        "  %r = musttail call ptr @first(i64 %n)",
        "  ret ptr %r\n}",
    ]
)


BRANCHES = [RELOCATIONS[AARCH64][kind] for kind in (282, 283)]


def built(target):
    """The module as an object for a target, and its symbols' addresses as LLVM has loaded it."""
    machine = target_machine(target)
    module, empty = (
        binding.parse_assembly(text, context=binding.create_context()) for text in (MODULE, "")
    )
    for each in (module, empty):
        each.triple, each.data_layout = target.triple, str(machine.target_data)
    code = machine.emit_object(module)
    engine = binding.create_mcjit_compiler(empty, machine, use_lmm=True)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return ObjectCode(code), engine


@pytest.mark.parametrize("name", ["x86-64-v3", "aarch64"])
def test_the_bytes_are_those_of_llvm(name):
    obj, engine = built(Target.named(name))
    known = RELOCATIONS[obj.machine]
    assert {fixup.how for fixup in obj.fixups} == set(known.values())
    places = {}
    for symbol, place in obj.symbols.items():
        if address := engine.get_function_address(symbol):
            places[place.section] = address - place.offset
    assert set(places) == set(obj.sections)
    base = min(places.values())
    offsets = {number: address - base for number, address in places.items()}
    image = bytearray(max(offsets[n] + len(s.content) for n, s in obj.sections.items()))
    obj.write(image, offsets, base)
    loaded = bytearray(image)
    for number, section in obj.sections.items():
        at, size = offsets[number], len(section.content)
        loaded[at : at + size] = ctypes.string_at(base + at, size)
    for place, how, target, addend in obj.fixups:
        if how in BRANCHES:
            at = offsets[place.section] + place.offset
            assert destination(base + at) == places[target.section] + target.offset + addend
            loaded[at : at + 4] = image[at : at + 4]
    assert image == loaded


def destination(branch):
    """Where a branch leads that LLVM has sent to a stub: MOVZ, three times MOVK, BR."""
    distance = (word_at(branch) & 0x3FFFFFF ^ 0x2000000) - 0x2000000
    moves = [word_at(branch + 4 * distance + 4 * i) for i in range(4)]
    return sum((word >> 5 & 0xFFFF) << 16 * (word >> 21 & 3) for word in moves)


def word_at(address):
    return int.from_bytes(ctypes.string_at(address, 4), "little")


PAGE, BRANCH = 0x7000_0000_0000, 0x94000000


@pytest.mark.parametrize(
    ("machine", "kind", "word", "target", "place", "wanted"),
    [
        (X86_64, 2, 0, PAGE - 4, PAGE, 0xFFFFFFFC),
        (X86_64, 2, 0, PAGE + 2**31 - 1, PAGE, 0x7FFFFFFF),
        (X86_64, 4, 0, PAGE - 2**31, PAGE, 0x80000000),
        (AARCH64, 275, 0x90000003, PAGE + 0x5FFF, PAGE + 0xFFC, 0xB0000023),  # 5 pages
        (AARCH64, 275, 0x90000003, PAGE - 1, PAGE, 0xF0FFFFE3),  # -1
        (AARCH64, 277, 0x91000063, PAGE + 0xABC, PAGE, 0x912AF063),
        (AARCH64, 299, 0x3DC00060, PAGE + 0xFF0, PAGE, 0x3DC3FC60),
        (AARCH64, 283, BRANCH, PAGE - 4, PAGE, 0x97FFFFFF),
        (AARCH64, 282, 0x14000000, PAGE + 2**27 - 4, PAGE, 0x15FFFFFF),
    ],
)
def test_words(machine, kind, word, target, place, wanted):
    """As computed by hand from the manuals of the instructions."""
    assert relocation(machine, kind).apply(word, target, place) == wanted


@pytest.mark.parametrize(
    ("machine", "kind", "target", "told"),
    [
        (X86_64, 1, -1, "does not fit into 64 bits"),
        (X86_64, 1, 2**64, "does not fit into 64 bits"),
        (X86_64, 2, PAGE + 2**31, "does not fit into 32 bits"),
        (X86_64, 4, PAGE - 2**31 - 1, "does not fit into 32 bits"),
        (AARCH64, 275, PAGE + 2**32, "does not fit into 21 bits"),
        (AARCH64, 283, PAGE + 2**27, "does not fit into 26 bits"),
        (AARCH64, 283, PAGE + 2, "between two instructions"),
        (AARCH64, 299, PAGE + 8, "of 16 bytes lies at"),
        (X86_64, 42, PAGE, "type 42 are not known for machine 62"),
        (AARCH64, 311, PAGE, "type 311 are not known"),
    ],
)
def test_what_does_not_reach_is_refused(machine, kind, target, told):
    with pytest.raises(CompileError, match=told):
        relocation(machine, kind).apply(0, target, PAGE)
