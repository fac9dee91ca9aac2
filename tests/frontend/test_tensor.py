"""Eager tensors: values, types, arithmetic, shapes, and exchange with other libraries."""

import numpy as np
import pytest

import lucid
from lucid import Tensor
from lucid.errors import InputError, ShapeError
from lucid.ir import TensorType

RNG = np.random.default_rng(0)
A = RNG.standard_normal((2, 3, 4)).astype(np.float32)
B = RNG.uniform(0.5, 2, (3, 1)).astype(np.float32)


def test_dtypes() -> None:
    assert Tensor([1.5, 2]).dtype == np.float32
    assert Tensor(A.astype(np.float64)).dtype == np.float64
    assert Tensor(A.astype(np.float16)).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.int64
    levels = Tensor(np.array([7, 255], np.uint8))
    assert levels.type == TensorType("u8", (2,))
    assert levels.float().numpy().tolist() == [7.0, 255.0]
    assert (Tensor(A) * 2.5).dtype == np.float32
    assert (2 + Tensor(A.astype(np.float64))).dtype == np.float64
    assert (Tensor(A.astype(np.float64)) + Tensor(A)).dtype == np.float64
    assert (Tensor([1, 2]) + 1).tolist() == [2, 3]
    assert Tensor(A).numpy() is A


@pytest.mark.parametrize("data", ["text", [[1], [1, 2]], object(), [1j]])
def test_what_is_no_tensor(data: object) -> None:
    with pytest.raises(InputError):
        Tensor(data)


def test_arithmetic() -> None:
    a, b = Tensor(A), Tensor(B)
    for ours, theirs in [
        (a + b, A + B),
        (a - B, A - B),
        (A - b, A - B),
        (A * b, A * B),
        (a / b, A / B),
        (2 / b, 2 / B),
        (1 - a, 1 - A),
        (-a, -A),
        (abs(a), np.abs(A)),
        (a @ A.transpose(0, 2, 1), A @ A.transpose(0, 2, 1)),
        (b.sqrt().rsqrt().exp(), np.exp(1 / np.sqrt(np.sqrt(B)))),
        (a.clamp(min=0), np.maximum(A, 0)),
        (a.sum(), A.sum()),
        (a.mean(-1), A.mean(-1)),
        (a.amax((0, 1), keepdim=True), A.max((0, 1), keepdims=True)),
    ]:
        assert isinstance(ours, Tensor)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5)
    kept = a
    a += 1
    assert kept.numpy() is A
    with pytest.raises(ShapeError):
        Tensor(A) + np.ones((5, 5), np.float32)


def test_comparisons_and_numbers() -> None:
    assert (Tensor(A) > 0).numpy().tolist() == (A > 0).tolist()
    assert bool(Tensor(A).sum() == Tensor(A).sum())
    assert bool(Tensor(A).sum() != 1000.0)
    assert Tensor(A) != None  # noqa: E711
    assert float(Tensor(2.5)) == 2.5
    assert int(Tensor([3])) == 3
    with pytest.raises(ValueError, match="ambiguous"):
        bool(Tensor(A))


def test_shapes() -> None:
    a = Tensor(A)
    assert (a.shape, a.ndim, a.size(1), a.numel(), len(a)) == ((2, 3, 4), 3, 3, 24, 2)
    assert a.reshape(6, -1).shape == (6, 4)
    assert a.view((4, 6)).shape == (4, 6)
    assert a.flatten().shape == (24,)
    assert a.flatten(1, 2).shape == (2, 12)
    assert Tensor(1.0).flatten().shape == (1,)
    assert a.unsqueeze(-1).squeeze(-1).shape == (2, 3, 4)
    assert a.unsqueeze(1).squeeze().shape == (2, 3, 4)
    np.testing.assert_array_equal(a.permute(2, 0, 1).numpy(), A.transpose(2, 0, 1))
    np.testing.assert_array_equal(a.transpose(0, -1).numpy(), A.swapaxes(0, -1))
    np.testing.assert_array_equal(a.expand(5, -1, -1, 4).numpy(), np.broadcast_to(A, (5, 2, 3, 4)))
    assert [part.shape for part in a.split(3, dim=2)] == [(2, 3, 3), (2, 3, 1)]
    assert [row.shape for row in a] == [(3, 4), (3, 4)]
    with pytest.raises(InputError, match="dim 3 is out of range"):
        a.sum(3)
    with pytest.raises(ShapeError):
        a.reshape(5, 5)


@pytest.mark.parametrize(
    "key",
    [
        (0,),
        (-1, slice(None), 2),
        (slice(None, None, 2), slice(1, 3)),
        (Ellipsis, 1),
        (None, 1, Ellipsis, None),
        (slice(-1, None), slice(-100, 100)),
        (np.int64(1),),
    ],
)
def test_indexing(key: tuple) -> None:
    np.testing.assert_array_equal(Tensor(A)[key].numpy(), A[key])


def test_indexing_beyond() -> None:
    for key in ([0, 1], A > 0, True, 1.5, "a", Tensor([0]), slice(None, None, -1)):
        with pytest.raises(InputError):
            Tensor(A)[key]
    for key in (2, (0, 0, 0, 0)):
        with pytest.raises(IndexError):
            Tensor(A)[key]


def test_exchange() -> None:
    np.testing.assert_array_equal(np.asarray(Tensor(A)), A)
    np.testing.assert_array_equal(np.from_dlpack(Tensor(A)), A)
    assert np.asarray(Tensor(A), np.float64).dtype == np.float64
    assert repr(Tensor([1.0])) == "Tensor([1.], shape=(1,), dtype=float32)"


def test_random() -> None:
    lucid.random.seed(3)
    first = lucid.random.randn(2, 3), lucid.random.rand((4, 5))
    lucid.random.seed(3)
    again = lucid.random.randn((2, 3)), lucid.random.rand(4, 5)
    for one, other in zip(first, again, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert first[0].shape == (2, 3)
    assert 0 <= first[1].numpy().min() <= first[1].numpy().max() < 1
    assert lucid.random.randn().shape == ()
    lucid.random.seed(0)
