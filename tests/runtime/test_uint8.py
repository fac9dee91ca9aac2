"""Models compiled for uint8 images: results, shapes, arrays of others, and wrong arrays."""

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.errors import InputError, UnknownNameError
from lucid.ir.samples import sample_inputs
from lucid.ir.text import parse_graph
from lucid.models import resnest_digits
from lucid.runtime.check import Case, Settings, bisect, check
from lucid.runtime.check.report import Tools
from lucid.vision import IMAGENET, Preprocess

BGR = Preprocess(order="bgr", mean=(0.4, 0.45, 0.5), std=(0.2, 0.3, 0.1))


def small(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1, stride=2), nn.ReLU())


def levels(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def assert_close(result, wanted):
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("spec", [IMAGENET, BGR], ids=["rgb", "bgr"])
@pytest.mark.parametrize("size", [(16, 16), (33, 21), (1, 1)])
def test_as_the_float_model_on_normalised_images(spec, size):
    model = small()
    plain = lucid.compile(model, (1, 3, *size), threads=1)
    fast = lucid.compile(model, (1, *size, 3), input="uint8_nhwc", preprocess=spec, threads=1)
    for batch in (1, 3, 17):
        images = levels(batch, *size, 3)
        assert_close(fast(images), plain(spec.normalise(images)))
    assert fast(levels(0, *size, 3)).shape[0] == 0


def test_the_models_own_normalisation_is_the_default():
    model = resnest_digits()
    images = levels(4, 32, 32, 1)
    fast = lucid.compile(model, (1, 32, 32, 1), input="uint8_nhwc", threads=2)
    plain = lucid.compile(model, (1, 1, 32, 32), threads=2)
    assert_close(fast(images), plain(model.preprocess.normalise(images)))


def test_threads_and_slices_change_no_bit():
    images = levels(5, 40, 30, 3)
    one = lucid.compile(small(), (1, 40, 30, 3), input="uint8_nhwc", threads=1)
    two = lucid.compile(small(), (1, 40, 30, 3), input="uint8_nhwc", threads=2)
    assert np.array_equal(one(images), two(images))
    assert np.array_equal(one(images)[2:3], one(images[2:3]))


def test_shapes():
    fast = lucid.compile(small(), (2, 3, 16, 12), input="uint8_nhwc", threads=1)
    assert fast.input_shape == (2, 16, 12, 3)
    assert "%images: u8[N,16,12,3]" in fast.ir("captured")
    assert "input %images = input0: 1152 u8" in fast.ir("scheduled")
    assert fast(levels(1, 20, 8, 3)).shape == (1, 8, 10, 4)  # another size, without compiling
    late = lucid.compile(small(), input="uint8_nhwc", threads=1)
    assert late(levels(1, 16, 12, 3)).shape == (1, 8, 8, 6)


def test_normalising_is_one_kernel():
    fast = lucid.compile(small(), (1, 16, 12, 3), input="uint8_nhwc", threads=1)
    assert [c.origin for c in fast.program().calls()] == ["preprocess", "0", "output"]


def test_strided_arrays_and_those_of_others():
    fast = lucid.compile(small(), (1, 16, 16, 3), input="uint8_nhwc", threads=1)
    images = levels(2, 16, 32, 3)
    whole = fast(np.ascontiguousarray(images[:, :, ::2]))
    assert np.array_equal(fast(images[:, :, ::2]), whole)
    unaligned = np.frombuffer(b"." + images[:, :, ::2].tobytes(), np.uint8, offset=1)
    assert np.array_equal(fast(unaligned.reshape(2, 16, 16, 3)), whole)
    out = np.empty_like(whole)
    assert fast(images[:, :, ::2], out=out) is out
    assert np.array_equal(out, whole)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), r"uint8, 4 dimensions\), got float32.*levels 0\.\."),
        (np.zeros((1, 3, 16, 16), np.uint8), r"got uint8\[1,3,16,16\].*transpose\(0, 2, 3, 1\)$"),
        (np.zeros((16, 16, 3), np.uint8), r"got uint8\[16,16,3\].*x\[None\]$"),
        (np.zeros((1, 16, 16, 1), np.uint8), r"1 channel, .*order='grey'"),
        ("photo.jpg", "got str"),
    ],
)
def test_what_is_no_batch_of_images(x, message):
    fast = lucid.compile(small(), (1, 16, 16, 3), input="uint8_nhwc", threads=1)
    with pytest.raises(InputError, match=rf"images wants u8\[N,16,16,3\].*{message}"):
        fast(x)


