"""Packed weights in a file: those of one target, what loading makes panels of, and which tables of
integers need not be there a second time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.artifact.places import TABLES, Place
from lucid.artifact.tensors import Declaration, write_tensors
from lucid.codegen.kernels.filter_transform import FilterTransform
from lucid.codegen.kernels.packing import Arrangement, Packed, Winograd
from lucid.codegen.kernels.winograd_panels import TAPS
from lucid.codegen.language.dtypes import dtype
from lucid.ir import recipe
from lucid.ir.ops.base import Array
from lucid.ir.ops.shape import Concat, Expand, Permute, Reshape, Slice
from lucid.ir.recipe import Apply, Recipe, Source
from lucid.ir.types import INTEGERS
from lucid.runtime.stored import packed_key, padded
from lucid.runtime.weights import WeightStore

if TYPE_CHECKING:
    from lucid.artifact.container import Writer
    from lucid.artifact.contents import ForTarget

REARRANGED = (Reshape, Permute, Concat, Slice, Expand)
"""Ops that only move numbers, and add none."""


def write_packed(
    writer: Writer,
    made: ForTarget,
    used: Iterable[Packed],
    payload: Mapping[str, Any],
    store: WeightStore | None,
    transforms: Mapping[str, str],
) -> None:
    """Write the weights that programs use, which are packed in `store` or, without one, now; or
    what loading makes them of, and by which code: its keys, by its names."""
    weights = {packed_key(w): w for w in used}
    if made.taps:
        panels = {key: w for key, w in weights.items() if has_taps(w)}
        _write_taps(writer, made.taps, panels, payload, store, transforms)
        weights = {key: w for key, w in weights.items() if key not in panels}
    declared = {
        key: Declaration((padded(w),), str(dtype(w.dtype).storage)) for key, w in weights.items()
    }
    assert made.packed is not None
    with writer.section(made.packed) as sink:
        write_tensors(sink, declared, (packed_array(w, payload, store) for w in weights.values()))


def has_taps(packed: Packed) -> bool:
    """Whether a weight is panels that loading makes of fewer numbers."""
    return _winograd(packed) is not None


def _winograd(packed: Packed) -> Winograd | None:
    """How panels that loading makes are packed; None of other weights."""
    packing = packed.packing
    if not isinstance(packing, Winograd) or packed.recipe is None:
        return None
    return packing if packing.dtype == packed.dtype else None


def transforms_of(weights: Iterable[Packed]) -> list[FilterTransform]:
    """The kernels that make those of the weights that are panels."""
    made = (FilterTransform(p.m, w.dtype) for w in weights if (p := _winograd(w)) is not None)
    return list(dict.fromkeys(made))


def _write_taps(
    writer: Writer,
    section: str,
    panels: Mapping[str, Packed],
    payload: Mapping[str, Any],
    store: WeightStore | None,
    transforms: Mapping[str, str],
) -> None:
    """Write what panels are made of, [panel][tap][column], the m of each, and the keys of the code
    that makes them."""
    declared: dict[str, Declaration] = {}
    metadata = dict(transforms)
    made_of: list[Packed] = []
    for key, packed in panels.items():
        packing = _winograd(packed)
        assert packing is not None
        taps = _taps_of(packed, packing)
        columns = packing.columns(packed.shape)
        shape = taps.elements // (TAPS * columns), TAPS, columns
        declared[key] = Declaration(shape, str(dtype(taps.dtype).storage))
        metadata[key] = str(packing.m)
        made_of.append(taps)
    kept = [store.taps(w) if store is not None else None for w in panels.values()]
    values = (
        array if array is not None else packed_array(taps, payload, None)[: taps.elements]
        for array, taps in zip(kept, made_of, strict=True)
    )
    with writer.section(section) as sink:
        write_tensors(sink, declared, values, metadata)


def _taps_of(packed: Packed, packing: Winograd) -> Packed:
    """What panels are made of: integers of eight bits as such."""
    assert packed.recipe is not None
    fits = packing.dtype == "i16" and packed.recipe.type.dtype == "i8"
    return dataclasses.replace(packed, packing=packing.taps, dtype="i8" if fits else packed.dtype)


def packed_array(packed: Packed, payload: Mapping[str, Any], store: WeightStore | None) -> Array:
    """A packed weight, with zeros up to its padded length."""
    out = np.zeros(padded(packed), dtype(packed.dtype).storage)
    if store is not None:
        out[: packed.elements] = store.array(packed)
    elif packed.recipe is not None:
        value = recipe.evaluate(packed.recipe, lambda name: np.asarray(payload[name]))
        packed.pack(value, out[: packed.elements])
    return out


# -- tables that lie in packed weights ------------------------------------------------------------


def places_of(
    names: Collection[str], written: Iterable[tuple[ForTarget, Iterable[Packed]]]
) -> dict[str, Place]:
    """Where those of the tables lie in the sections of packed weights of a file that do, by their
    names; `written`: its targets, and what programs for each use."""
    found: dict[str, Place] = {}
    for made, used in written:
        for packed in dict.fromkeys(used):
            section, packing = made.packed, packed.packing
            winograd = _winograd(packed) if made.taps else None
            if winograd is not None:
                section, packing = made.taps, winograd.taps
            made_of = packed.recipe
            if section is None or made_of is None or not isinstance(packing, Arrangement):
                continue
            if packed.dtype not in INTEGERS or not _is_rearranged(made_of):
                continue
            tables = [t for t in recipe.sources(made_of) if t.name in names and t.name not in found]
            for table, *numbered in _numbered(packed, packing, tables):
                place = Place.of(section, packed_key(packed), table.type.dtype, *numbered)
                if place is not None:
                    found[table.name] = place
    return found


def _is_rearranged(made_of: Recipe) -> bool:
    """Whether a recipe has the integers of tables, and nothing else."""
    match made_of:
        case Source():
            return made_of.type.dtype in TABLES
        case Apply(op, parts):
            return isinstance(op, REARRANGED) and all(map(_is_rearranged, parts))
    return False


def _numbered(
    packed: Packed, packing: Arrangement, tables: Sequence[Source]
) -> Iterator[tuple[Source, Array, Array]]:
    """Each of the tables with numbers from 1 on in the place of its integers, and the packed weight
    as those of all tables of its recipe come to lie in it: 8 bytes for each integer."""
    assert packed.recipe is not None
    if not tables:
        return
    numbers: dict[str, Array] = {}
    end = 1
    for table in recipe.sources(packed.recipe):
        shape = table.type.concrete(1)
        first, end = end, end + prod(shape)
        numbers[table.name] = np.arange(first, end, dtype=np.int32).reshape(shape)
    value = recipe.evaluate(packed.recipe, numbers.__getitem__).reshape(packed.shape)
    out = np.zeros(packing.elements(packed.shape), np.int32)
    packing.arrange(value, out)
    for table in tables:
        yield table, numbers[table.name], out
