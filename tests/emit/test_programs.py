"""Programs around an emitted library: its own example in C, and those of examples/c, each built by
its compiler where there is one."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_library import COMPILER
from PIL import Image

import lucid
from lucid import nn
from lucid.models import resnest_digits

ROOT = Path(__file__).parents[2]
DIGIT = ROOT / "examples" / "digits" / "7_0.png"
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
SANITISED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def compiled():
    made = lucid.compile(resnest_digits(), (1, 1, 32, 32), threads=2)
    made.metadata = {
        "preprocess": {"size": 32, "crop_fraction": 1.0, "mean": 0.5, "std": 0.25, "order": "grey"},
        "labels": [f'"digit" {number}??/' for number in range(10)],
    }
    return made


@pytest.fixture(scope="module")
def folder(compiled, tmp_path_factory):
    """The model as `resnest_digits`, with its weights."""
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    place = tmp_path_factory.mktemp("digits")
    return lucid.emit_c(compiled, place, name="resnest_digits", embed=True, shared=True)


def done(*command: Any, **more: Any) -> str:
    """What a command says; it must succeed."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, **more)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def program(compiled, tmp_path_factory):
    """main.c over a file of weights: no warnings, and sanitisers where there are such."""
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    place = lucid.emit_c(compiled, tmp_path_factory.mktemp("main"), name="digits")
    command = [
        COMPILER,
        *STRICT,
        "main.c",
        "digits.c",
        "digits.a",
        "-o",
        "main",
        "-lpthread",
        "-lm",
    ]
    tried = subprocess.run([*command, *SANITISED], cwd=place, capture_output=True, text=True)
    if tried.returncode and "san" in tried.stderr:
        tried = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert tried.returncode == 0, tried.stderr
    return place / "main"


@pytest.mark.parametrize("size", [None, (57, 43), (20, 31)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_example_prints_classes(mode, size, program, compiled, tmp_path: Path) -> None:
    image = Image.open(DIGIT).convert(mode)
    image = image.resize(size) if size else image
    image.save(tmp_path / "digit.ppm")
    told = done(program, program.parent / "digits.bin", tmp_path / "digit.ppm")
    scores = compiled(lucid.vision.preprocess(image, compiled))[0]
    best, number, label = told.splitlines()[1].split(maxsplit=2)
    assert (int(number), label) == (scores.argmax(), f'"digit" {number}??/')
    assert abs(float(best) - scores.max()) < (0.2 if size else 1e-4)


def test_the_example_takes_raw_arrays(program, compiled, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    (tmp_path / "x.raw").write_bytes(x.tobytes())
    told = done(program, program.parent / "digits.bin", tmp_path / "x.raw")
    assert abs(float(told.splitlines()[1].split()[0]) - compiled(x).max()) < 1e-4


def test_an_image_for_a_batch(tmp_path: Path) -> None:
    """It is in all rows, and the outputs of the first are printed."""
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    compiled = lucid.compile(network, (3, 1, 8, 8), threads=1)
    spec = {"size": 8, "crop_fraction": 1.0, "mean": 0.0, "std": 1.0, "order": "grey"}
    compiled.metadata = {"preprocess": spec}
    lucid.emit_c(compiled, tmp_path, name="rows", embed=True)
    command = [COMPILER, *STRICT, "main.c", "rows.c", "rows.a", "-o", "rows", "-lpthread", "-lm"]
    done(*command, cwd=tmp_path)
    levels = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "image.pgm")
    _, *rows = done(tmp_path / "rows", tmp_path / "image.pgm").splitlines()
    x = np.broadcast_to(levels.astype(np.float32) / 255, (3, 1, 8, 8))
    scores = compiled(np.ascontiguousarray(x))[0]
    assert [int(row.split()[1]) for row in rows] == list(np.argsort(-scores))
    assert "./rows image.ppm\n" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: "),
        (["digits.bin", "none.ppm"], "none.ppm: cannot be read"),
        (["none.bin", "none.ppm"], "cannot be opened or mapped"),
        (["main.c", "none.ppm"], "not one that was made for this library"),
        (["digits.bin", "main.c"], "main.c: not as many bytes as the input has"),
        (["digits.bin", "cut.ppm"], "cut.ppm: the image is cut off"),
        (["digits.bin", "text.ppm"], "text.ppm: not an image of 8 bits"),
    ],
)
def test_what_the_example_refuses(arguments, message, program) -> None:
    folder = program.parent
    (folder / "cut.ppm").write_bytes(b"P6 # a comment\n4 4 255\n123")
    (folder / "text.ppm").write_bytes(b"P6\nseven")
    told = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    assert told.returncode in (1, 2)
    assert message in told.stderr


@pytest.fixture
def digit(compiled, tmp_path: Path) -> Path:
    path = tmp_path / "digit.raw"
    path.write_bytes(lucid.vision.preprocess(DIGIT, compiled).tobytes())
    return path


def test_cpp(folder, digit, tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    source = ROOT / "examples" / "c" / "digits.cpp"
    library = folder / "resnest_digits.so"
    flags = ["-std=c++11", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{folder}"]
    done(compiler, *flags, source, library, f"-Wl,-rpath,{folder}", "-o", tmp_path / "digits")
    assert done(tmp_path / "digits", digit) == "7\n"


def test_rust(folder, digit, tmp_path: Path) -> None:
    compiler = shutil.which("rustc", path=f"{os.environ['PATH']}:{Path.home() / '.cargo/bin'}")
    if compiler is None:
        pytest.skip("there is no Rust compiler")
    source = ROOT / "examples" / "c" / "digits.rs"
    link = [f"-Clink-arg={folder / 'resnest_digits.so'}", f"-Clink-arg=-Wl,-rpath,{folder}"]
    done(compiler, "-Dwarnings", source, *link, "-o", tmp_path / "digits")
    assert done(tmp_path / "digits", digit) == "7\n"


def test_go(folder, digit) -> None:
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("there is no Go compiler")
    library = folder / "resnest_digits.so"
    flags = {"CGO_CFLAGS": f"-I{folder}", "CGO_LDFLAGS": f"{library} -Wl,-rpath,{folder}"}
    source = ROOT / "examples" / "c" / "digits.go"
    assert done(compiler, "run", source, digit, env={**os.environ, **flags}) == "7\n"