def test_uint8_for_a_float_model():
    fast = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    with pytest.raises(
        InputError, match=r"astype\(np.float32\), or compile with input='uint8_nhwc'"
    ):
        fast(levels(1, 3, 16, 16))


def test_options_that_make_no_sense():
    with pytest.raises(UnknownNameError, match="input is one of float32_nchw, uint8_nhwc"):
        lucid.compile(small(), (1, 3, 16, 16), input="uint8")
    with pytest.raises(InputError, match="preprocess is for input='uint8_nhwc'"):
        lucid.compile(small(), (1, 3, 16, 16), preprocess=IMAGENET)
    with pytest.raises(InputError, match="says nothing about its images"):
        lucid.compile(small(), (1, 16, 16, 3), input="uint8_nhwc", preprocess=3)
    with pytest.raises(InputError, match=r"\(N, H, W, 1\).*3 channels.*order='rgb'"):
        lucid.compile(resnest_digits(), (1, 32, 32, 3), input="uint8_nhwc")


def test_weights_are_swapped_and_calls_profiled():
    fast = lucid.compile(small(), (1, 16, 16, 3), input="uint8_nhwc", threads=1)
    images = levels(1, 16, 16, 3)
    before = fast(images)
    other = {n: 2 * t.numpy() for n, t in small().state_dict().items()}
    assert not np.array_equal(fast.load_weights(other)(images), before)
    assert fast.profile(images, 2).calls
    assert "preprocess" in fast.explain()


def test_a_graph_of_levels_is_compiled_and_checked():
    text = """graph g(%x: u8[N,6,5]) -> f32[N,6,5] {
      %f = cast(%x) {dtype="f32"} : f32[N,6,5]
      %y = sqrt(%f) : f32[N,6,5]
      return %y
    }
    """
    graph = parse_graph(text)
    images = levels(3, 6, 5)
    assert_close(lucid.compile(graph, threads=1)(images), np.sqrt(images.astype(np.float32)))
    case = Case(graph, tuple(sample_inputs(graph, 2)), 2, Settings())
    assert case.inputs[0].dtype == np.uint8
    assert check(case, Tools()).ok
    assert bisect(case, Tools()) is None


def test_a_file_of_onnx(tmp_path):
    pytest.importorskip("onnx")
    from lucid.onnx.writer import to_onnx

    path = tmp_path / "net.onnx"
    path.write_bytes(to_onnx(lucid.trace(small(), (1, 3, 16, 20))).SerializeToString())
    fast = lucid.compile(str(path), input="uint8_nhwc", preprocess=BGR, threads=1)
    assert fast.input_shape == (1, 16, 20, 3)
    images = levels(2, 16, 20, 3)
    assert_close(fast(images), lucid.compile(str(path), threads=1)(BGR.normalise(images)))


def test_a_file_of_grey_images_is_compiled_as_the_message_says(tmp_path):
    pytest.importorskip("onnx")
    from lucid.onnx.writer import to_onnx

    path = tmp_path / "net.onnx"
    grey = lucid.nn.Sequential(lucid.nn.Conv2d(1, 4, 3))
    path.write_bytes(to_onnx(lucid.trace(grey, (1, 1, 16, 20))).SerializeToString())
    with pytest.raises(InputError, match=r"not \(1, 16, 20, 1\); .*order='grey', mean.*\)$"):
        lucid.compile(str(path), input="uint8_nhwc", threads=1)
    spec = Preprocess(order="grey", mean=0.5, std=0.25)
    fast = lucid.compile(str(path), input="uint8_nhwc", preprocess=spec, threads=1)
    images = levels(2, 16, 20, 1)
    assert_close(fast(images), lucid.compile(str(path), threads=1)(spec.normalise(images)))


def test_bytes_that_are_no_images_are_not_taken_for_them():
    fast = lucid.compile(lucid.nn.Sequential(lucid.nn.Linear(4, 2)), (1, 4), threads=1)
    with pytest.raises(InputError, match=r"astype\(np.float32\)$"):
        fast(np.zeros((1, 4), np.uint8))


def test_a_module_of_torch_that_says_how():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    net.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.1, 0.2, 0.3), "std": (1, 2, 3)}
    fast = lucid.compile(net, (1, 16, 16, 3), input="uint8_nhwc", threads=1)
    images = levels(2, 16, 16, 3)
    plain = lucid.compile(net, (1, 3, 16, 16), threads=1)
    assert_close(fast(images), plain(Preprocess.of(net).normalise(images)))
    assert isinstance(fast(torch.from_numpy(images)), torch.Tensor)
