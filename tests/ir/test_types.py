"""Types: dimensions, shapes with the batch in them, and their text."""

import pytest

from lucid.errors import ParseError, ShapeError
from lucid.ir import BATCH, Dim, TensorType, f32
from lucid.ir.types import broadcast, concrete, parse_dim, sizes_text, volume

N = BATCH


def test_dimensions():
    assert 3 * N == N * 3 == Dim(3)
    assert [str(d) for d in (N, 2 * N, Dim(1, "B"))] == ["N", "2N", "B"]
    assert [parse_dim(t) for t in ("N", "2N", "7", " B ")] == [N, 2 * N, 7, Dim(1, "B")]
    for text in ("", "-1", "N2x!", "2.0"):
        with pytest.raises(ParseError, match="is not a dimension"):
            parse_dim(text)


def test_sizes_of_inputs():
    assert sizes_text([(1, 3, 8, 8), ()]) == "1x3x8x8, scalar"


def test_types():
    kind = f32(N, 3, 2 * N)
    assert str(kind) == "f32[N,3,2N]"
    assert TensorType.parse(str(kind)) == kind
    assert TensorType.parse("i64[]") == TensorType("i64", ())
    assert str(TensorType.parse("u8[N,4]")) == "u8[N,4]"
    assert kind.concrete(4) == concrete(kind.shape, 4) == (4, 3, 8)
    assert kind.with_shape((1,)) == f32(1)
    assert kind.rank == 3
    for text in ("f32", "f8[2]", "f32[2", "f32[a b]"):
        with pytest.raises(ParseError):
            TensorType.parse(text)


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ((), (), ()),
        ((), (N, 2), (N, 2)),
        ((2,), (N, 1), (N, 2)),
        ((1, 4), (N, 1), (N, 4)),
        ((N, 3), (N, 3), (N, 3)),
    ],
)
def test_broadcasting(a, b, result):
    assert broadcast(a, b) == broadcast(b, a) == result


@pytest.mark.parametrize(("a", "b"), [((2,), (3,)), ((N,), (2,)), ((N,), (2 * N,)), ((N, 2), (N,))])
def test_what_cannot_be_broadcast(a, b):
    with pytest.raises(ShapeError, match="cannot be broadcast"):
        broadcast(a, b)


def test_volume():
    assert volume((2, 3)) == (6, ())
    assert volume((2 * N, 3, Dim(1, "B"))) == (6, ("B", "N"))
    assert volume(()) == (1, ())
