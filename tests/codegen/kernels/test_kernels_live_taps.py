"""The pieces of an axis whose windows have the same taps in the map."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.codegen.kernels.live_taps import AxisWindows

SIZES = [(0, 40), (1, 5), (0, 60), (1, 30), (1, 7), (1, 50)]


@given(st.tuples(*(st.integers(*bounds) for bounds in SIZES)))
def test_pieces_are_those_of_every_window(sizes: tuple[int, ...]) -> None:
    axis = AxisWindows(*sizes)
    starts = [i * axis.stride - axis.padding for i in range(axis.outputs)]
    live = [
        [t for t in range(axis.taps) if 0 <= start + t * axis.dilation < axis.size]
        for start in starts
    ]
    assert axis.pieces() == [(len(list(same)), len(taps)) for taps, same in groupby(live)]


@pytest.mark.parametrize("outputs", [1 << 40, 10**30])
def test_outputs_are_not_looked_at_one_by_one(outputs: int) -> None:
    axis = AxisWindows(outputs, 2, 3, 2, 3, 2 * outputs)
    assert axis.pieces() == [(1, 1), (1, 2), (outputs - 2, 3)]
