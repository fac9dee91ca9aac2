"""Files that are damaged, or were never what they are said to be: only Lucid's own errors come out.

A subject is what a reader reads rightly, and the reader. A case is that text or those bytes with a
few changes of the kinds that find something: bits flipped, pieces cut out, doubled, put elsewhere,
numbers made huge or negative.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import lucid
from lucid.codegen.scheduling.schedule import Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import LucidError, MissingPackageError
from lucid.frontend.onnx import import_onnx
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.types import TensorType
from lucid.ir.verify import verify
from lucid.vision import Preprocess, preprocess

from .draw import Draw
from .networks import NetworkCase, network
from .oracles import Failure, Tally

Read = Callable[[bytes], object]

NUMBERS = ["0", "-1", "1", "99999999999999999999", "4294967296", "1e999", "nan", "2N", "1.5", ""]
TOKENS = ["{", "}", "(", ")", "[", "]", '"', ",", ":", "=", "%x", "@w", "graph", "N", "null", "\\"]


@dataclass(frozen=True)
class Subject:
    """What is read, what reads it, and whether it is text."""

    data: bytes
    read: Read
    text: bool = False


def _in_file(suffix: str, read: Callable[[Path], object]) -> Read:
    """A reader of files as a reader of bytes."""

    def from_bytes(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"subject{suffix}"
            path.write_bytes(data)
            return read(path)

    return from_bytes


# -- subjects -------------------------------------------------------------------------------------


def _graph(data: bytes) -> object:
    """Parsed, checked, printed and optimised: later stages meet only legal graphs."""
    graph = parse_graph(data.decode("utf-8", "replace"))
    verify(graph)
    assert parse_graph(print_graph(graph)) == graph
    return graph


def _type(data: bytes) -> object:
    return TensorType.parse(data.decode("utf-8", "replace"))


def _weights(path: Path) -> object:
    compiled = _small()
    return compiled.load_weights(path)


@cache
def _small() -> lucid.CompiledModel:
    """A model to load damaged weights into."""
    return lucid.compile(_net().graph, (1, *_net().inputs[0].shape[1:]), threads=1)


@cache
def _net() -> NetworkCase:
    return network(4, 6, 14)


def _texts() -> dict[str, Subject]:
    case = network(11)
    fused = run_passes(case.graph)
    choices = schedule(fused, Target.host(), 1).to_json()
    described = {"input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 0.9}
    described |= {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    squashed = described | {"input_size": [1, 64, 48], "crop_mode": "squash"}

    def choose(data: bytes) -> object:
        return Schedule.from_json(data.decode("utf-8", "replace"))

    def describe(data: bytes) -> object:
        try:
            rows = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None  # whoever reads the file says so
        return Preprocess.of(rows)

    return {
        "captured text": Subject(print_graph(case.graph).encode(), _graph, True),
        "fused text": Subject(print_graph(fused).encode(), _graph, True),
        "a type": Subject(b"f32[N,3,224,224]", _type, True),
        "schedule": Subject(choices.encode(), choose, True),
        "preprocess": Subject(json.dumps(described).encode(), describe, True),
        "squashed": Subject(json.dumps(squashed).encode(), describe, True),
    }


def _files() -> dict[str, Subject]:
    from PIL import Image
    from safetensors.numpy import save

    payload = {n: np.asarray(a) for n, a in _net().graph.payload.items()}
    weights = save(payload)
    found = {
        "safetensors": Subject(weights, _in_file(".safetensors", _weights)),
        "checkpoint": Subject(
            b"\x80\x02}q\x00X\x01\x00\x00\x00a." + b"\0" * 40, _in_file(".pth", _weights)
        ),
    }
    picture = Image.fromarray(np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3))
    for kind in ("PNG", "JPEG", "BMP", "GIF"):
        file = io.BytesIO()
        picture.save(file, kind)
        found[kind] = Subject(file.getvalue(), _in_file(f".{kind.lower()}", preprocess))
    found["artifact"] = Subject(_artifact(), _in_file(".lucid", lucid.load))
    return found | _onnx()


def _artifact() -> bytes:
    """A compiled model as a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.lucid"
        _small().save(path)
        return path.read_bytes()


def _onnx() -> dict[str, Subject]:
    """ONNX files, where the package that reads them is there."""
    from lucid.onnx.writer import to_onnx

    try:
        model = to_onnx(network(12, 10, 20).graph)
    except MissingPackageError:
        return {}
    return {"ONNX": Subject(model.SerializeToString(), _in_file(".onnx", import_onnx))}


@cache
def subjects() -> dict[str, Subject]:
    return _texts() | _files()


# -- changes --------------------------------------------------------------------------------------


def changed(draw: Draw, subject: Subject) -> bytes:
    """The subject after one to four changes."""
    data = bytearray(subject.data)
    for _ in range(draw.pick([1, 1, 2, 4])):
        if subject.text and draw.chance(0.7):
            data = bytearray(_changed_text(draw, data.decode("utf-8", "replace")).encode())
        else:
            _changed_bytes(draw, data)
    return bytes(data)


def _changed_text(draw: Draw, text: str) -> str:
    match draw.integer(0, 4):
        case 0:  # a number
            places = list(re.finditer(r"-?\d+(\.\d+)?", text))
            if places:
                at = draw.pick(places)
                return text[: at.start()] + draw.pick(NUMBERS) + text[at.end() :]
        case 1:  # a name for another
            names = re.findall(r"[%@]?[A-Za-z_][\w.]*", text)
            if names:
                one, other = draw.pick(names), draw.pick(names)
                return text.replace(one, other, draw.pick([1, 1, -1]))
        case 2:  # a line less, or twice
            lines = text.splitlines(keepends=True)
            at = draw.integer(0, max(0, len(lines) - 1))
            lines[at : at + 1] = lines[at : at + 1] * draw.pick([0, 2])
            return "".join(lines)
        case 3:
            at = draw.integer(0, len(text))
            return text[:at] + draw.pick(TOKENS) * draw.pick([1, 1, 1, 3000]) + text[at:]
    at = draw.integer(0, len(text))
    return text[:at] + text[draw.integer(at, min(len(text), at + 12)) :]


def _changed_bytes(draw: Draw, data: bytearray) -> None:
    size = len(data)
    at = draw.integer(0, max(0, size - 1))
    if draw.chance(0.5):
        at = min(at, draw.integer(0, 100))  # headers are at the start
    end = min(size, at + draw.pick([1, 2, 4, 8, 40]))
    match draw.integer(0, 5):
        case 0 if size:
            data[at] ^= 1 << draw.integer(0, 7)
        case 1:
            del data[at:]
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * draw.pick([1, 100])
        case 4:
            data[at:end] = bytes(draw.integer(0, 255) for _ in range(end - at))
        case _:
            data[at:end] = draw.pick([b"\xff" * 8, b"\0" * 8, b"\x7f" * 4])


def check_parser(seed: int, tally: Tally | None = None) -> Failure | None:
    """Read something damaged: that works, or raises an error of Lucid's."""
    tally = tally or Tally()
    draw = Draw(seed)
    tally.cases += 1
    name = draw.pick(list(subjects()))
    subject = subjects()[name]
    data = changed(draw, subject)
    try:
        subject.read(data)
    except LucidError:
        tally.refused += 1
    except Exception as problem:
        detail = f"{name}: {type(problem).__name__}: {str(problem)[:300]}"
        return Failure("parser", seed, detail)
    return None
