"""What a compiled model takes and gives: every kind of array, and an error for all the rest."""

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.errors import InputError, TraceError
from lucid.runtime import arrays


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 4, 5)

    def forward(self, image):
        return nn.functional.relu(self.conv(image))


@pytest.fixture(scope="module")
def fast() -> lucid.CompiledModel:
    return lucid.compile(Net(), (1, 3, 12, 12), threads=1)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)


WANTED = r"image wants f32\[N,3,12,12\] \(float32, 4 dimensions\), got "


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (
            np.zeros((1, 3, 12, 12)),
            r"float64\[1,3,12,12\]; convert it with x.astype\(np.float32\)$",
        ),
        (np.zeros((1, 3, 12, 12), np.uint8), r"uint8\[1,3,12,12\]; convert"),
        (np.zeros((1, 3, 12, 12), ">f4"), r">f4\[1,3,12,12\]; convert"),
        (np.zeros((3, 12, 12), np.float32), r"float32\[3,12,12\]: .*missing: give x\[None\]$"),
        (np.zeros((3, 9, 9), np.float32), r"float32\[3,9,9\]: .*missing: give x\[None\]$"),
        (np.zeros((12,), np.float32), r"float32\[12\]: .*conv2d: x must be \(N, C"),
        (np.zeros((1, 12, 12, 3), np.float32), r".*give x.transpose\(0, 3, 1, 2\), or .*nhwc'"),
        (np.zeros((2, 20, 30, 3), np.float32), r".*give x.transpose\(0, 3, 1, 2\), or .*nhwc'"),
        (np.zeros((12, 12, 3), np.float32), r".*give x.transpose\(2, 0, 1\)\[None\], or "),
        (np.zeros((1, 1, 3, 12, 12), np.float32), r"float32\[1,1,3,12,12\]: .*conv2d: x must be"),
        (np.zeros((1, 4, 12, 12), np.float32), r"float32\[1,4,12,12\]: .*x has 4 channels, but"),
        (np.zeros((0, 4, 12, 12), np.float32), r"float32\[0,4,12,12\]: .*x has 4 channels, but"),
        (
            np.zeros((1, 3, 12, 4), np.float32),
            r"float32\[1,3,12,4\]: .*the 5x5 window .* is larger",
        ),
        (np.zeros((1, 3, 0, 12), np.float32), r"float32\[1,3,0,12\]: "),
        (np.array([object()]), r"object\[1\]"),
        (np.float32(1), "a single number"),
        ([[1.0]], "list; give an array"),
        ("image.png", "str; give an array"),
        (None, "NoneType; give an array"),
        (3.5, "float; give an array"),
    ],
)
def test_what_does_not_fit_is_named(fast: lucid.CompiledModel, given: object, got: str) -> None:
    with pytest.raises(InputError, match=WANTED + got):
        fast(given)


def test_the_axes_of_uint8_images() -> None:
    fast = lucid.compile(Net(), (1, 12, 12, 3), input="uint8_nhwc", threads=1)
    with pytest.raises(InputError, match=r"come first.*last: give x.transpose\(0, 2, 3, 1\)$"):
        fast(np.zeros((2, 3, 12, 12), np.uint8))
    with pytest.raises(InputError, match=r"missing: give x\[None\]$"):
        fast(np.zeros((12, 12, 3), np.uint8))
    with pytest.raises(InputError, match=r"give x.transpose\(1, 2, 0\)\[None\]$"):
        fast(np.zeros((3, 20, 12), np.uint8))


def test_axes_that_say_nothing_get_no_advice() -> None:
    x = np.zeros(1)
    for given, wanted in [
        ((1, 12, 12, 3), ("N", 5)),
        ((1, 64, 8, 9), ("N", 64, 8, 8)),
        ((1, 3, 3, 3), ("N", 3, 8, 8)),
        ((1, 7), ("N", 5)),
    ]:
        assert arrays.axes_advice(x, given, wanted) == ""
    assert "(0, 3, 1, 2)" in arrays.axes_advice(x, (1, 8, 8, 64), ("N", 64, 8, 8))
    assert arrays.likely_shape((2, 5), False) is None
    assert arrays.likely_shape((8, 16, 128), False) is None
    assert arrays.likely_shape((2, 3, 8, 8), False) is None


def test_torch_is_advised_in_its_words(fast: lucid.CompiledModel) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"convert it with x.float\(\)$"):
        fast(torch.zeros(1, 3, 12, 12, dtype=torch.float64))
    with pytest.raises(InputError, match=r"give x.permute\(0, 3, 1, 2\)"):
        fast(torch.zeros(1, 12, 12, 3))


def test_a_model_of_torch_is_given_other_axes() -> None:
    """Its import fails, and is not what was wrong. torch takes images without a batch."""
    torch = pytest.importorskip("torch")
    module = torch.nn.Conv2d(3, 4, 5).eval()
    fast = lucid.compile(module, (1, 3, 12, 12), threads=1)
    image = np.random.default_rng(0).standard_normal((3, 12, 12), np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(fast(image), wanted, atol=1e-5)
    with pytest.raises(TraceError, match=r"torch\.export cannot export"):
        fast(np.zeros((1, 2, 12, 12), np.float32))


def test_arrays_lying_otherwise_give_the_same(fast: lucid.CompiledModel, x: np.ndarray) -> None:
    expected = fast(x)
    read_only = x.copy()
    read_only.flags.writeable = False
    backwards = np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1]
    spread = np.zeros((2, 3, 12, 24), np.float32)
    spread[..., ::2] = x
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not shifted.flags.aligned

    for given in (read_only, backwards, spread[..., ::2], channels_last, np.asfortranarray(x)):
        np.testing.assert_array_equal(fast(given), expected)
    np.testing.assert_array_equal(fast(shifted), expected)
    once = np.broadcast_to(x[:1], (3, 3, 12, 12))
    np.testing.assert_array_equal(fast(once), np.repeat(expected[:1], 3, axis=0))


