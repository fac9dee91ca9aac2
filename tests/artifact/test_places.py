"""Tables of integers that are taken from packed weights: every packing that computes nothing can be
undone, and what says where a table lies is checked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lucid.artifact.places import Place, from_json, to_json
from lucid.codegen.kernels.packing import (
    Arrangement,
    FilterPairs,
    Flat,
    PairPanels,
    Panels,
    PanelsOfGroups,
    QuadPanels,
    TapPairs,
    Taps,
)

RANDOM = np.random.default_rng(5)
ARRANGEMENTS: dict[str, tuple[Arrangement, tuple[int, ...]]] = {
    "flat": (Flat(), (3, 4)),
    "panels": (Panels(2, 8), (30, 5, 3, 3)),
    "groups together": (PanelsOfGroups(2, 8, 2), (32, 4, 3, 3)),
    "pairs": (PairPanels(1, 16), (40, 6, 3, 2)),
    "pairs of lines": (PairPanels(3, 8, 3), (30, 4, 3, 5)),
    "odd pairs of taps": (FilterPairs(2, 8, 9), (18, 7, 3, 3)),
    "quads": (QuadPanels(1, 16), (17, 24)),
    "quads of groups": (QuadPanels(2, 8), (26, 8, 1, 1)),
    "taps": (Taps(), (9, 2, 3, 3)),
    "pairs of taps": (TapPairs(), (9, 1, 5, 3)),
    "pairs of inputs": (TapPairs(), (8, 4, 3, 3)),
}


def positions(packing: Arrangement, shape: tuple[int, ...]) -> np.ndarray:
    """Where each element lies first, found one by one."""
    count = int(np.prod(shape))
    out = np.zeros(packing.elements(shape), np.int64)
    packing.arrange(np.arange(1, count + 1).reshape(shape), out)
    return np.array([int(np.argmax(out == n)) for n in range(1, count + 1)]).reshape(shape)


@pytest.mark.parametrize("name", ARRANGEMENTS)
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_packing_is_undone(name: str, dtype: str) -> None:
    """From numbers of as many bits, and of more."""
    packing, shape = ARRANGEMENTS[name]
    found = Place.of("packed", "key", dtype, positions(packing, shape))
    assert found is not None
    assert from_json(to_json({"table": found})) == {"table": found}
    least = -128 if dtype == "i8" else 0
    table = RANDOM.integers(least, least + 256, shape).astype("int8" if dtype == "i8" else "uint8")
    for stored in (np.int8, np.int16, np.int32):
        packed = np.zeros(packing.elements(shape), np.int64)
        packing.pack(table, packed)
        taken = found.taken(packed.astype(stored))
        assert taken.dtype == table.dtype
        np.testing.assert_array_equal(taken, table)


def test_what_does_not_lie_axis_by_axis_has_no_place() -> None:
    assert Place.of("packed", "key", "i8", positions(PairPanels(1, 8), (8, 3, 3, 3))) is None
    assert Place.of("packed", "key", "i8", RANDOM.permutation(400).reshape(20, 20)) is None
    assert Place.of("packed", "key", "i8", np.arange(5)) is None
    assert Place.of("packed", "key", "i8", np.zeros((0, 4), int)) is None


PLACE = {
    "section": "packed",
    "weight": "key",
    "dtype": "i8",
    "shape": [3, 4],
    "first": 0,
    "axes": [[[1, 4]], [[1, 1]]],
}


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "f32"},
        {"dtype": ["i8"]},
        {"shape": [12]},
        {"shape": [3, 4, 1]},
        {"shape": [3, 4.0]},
        {"shape": 12},
        {"shape": [-3, -4]},
        {"shape": [0, 4]},
        {"first": 1e999},
        {"first": 1 << 80},
        {"axes": [[[1, 4]]]},
        {"axes": [[[0, 4]], [[1, 1]]]},
        {"axes": [[[1, 4, 2]], [[1, 1]]]},
        {"axes": [[[1, True]], [[1, 1]]]},
    ],
)
def test_places_that_make_no_sense(change: dict[str, object]) -> None:
    assert from_json(json.dumps({"table": PLACE}))
    with pytest.raises((ValueError, TypeError)):
        from_json(json.dumps({"table": PLACE | change}))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [3, 5]},
        {"shape": [1 << 40, 1 << 40]},
        {"first": 1},
        {"first": -1},
        {"axes": [[[1, 1 << 61]], [[1, 1 << 61]]]},
    ],
)
def test_tables_that_are_not_there(change: dict[str, object]) -> None:
    (whole,) = from_json(json.dumps({"table": PLACE})).values()
    (place,) = from_json(json.dumps({"table": PLACE | change})).values()
    np.testing.assert_array_equal(whole.taken(np.arange(12)).reshape(-1), np.arange(12))
    with pytest.raises(ValueError, match=r"there are only|are not among"):
        place.taken(np.arange(12))
    with pytest.raises(ValueError, match="float32"):
        whole.taken(np.zeros(12, np.float32))
