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


def place(packing: Arrangement, shape: tuple[int, ...], dtype: str = "i8") -> Place | None:
    """As numbers from 1 on tell it."""
    numbers = np.arange(1, int(np.prod(shape)) + 1).reshape(shape)
    out = np.zeros(packing.elements(shape), np.int64)
    packing.arrange(numbers, out)
    return Place.of("packed", "key", dtype, numbers, out)


@pytest.mark.parametrize("name", ARRANGEMENTS)
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_packing_is_undone(name: str, dtype: str) -> None:
    """From numbers of as many bits, and of more."""
    packing, shape = ARRANGEMENTS[name]
    found = place(packing, shape, dtype)
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
    numbers = np.arange(1, 401).reshape(20, 20)
    swapped = np.where(numbers == 399, 400, np.where(numbers == 400, 399, numbers))
    assert place(PairPanels(1, 8), (8, 3, 3, 3)) is None
    for packed in (RANDOM.permutation(400) + 1, swapped.reshape(-1), np.arange(1, 400)):
        assert Place.of("packed", "key", "i8", numbers, packed) is None
    assert Place.of("packed", "key", "i8", np.arange(1, 6), np.arange(1, 6)) is None
    assert Place.of("packed", "key", "i8", np.zeros((0, 4), int), np.arange(5)) is None
    assert Place.of("packed", "key", "i8", numbers, np.zeros(0, int)) is None


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
        {"axes": [[[1, 4]], [[1, 1]] * 7]},
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
