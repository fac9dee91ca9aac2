"""Sections of tensors, in the safetensors format: other tools can read them as well.

The header is padded so that the numbers begin at a multiple of ALIGNMENT in the section.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lucid.errors import WeightsError

if TYPE_CHECKING:
    from lucid.artifact.container import Container
    from lucid.ir.ops.base import Array

ALIGNMENT = 64
KINDS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
"""Kinds of numbers by the format's names for them, as NumPy writes them."""
NAMES = {np.dtype(kind): name for name, kind in KINDS.items()}


class Bytes(Protocol):
    """Where bytes are written."""

    def write(self, data: bytes | memoryview, /) -> None: ...


class Tensors(Mapping[str, "Array"]):
    """The tensors of a section, by name: read-only arrays that lie in the container.

    The section is checked when the first of them is read, or by `check`. Raises ModelFileError.
    `metadata`: what the section says besides, once it is checked.
    """

    def __init__(self, container: Container, section: str) -> None:
        self._container = container
        self._section = section
        self._rows: dict[str, Any] | None = None
        self._data = memoryview(b"")
        self.metadata: Mapping[str, str] = {}

    def check(self) -> dict[str, Any]:
        """Read the header; gives its rows. Raises ModelFileError."""
        if self._rows is None:
            section = self._container.read(self._section)
            try:
                start = 8 + int.from_bytes(section[:8], "little")
                rows = json.loads(bytes(section[8:start]))
                metadata = dict(rows.pop("__metadata__", None) or {})
                self._data = section[start:]
                for row in rows.values():
                    self._read(row)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
                self._container.fail(f"the tensors of {self._section!r} cannot be read ({problem})")
            self._rows, self.metadata = rows, metadata
        return self._rows

    def _read(self, row: Mapping[str, Any]) -> Array:
        start, end = row["data_offsets"]
        if not 0 <= start <= end <= len(self._data):
            raise ValueError(f"there are no bytes {start} to {end}")
        numbers = np.frombuffer(self._data[start:end], np.dtype(KINDS[row["dtype"]]))
        return numbers.reshape(row["shape"])

    def __getitem__(self, name: str) -> Array:
        row = self.check().get(name)
        if row is None:
            self._container.fail(f"there is no {name!r} among its {self._section!r}")
        return self._read(row)

    def __iter__(self) -> Iterator[str]:
        return iter(self.check())

    def __len__(self) -> int:
        return len(self.check())

    def __contains__(self, name: object) -> bool:
        return name in self.check()


class Chosen(Mapping[str, "Array"]):
    """Some of the tensors of a mapping, each of which is read when it is asked for."""

    def __init__(self, tensors: Mapping[str, Array], names: Iterable[str]) -> None:
        self._tensors, self._names = tensors, dict.fromkeys(names)

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


class Declared(Protocol):
    """What is known of a tensor before it is there."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...


class Declaration(NamedTuple):
    """Of a tensor that is made when it is written."""

    shape: tuple[int, ...]
    dtype: Any


class Layout(NamedTuple):
    """A section of tensors yet to be written: what it begins with, where in it each tensor begins
    and what its numbers are, and its bytes in all."""

    header: bytes
    places: Mapping[str, tuple[int, np.dtype[Any]]]
    size: int


def layout(declared: Mapping[str, Declared], metadata: Mapping[str, str] | None = None) -> Layout:
    """How tensors lie in a section, in the order of `declared`. Raises WeightsError for numbers
    that the format has no name for."""
    rows: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    places: dict[str, tuple[int, np.dtype[Any]]] = {}
    at = 0
    for name, tensor in declared.items():
        kind = np.dtype(str(tensor.dtype))
        if kind not in NAMES:
            raise WeightsError(f"{name} has numbers of the kind {kind}, which are not saved")
        end = at + int(np.prod(tensor.shape, dtype=np.int64)) * kind.itemsize
        rows[name] = {
            "dtype": NAMES[kind],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        places[name] = at, kind
        at = end
    text = json.dumps(rows).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    behind = {name: (len(header) + start, kind) for name, (start, kind) in places.items()}
    return Layout(header, behind, len(header) + at)


def write_tensors(
    sink: Bytes,
    declared: Mapping[str, Declared],
    values: Iterable[Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors; `values` gives them in the order of `declared`, each when it is written.

    Raises WeightsError for numbers that the format has no name for.
    """
    laid = layout(declared, metadata)
    sink.write(laid.header)
    for (name, (_, kind)), value in zip(laid.places.items(), values, strict=True):
        array = np.ascontiguousarray(np.asarray(value), kind)
        if array.size != np.prod(declared[name].shape, dtype=np.int64):
            raise WeightsError(
                f"{name} has the shape {list(array.shape)} and said {list(declared[name].shape)}"
            )
        if array.size:
            sink.write(array.reshape(-1).data)
