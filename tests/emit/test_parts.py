"""The parts of an emitted folder: archives, objects, the file of weights, names and levels."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.llvm import compile_object
from lucid.codegen.target import LEVELS, NEEDS, Target
from lucid.emit import linking
from lucid.emit.archive import Member, archive
from lucid.emit.elf import HIDDEN, Address, Data, data_object, renamed
from lucid.emit.interface import least_sums
from lucid.emit.levels import CPUID, HARDWARE, needs, state
from lucid.emit.names import comment, identifier, literal
from lucid.emit.weights import ALIGNMENT, HEADER, MAGIC, WeightFile
from lucid.errors import CompileError, MissingPackageError

HOST = Target.host()


def told(*command: object) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"there is no {command[0]}")
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True
    ).stdout


# -- archives and objects -------------------------------------------------------------------------


def test_an_archive_is_one_to_others(tmp_path: Path) -> None:
    members = [
        Member("odd.o", b"abc", ["first", "second"]),
        Member("a_name_longer_than_sixteen_characters.o", b"defg", ["third"]),
    ]
    path = tmp_path / "some.a"
    path.write_bytes(archive(members))
    assert told("ar", "t", path).split() == [member.name for member in members]
    assert told("ar", "p", path) == "abcdefg"
    index = path.read_bytes()[68:]
    assert int.from_bytes(index[:4], "big") == 3
    for number, member in zip(range(3), (*members[:1] * 2, members[1]), strict=True):
        place = int.from_bytes(index[4 + 4 * number : 8 + 4 * number], "big")
        assert path.read_bytes()[place + 60 :].startswith(member.content)


@pytest.mark.parametrize("name", ["x86-64", "aarch64"])
def test_data_with_addresses(name, tmp_path: Path) -> None:
    data = Data("own", bytes(range(64)), [Address(0, "other"), Address(8, "own", 16)])
    path = tmp_path / "data.o"
    path.write_bytes(data_object(data, Target.named(name)))
    symbols = told("readelf", "-sW", path)
    assert [line.split()[4:] for line in symbols.splitlines()[4:]] == [
        ["GLOBAL", "HIDDEN", "1", "own"],
        ["GLOBAL", "HIDDEN", "UND", "other"],
    ]
    relocations = told("readelf", "-rW", path)
    kind = "R_X86_64_64" if name == "x86-64" else "R_AARCH64_ABS64"
    assert relocations.count(kind) == 2
    assert "own + 10" in relocations
    sections = told("readelf", "-SW", path)
    assert ".data.rel.ro" in sections
    assert ".note.GNU-stack" in sections


def test_symbols_are_renamed_and_hidden() -> None:
    code = compile_object(Driver(), HOST)
    made, names = renamed(code, "net_{}".format)
    assert [name.rpartition("_driver")[0] for name in sorted(names)] == [
        "net_lucid_run",
        "net_lucid_submit",
        "net_lucid_worker",
    ]
    assert renamed(made, lambda name: name)[1] == names
    assert len(made) > len(code)
    assert renamed(code, "net_{}".format)[0] == made


def test_objects_that_need_others_are_refused() -> None:
    needy = data_object(Data("own", bytes(8), [Address(0, "malloc")]), HOST)
    assert HIDDEN == 2
    with pytest.raises(CompileError, match="needs the symbol malloc"):
        renamed(needy, str)


# -- weights --------------------------------------------------------------------------------------


def test_the_file_of_weights() -> None:
    random = np.random.default_rng(0)
    first = random.standard_normal(7).astype(np.float32)
    file = io.BytesIO()
    weights = WeightFile(file)
    places = [weights.add(a) for a in (first, random.bytes(130) and first * 2, first.copy())]
    large = random.integers(0, 1 << 63, (3 << 20) // 2, np.int64)
    places.append(weights.add(large))
    weights.finish(b"0123456789abcdef")
    data = file.getvalue()
    assert places == [
        HEADER.size,
        HEADER.size + ALIGNMENT,
        HEADER.size,
        HEADER.size + 2 * ALIGNMENT,
    ]
    assert data[places[1] :][: first.nbytes] == (first * 2).tobytes()
    magic, version, size, identity, one, two, zero = HEADER.unpack_from(data)
    assert (magic, version, size, zero) == (MAGIC, 1, len(data), 0)
    assert identity == b"0123456789abcdef"
    words = np.frombuffer(data[HEADER.size :], np.uint64)
    sums = np.cumsum(words, dtype=np.uint64)
    assert one == sums[-1]
    assert two == np.cumsum(sums, dtype=np.uint64)[-1]


# -- names, levels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("resnet50", "resnet50"),
        ("ResNet-50 (v1.5)", "resnet_50_v1_5"),
        ("", "m"),
        ("50", "m_50"),
        ("名前", "m"),
        ("_x_", "x"),
        ("Main", "m_main"),
        ("double", "m_double"),
        ("time", "m_time"),
        ("pthread", "m_pthread"),
        ("Linux", "m_linux"),
    ],
)
def test_identifiers(text, name) -> None:
    assert identifier(text) == name
    assert identifier(name) == name


def test_texts() -> None:
    assert literal('a "b"\\\n??/é1') == '"a \\042b\\042\\134\\012\\077\\077/\\303\\2511"'
    assert comment("a */ b\nc é") == "a * / b?c ?"


@pytest.mark.parametrize("name", LEVELS)
def test_every_level_says_what_it_needs(name) -> None:
    target = LEVELS[name]
    assert len(set(needs(target))) == len(NEEDS[name])
    assert (state(target) > 0) == (target.is_x86 and target.vector > 4)


@pytest.mark.parametrize(
    ("batches", "unit", "sums"),
    [
        ([1], 1, [0]),
        ([8, 16], 8, [0]),
        ([2, 3], 1, [0, 3]),
        ([4, 6], 2, [0, 3]),
        ([15, 6, 10], 1, [0, 25, 20, 15, 10, 35]),
    ],
)
def test_which_batches_are_made_up(batches, unit, sums) -> None:
    assert least_sums(batches) == (unit, sums)
    made = {0}
    for number in range(1, 80):
        if any(number - batch in made for batch in batches):
            made.add(number)
        units, rest = divmod(number, unit)
        assert (number in made) == (rest == 0 and units >= sums[units % len(sums)])


def test_every_feature_told_of_is_needed() -> None:
    told = {*CPUID, *HARDWARE}
    assert told == {feature for features in NEEDS.values() for feature in features}


def test_which_compiler(monkeypatch) -> None:
    other = LEVELS["aarch64" if HOST.is_x86 else "x86-64"]
    monkeypatch.setenv("CC", "ccache gcc")
    assert linking.compiler_for(other) == ["ccache", "gcc"]
    monkeypatch.delenv("CC")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "ziglang")
    assert linking.compiler_for(LEVELS["aarch64"])[1:] == [
        "-m",
        "ziglang",
        "cc",
        "-target",
        "aarch64-linux-gnu",
    ]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"set CC, or pip install .lucid-compiler\[nat"):
        linking.compiler_for(other)


def test_a_compiler_that_fails(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(CompileError, match=r"cannot be run: .*No such file"):
        linking.link(tmp_path, "net", HOST)
    monkeypatch.setenv("CC", "sh -c 'echo no such option >&2; exit 3'")
    with pytest.raises(CompileError, match="no such option"):
        linking.link(tmp_path, "net", HOST)
    assert not list(tmp_path.iterdir())
