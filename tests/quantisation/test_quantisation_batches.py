"""Calibration data: what is taken, how often it is read, and what is refused."""

from collections.abc import Iterator

import numpy as np
import pytest

from lucid.errors import InputError
from lucid.frontend.sources import GivenGraph
from lucid.ir.text import parse_graph
from lucid.quantisation import batches as module
from lucid.quantisation.batches import ROWS, Batches

ONE = parse_graph("""graph net(%x: f32[N,3,4,4]) -> f32[N,3,4,4] {
  %y = relu(%x) : f32[N,3,4,4]
  return %y
}""")
TWO = parse_graph("""graph net(%a: f32[N,2], %b: f32[N,2]) -> f32[N,2] {
  %y = add(%a, %b) : f32[N,2]
  return %y
}""")
A, B = (np.full((2, 2), v, np.float32) for v in (1, 2))
X = np.arange(20 * 48, dtype=np.float32).reshape(20, 3, 4, 4)


def reading(given: object, graph=ONE) -> Batches:
    data = Batches(given, lambda what, done, total: None)
    data.first()
    data.suit(graph, GivenGraph(graph))
    return data


def rows(data: Batches) -> np.ndarray:
    return np.concatenate([arrays[0] for arrays in data.passes("testing")])


def generated(*batches: np.ndarray) -> Iterator[np.ndarray]:
    yield from batches


@pytest.mark.parametrize(
    "given",
    [[X[:7], X[7:]], X, [X], (X[:1], X[1:]), lambda: generated(X[:3], X[3:])],
    ids=["list", "array", "one", "tuple", "generator"],
)
def test_every_pass_sees_all_of_it(given: object) -> None:
    data = reading(given() if callable(given) else given)
    for _ in range(3):
        np.testing.assert_array_equal(rows(data), X)


def test_batches_go_in_pieces_of_a_few_rows() -> None:
    sizes = [len(arrays[0]) for arrays in reading([X]).passes("testing")]
    assert sum(sizes) == 20
    assert max(sizes) <= ROWS
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "batch", [(A, B), [A, B], {"b": B, "a": A}], ids=["tuple", "list", "mapping"]
)
def test_several_inputs(batch: object) -> None:
    ((a, b),) = reading([batch], TWO).passes("testing")
    np.testing.assert_array_equal(a, A)
    np.testing.assert_array_equal(b, B)


def test_of_an_iterator_a_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3 * X[:4].nbytes)
    data = reading(generated(*np.split(X, 5)))
    assert len(rows(data)) == 20
    assert len(rows(data)) == len(rows(data)) == 12


def test_what_is_told_of_the_progress() -> None:
    told: list[tuple[str, int, int]] = []
    data = Batches([X[:4], X[4:8]], lambda *step: told.append(step))
    data.first()
    data.suit(ONE, GivenGraph(ONE))
    assert len(list(data.passes("testing"))) == 2
    assert told == [("testing", 1, 2), ("testing", 2, 2)]


class Once:
    """Says that it can be read again, and cannot."""

    def __init__(self) -> None:
        self.left = [X]

    def __iter__(self) -> Iterator[np.ndarray]:
        while self.left:
            yield self.left.pop()


def test_data_that_ends_without_being_an_iterator() -> None:
    data = reading(Once())
    assert len(rows(data)) == 20
    with pytest.raises(InputError, match="has none now: give a list"):
        rows(data)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "batches is empty"),
        (iter(()), "batches is empty"),
        (7, "an iterable of arrays .* got an int"),
        ("images/", "an iterable of arrays .* got a str"),
        ({"x": X}, "an iterable of arrays .* got a dict"),
        (None, "got a NoneType"),
    ],
)
def test_what_is_no_data(given: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        reading(given)


NAN, INF = X.copy(), X.copy()
NAN[3, 1, 2, 3] = np.nan
INF[0, 0, 0, 0] = -np.inf


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (X[:, :2], r"batch 1 .*x wants|batch 1 .*is f32\[N,3,4,4\]"),
        (X[0], "batch 1 .*"),
        (X.transpose(0, 2, 3, 1), "batch 1 .*"),
        (X.astype(np.float64), "batch 1 .*float64"),
        (X.astype(np.uint8), "batch 1 .*uint8"),
        (X.astype(str), "batch 1"),
        ((X, np.zeros(20)), "batch 1 .*takes 1 input .*got 2 by position"),
        ({"z": X}, "batch 1 .*takes 1 input"),
        (NAN, "batch 1 .*x holds nan"),
        (INF, "batch 1 .*x holds -inf"),
        (X[:0], "batch 1 .*empty"),
        (None, "batch 1"),
    ],
)
def test_batches_that_do_not_fit(batch: object, says: str) -> None:
    data = reading([X, batch])
    with pytest.raises(InputError, match=says):
        list(data.passes("testing"))
