"""The contents of a compiled model's file: graphs by image size, tensors, and the packed weights
and object code of each target.

The manifest is JSON that names the other sections. Nothing here is code, and nothing is run.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import lucid.ir
from lucid.artifact import places
from lucid.artifact.container import Container
from lucid.artifact.tensors import Tensors
from lucid.errors import LucidError, ModelFileError
from lucid.ir.structure import Structure
from lucid.ir.types import BATCH, DTYPES, TensorType, batch_of
from lucid.sources_hash import sources_hash

if TYPE_CHECKING:
    from lucid.artifact.places import Place
    from lucid.ir.graph import Graph
    from lucid.ir.ops.base import Array
    from lucid.ir.types import Shapes

MANIFEST, TENSORS = "manifest", "tensors"
"""Sections that every artifact has."""
PLACES = "places"
"""The section that says where tables lie which are not among the tensors."""
SUFFIX = ".lucid"
WEIGHTS = ("compact", "packed", "plain", "both")
"""How weights are held: as the kernels of a target read them, the same with less of what follows
from fewer numbers, as the model has them, or packed and as the model has them."""
PLAIN = ("plain", "both")
"""Those of them with the weights as the model has them."""

KINDS = {
    **dict.fromkeys(("made_by", "kernels", "state", "metadata", "structure"), dict),
    **dict.fromkeys(("dtypes", "disable", "input_shapes", "tables", "constants"), list),
    **dict.fromkeys(("sizes", "targets"), list),
    "any_size": bool,
}
"""What JSON gives for the fields of a manifest that are no text."""

T = TypeVar("T")


@functools.cache
def ir_hash() -> str:
    """A hash of the sources of `lucid.ir`: other passes make other graphs."""
    return sources_hash(lucid.ir.__path__[0])


ir_hash()  # now, while the sources are those that were imported


@dataclass(frozen=True)
class ForTarget:
    """What was made for one target.

    `caches`: the sizes of caches and lines that schedules were chosen for, and `half_units`.
    `schedules`: choices by the shapes of the inputs, as JSON. `packed`, `objects`, `programs`:
    sections of packed weights, of object code and of the programs' tables, which only the same
    Lucid reads; `taps`: of those that packed weights are yet to be made of.
    """

    name: str
    caches: dict[str, int]
    schedules: list[tuple[Shapes, str]]
    packed: str | None = None
    objects: str | None = None
    programs: str | None = None
    taps: str | None = None


@dataclass(frozen=True)
class Size:
    """The inputs of a graph: their shapes for one image, and their `types`, which say for what
    other shapes it serves; and the sections with the graph before the passes and after them."""

    shapes: Shapes
    types: tuple[str, ...]
    captured: str
    fused: str

    @cached_property
    def input_types(self) -> list[TensorType]:
        """Raises ParseError."""
        return list(map(TensorType.parse, self.types))


@dataclass(frozen=True)
class Manifest:
    """What stands in the section `manifest`.

    `made_by`: versions and hashes of what wrote the file. `dtypes`: of the inputs, in order, and
    `input_shapes` those of the first plan. `state`: shapes of
    the tensors that `load_weights` takes, by name; `tables` those of integers, which may not
    change, and `constants` what else the graphs read. `any_size`: whether the graph of one image
    size tells that of all others. `structure`: how outputs are put together, as JSON of a
    `Structure`; empty for one as it is and several as a tuple. `weights`: which of them the file
    holds, one of WEIGHTS. `metadata`: the user's.
    """

    made_by: dict[str, str]
    name: str
    dtypes: list[str]
    precision: str
    kernels: dict[str, str]
    chosen_by: str
    disable: list[str]
    input_shapes: Shapes
    any_size: bool
    state: dict[str, tuple[int, ...]]
    tables: list[str]
    constants: list[str]
    sizes: list[Size]
    targets: list[ForTarget]
    metadata: dict[str, Any] = field(default_factory=dict)
    weights: str = "both"
    structure: dict[str, Any] = field(default_factory=dict)

    @property
    def has_plain(self) -> bool:
        """Whether the file has the weights as the model has them."""
        return self.weights in PLAIN

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Manifest:
        """The inverse of `to_json`. Raises ValueError, TypeError, KeyError, AttributeError,
        OverflowError."""
        row = _upgraded(json.loads(text))
        plain = {f.name: row[f.name] for f in fields(Manifest)}
        for name, value in plain.items():
            wanted = KINDS.get(name, str)
            if type(value) is not wanted:
                raise ValueError(f"{name} is no {wanted.__name__}")
        if not all(isinstance(name, str) for name in (*plain["tables"], *plain["constants"])):
            raise ValueError("tables and constants are not all names")
        if not all(name in DTYPES for name in plain["dtypes"]):
            raise ValueError(f"the dtypes of inputs are {plain['dtypes']!r}")
        if len(plain["dtypes"]) != len(plain["input_shapes"]):
            raise ValueError("there are not as many shapes of inputs as dtypes")
        if plain["weights"] not in WEIGHTS:
            raise ValueError(f"weights is one of {', '.join(WEIGHTS)}, not {plain['weights']!r}")
        if plain["structure"]:
            Structure.from_json(plain["structure"])
        return Manifest(
            **plain
            | {
                "input_shapes": _shapes(row["input_shapes"]),
                "state": {n: _shape(s) for n, s in row["state"].items()},
                "sizes": [
                    Size(
                        _shapes(s["shapes"]),
                        tuple(str(TensorType.parse(t)) for t in s["types"]),
                        str(s["captured"]),
                        str(s["fused"]),
                    )
                    for s in row["sizes"]
                ],
                "targets": [_for_target(t) for t in row["targets"]],
            }
        )


def _upgraded(row: dict[str, Any]) -> dict[str, Any]:
    """The fields as they are now: the first version had no choice of weights, the first two had one
    input, and the first three had the batch in front of all inputs."""
    row = {"weights": "both", "structure": {}} | row
    if "input_shape" in row:
        row |= {
            "dtypes": [row["dtype"]],
            "input_shapes": [row["input_shape"]],
            "sizes": [size | {"shapes": [[1, *size["image"]]]} for size in row["sizes"]],
            "targets": [
                target | {"schedules": [([shape], chosen) for shape, chosen in target["schedules"]]}
                for target in row["targets"]
            ],
        }
    return row | {
        "sizes": [{"types": _batched(row["dtypes"], s["shapes"])} | s for s in row["sizes"]]
    }


def _batched(dtypes: list[str], shapes: list[list[int]]) -> list[str]:
    """The types of inputs with the batch in front."""
    pairs = zip(dtypes, shapes, strict=True)
    return [str(TensorType(kind, (BATCH, *shape[1:]))) for kind, shape in pairs]


def _shapes(rows: Any) -> Shapes:
    if not isinstance(rows, list):
        raise ValueError(f"{rows!r} are no shapes")
    return tuple(map(_shape, rows))


def _shape(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"{numbers!r} is no shape")
    return tuple(numbers)


def _for_target(row: Mapping[str, Any]) -> ForTarget:
    schedules = [(_shapes(shapes), str(text)) for shapes, text in row["schedules"]]
    caches = {str(name): int(size) for name, size in row["caches"].items()}
    sections = row["packed"], row["objects"], row.get("programs"), row.get("taps")
    return ForTarget(str(row["name"]), caches, schedules, *sections)


class PlainTensors(Mapping[str, "Array"]):
    """The tensors of the model, as it has them; of tables that lie in packed weights a copy, which
    is made each time. Raises ModelFileError for one that the file holds packed only, or that is no
    such tensor as its graphs read."""

    def __init__(self, container: Container, manifest: Manifest) -> None:
        self._container, self._manifest = container, manifest
        self._types: Mapping[str, TensorType] = {}
        self._held = Tensors(container, TENSORS)
        self._packed: dict[str, Tensors] = {}
        self._read_places: Mapping[str, Place] | None = None

    @property
    def _places(self) -> Mapping[str, Place]:
        if self._read_places is None:
            self._read_places = self._checked_places()
        return self._read_places

    def _checked_places(self) -> Mapping[str, Place]:
        container = self._container
        if PLACES not in container.sections:
            return {}
        found = _understood(container, PLACES, places.from_json)
        twice = next((name for name in found if name in self._held), None)
        if twice is not None or self._manifest.has_plain:
            container.fail(f"it has {twice or 'plain tensors'} and, in {PLACES!r}, where they lie")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter((*self._held, *self._places))

    def __len__(self) -> int:
        return len(self._held) + len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._held or name in self._places

    def expect(self, types: Mapping[str, TensorType]) -> None:
        """Check tensors from now on: those that a graph reads, by name."""
        self._types = {**self._types, **types}

    def __getitem__(self, name: str) -> Array:
        array, wanted = self._stored(name), self._types.get(name)
        if wanted is None:
            return array
        shape = wanted.concrete(1)
        # Constants are called by their bytes: two sizes may have one in two shapes.
        exact = name in self._manifest.state or name in self._places
        if not _fits(array, wanted) or (exact and array.shape != shape):
            has = f"{array.dtype} of the shape {list(array.shape)}"
            self._container.fail(f"its graphs read {name} as {wanted}, and it holds {has}")
        return array.reshape(shape)

    def _stored(self, name: str) -> Array:
        place = self._places.get(name)
        if place is not None:
            return self._table(name, place)
        if not self._manifest.has_plain and name not in self._held:
            raise ModelFileError(
                f"{self._container.origin}: {without_plain(self._manifest)}; what is asked for "
                f"needs {name} as the model has it: save the model with weights='both' (`lucid "
                "compile --stored-weights both`), or, for a call with inputs of another size, "
                "`prepare` it for that size before it is saved"
            )
        return self._held[name]

    def _table(self, name: str, place: Place) -> Array:
        empty = Tensors(self._container, place.section)  # not yet read
        packed = self._packed.setdefault(place.section, empty)
        try:
            return place.taken(packed[place.weight])
        except ValueError as problem:
            self._container.fail(f"{name} does not lie in its {place.section!r} ({problem})")


def _fits(array: Array, wanted: TensorType) -> bool:
    """Whether an array has as many numbers as a tensor, and of its kind, in any number of bits."""
    kind = DTYPES[wanted.dtype].kind
    kinds = kind if kind == "f" else "biu"
    return array.size == prod(wanted.concrete(1)) and array.dtype.kind in kinds


def _understood(container: Container, section: str, read: Callable[[str], T]) -> T:
    """What `read` makes of a section's text. Its checksum is right, so that what cannot be read
    was written by another version. Raises ModelFileError."""
    data = bytes(container.read(section))
    try:
        return read(data.decode())
    except (
        LucidError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
    ) as problem:
        container.fail(f"this version of Lucid cannot read its {section} ({problem})")
    except RecursionError:
        container.fail(f"its {section} is nested too deeply")


def without_plain(manifest: Manifest) -> str:
    """What a message says of a file with packed weights alone."""
    targets = ", ".join(target.name for target in manifest.targets)
    version = manifest.made_by.get("lucid", "unknown")
    return f"holds its weights only as packed for {targets} by Lucid {version}"


class Artifact:
    """An artifact that is open. Raises ModelFileError, and OSError as it is opened."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.manifest: Manifest = _understood(container, MANIFEST, Manifest.from_json)
        self.payload = PlainTensors(container, self.manifest)
        if not self.manifest.sizes:
            container.fail("it holds no graph")
        if TENSORS not in container.sections:
            container.fail("it has no tensors")

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Artifact:
        return Artifact(Container.open(path))

    def size(self, shapes: Shapes) -> Size | None:
        """The entry whose graph serves inputs of these shapes, where the file has one."""
        sizes = self.manifest.sizes
        return next((s for s in sizes if batch_of(s.input_types, shapes) is not None), None)

    def captured(self, shapes: Shapes) -> Graph:
        """The graph before any pass, of a size that the file has."""
        size = self.size(shapes)
        assert size is not None, shapes
        return self._graph(size.captured)

    def fused(self, shapes: Shapes) -> Graph | None:
        """The graph after all passes; None where the file has none that these passes have made."""
        size = self.size(shapes)
        if size is None or self.manifest.made_by.get("ir") != ir_hash():
            return None
        return self._graph(size.fused)

    def _graph(self, section: str) -> Graph:
        from lucid.ir.text import parse_graph
        from lucid.ir.verify import verify

        def read(text: str) -> Graph:
            graph = parse_graph(text)
            verify(graph)
            if graph.input_dtypes() != self.manifest.dtypes:
                raise ValueError(f"its inputs are {graph.inputs}")
            self._require_listed(graph)
            return graph

        graph = _understood(self.container, section, read)
        self.payload.expect({name: source.type for name, source in graph.sources().items()})
        graph.payload = self.payload
        return graph

    def _require_listed(self, graph: Graph) -> None:
        """Raises ValueError where the manifest lacks what a graph reads, or has another shape."""
        state, others = self.manifest.state, {*self.manifest.constants, *self.manifest.tables}
        for name, source in graph.sources().items():
            shape = source.type.concrete(1)
            if state[name] != shape if name in state else name not in others:
                raise ValueError(
                    f"it reads {name} as {source.type}, which its manifest does not list so"
                )