def test_nan_and_infinity_pass_through(fast: lucid.CompiledModel, x: np.ndarray) -> None:
    odd = x.copy()
    odd[0, 1, 6, 6] = np.nan
    result = fast(odd)
    assert np.isnan(result[0, :, 2:7, 2:7]).all()
    np.testing.assert_array_equal(result[1], fast(x)[1])
    odd[0, 1, 6, 6] = np.inf
    assert np.isinf(fast(odd)[0, :, 2:7, 2:7]).any()


def test_an_empty_batch_gives_an_empty_result(fast: lucid.CompiledModel, x: np.ndarray) -> None:
    result = fast(x[:0])
    assert (result.shape, result.dtype) == ((0, 4, 8, 8), np.float32)
    assert fast(x[:0], out=result) is result


def test_out_is_written_to_and_given_back(fast: lucid.CompiledModel, x: np.ndarray) -> None:
    out = np.full((2, 4, 8, 8), np.nan, np.float32)
    assert fast(x, out=out) is out
    np.testing.assert_array_equal(out, fast(x))


def test_out_may_be_the_input(x: np.ndarray) -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(x)

    fast = lucid.compile(Shift(), x.shape, threads=1)
    expected, both = fast(x), x.copy()
    np.testing.assert_array_equal(fast(both, out=both), expected)


def test_out_that_does_not_fit(fast: lucid.CompiledModel, x: np.ndarray) -> None:
    wanted = r"out wants an array float32\[2, 4, 8, 8\], contiguous and writeable"
    read_only = np.zeros((2, 4, 8, 8), np.float32)
    read_only.flags.writeable = False
    for out, got in (
        (np.zeros((2, 4, 8, 8)), r", got float64\[2,4,8,8\]"),
        (np.zeros((1, 4, 8, 8), np.float32), r", got float32\[1,4,8,8\]"),
        ([0.0], ", got float"),
        (read_only, "; this one is not"),
        (np.zeros((2, 4, 8, 16), np.float32)[..., ::2], "; this one is not"),
    ):
        with pytest.raises(InputError, match=wanted + got):
            fast(x, out=out)  # type: ignore[arg-type]


def test_several_outputs_come_as_a_tuple(x: np.ndarray) -> None:
    class Two(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)), x.reshape(-1, 12, 12)

    fast = lucid.compile(Two(), x.shape, threads=1)
    many = np.concatenate([x] * 9)  # more than a slice
    means, planes = fast(many)
    assert means.shape == (18, 3)
    np.testing.assert_allclose(means, many.mean((2, 3)), atol=1e-6)
    np.testing.assert_array_equal(planes, many.reshape(-1, 12, 12))
    with pytest.raises(InputError, match=r"each of the outputs \(mean, reshape\): a seq"):
        fast(x, out=means)


def test_the_kind_of_array_is_kept(fast: lucid.CompiledModel, x: np.ndarray) -> None:
    expected = fast(x)
    eager = fast(lucid.Tensor(x))
    assert type(eager) is lucid.Tensor
    np.testing.assert_array_equal(eager.numpy(), expected)

    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return x

    assert type(fast(Wrapped())) is np.ndarray
    np.testing.assert_array_equal(fast(Wrapped()), expected)


def test_torch_gives_torch(fast: lucid.CompiledModel, x: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    result = fast(torch.from_numpy(x))
    assert isinstance(result, torch.Tensor)
    np.testing.assert_array_equal(result.numpy(), fast(x))
    with pytest.raises(InputError, match="got a Tensor that cannot be read"):
        fast(torch.from_numpy(x).requires_grad_())
    with pytest.raises(InputError, match=r"got float16\[2,3,12,12\]"):
        fast(torch.from_numpy(x).half())


def test_other_libraries_get_their_own_by_dlpack(fast: lucid.CompiledModel, x: np.ndarray) -> None:
    class Other:
        """An array of the Array API standard."""

        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

        def __array_namespace__(self):
            return Other

        @staticmethod
        def from_dlpack(array):
            return Other(np.from_dlpack(array))

    result = fast(Other(x))
    assert isinstance(result, Other)
    np.testing.assert_array_equal(result.array, fast(x))


def test_arrays_that_cannot_be_read(fast: lucid.CompiledModel) -> None:
    class Remote:
        def __dlpack__(self, **options):
            raise BufferError("it lies on another device")

        def __dlpack_device__(self):
            return (2, 0)

    with pytest.raises(InputError, match=r"got a Remote that cannot be read: .*device"):
        fast(Remote())


def test_a_converter_may_be_registered(
    fast: lucid.CompiledModel, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Box:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    monkeypatch.setattr(arrays, "CONVERTERS", dict(arrays.CONVERTERS))
    arrays.register_converter(Box, Box)
    assert isinstance(fast(Box(x)), Box)
