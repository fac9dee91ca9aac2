"""Data beside the nodes of a graph: times, physical layouts, the memory plan."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lucid.errors import ParseError
from lucid.view.picture import Box, Picture


@dataclass(frozen=True)
class Timing:
    """What one kernel took; `origin` is a module path."""

    origin: str
    milliseconds: float


@dataclass(frozen=True)
class Buffer:
    """A buffer of the arena, sizes in bytes, alive from phase `first` to `last`."""

    name: str
    offset: int
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """The arena, in bytes, over all phases of a program."""

    size: int
    phases: int
    buffers: tuple[Buffer, ...]


def read_profile(text: str) -> list[Timing]:
    """The rows of a profile in JSON: a list of rows, or an object with such a list, each with an
    `origin` and `ms` or `milliseconds`. Raises ParseError."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ParseError(f"a profile is JSON: {error}") from error
    lists = [data, *(data.values() if isinstance(data, dict) else ())]
    rows = next((found for found in map(_timings, lists) if found), [])
    if not rows:
        raise ParseError("a profile is a list of rows with `origin` and `ms`; there is none here")
    return rows


def _timings(data: Any) -> list[Timing]:
    """The rows that have an origin and a time; none where `data` is no list of rows."""
    found = []
    for row in data if isinstance(data, list) else ():
        if isinstance(row, dict) and isinstance(row.get("origin"), str):
            time = row.get("ms", row.get("milliseconds"))
            if isinstance(time, int | float):
                found.append(Timing(row["origin"], float(time)))
    return found


def with_times(drawn: Picture, rows: Iterable[Timing]) -> Picture:
    """The picture with the time of each box: that of the rows of its origin, or of the modules it
    was fused from. Of boxes with the same origin the one that does the work is given it."""
    owner = _owners(drawn)
    total: dict[str, float] = {}
    for row in rows:
        if row.origin in owner:
            name = owner[row.origin]
            total[name] = total.get(name, 0) + row.milliseconds
    boxes = (replace(b, milliseconds=total.get(b.id)) for b in drawn.boxes)
    return Picture(drawn.name, tuple(boxes))


def _owners(drawn: Picture) -> dict[str, str]:
    """The box that does the work of each origin."""
    owner: dict[str, str] = {}
    for box in sorted(drawn.boxes, key=_work):
        for origin in (*(p.origin for p in box.parts), box.origin):
            owner.setdefault(origin, box.id)
    return owner | {
        b.origin: b.id for b in sorted(drawn.boxes, key=_work, reverse=True) if b.origin
    }


@dataclass(frozen=True)
class Ratio:
    """How far the result of a quantised layer is off: signal to noise in decibels; `origin` is a
    module path."""

    origin: str
    decibels: float


def read_noise(text: str) -> list[Ratio]:
    """The layers of a report in JSON, as `lucid quantize --json` writes it. Raises ParseError."""
    try:
        data = json.loads(text)
        found = [Ratio(row["origin"], _decibels(row["snr"])) for row in data["layers"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ParseError(
            "a report of noise is what `lucid quantize --json` writes: an object with `layers`, "
            "each with `origin` and `snr`"
        ) from error
    return found


def _decibels(told: float | None) -> float:
    return math.inf if told is None else float(told)


def with_ratios(drawn: Picture, rows: Iterable[Ratio]) -> Picture:
    """The picture with the signal-to-noise ratio of each layer: of each row's origin the box that
    does the work, or that was fused from it."""
    owner = _owners(drawn)
    known = {owner[row.origin]: row.decibels for row in rows if row.origin in owner}
    boxes = (replace(b, decibels=known.get(b.id)) for b in drawn.boxes)
    return Picture(drawn.name, tuple(boxes))


def _work(box: Box) -> int:
    """The less, the more likely a kernel is this box's: what multiplies comes first."""
    families = ("convolution", "linear", "attention", "pooling", "reduction", "normalization")
    return families.index(box.kind) if box.kind in families else len(families)


def with_layouts(drawn: Picture, layouts: Mapping[str, str]) -> Picture:
    """The picture with the physical layout of each value that has one, such as `NHWC`, told with
    its type, whose sizes stand in that order. `layouts`: by the name of the value."""

    def told(box: Box) -> Sequence[str]:
        first, *others = box.results
        layout = layouts[box.id]
        return (f"{_permuted(first, layout)} {layout}", *others)

    boxes = (
        replace(b, results=tuple(told(b))) if b.id in layouts and b.results else b
        for b in drawn.boxes
    )
    return Picture(drawn.name, tuple(boxes))


def with_host(drawn: Picture, names: Collection[str]) -> Picture:
    """The picture with `host` beside the types of values that are computed on the host. `names`: of
    the values."""
    boxes = (
        replace(b, results=tuple(f"{kind} host" for kind in b.results)) if b.id in names else b
        for b in drawn.boxes
    )
    return Picture(drawn.name, tuple(boxes))


def _permuted(kind: str, layout: str) -> str:
    """A type `f32[N,C,H,W]` with its sizes in the order of a layout."""
    dtype, _, sizes = kind.removesuffix("]").partition("[")
    named = dict(zip("NCHW", sizes.split(","), strict=True))
    return f"{dtype}[{','.join(named[axis] for axis in layout)}]"
