"""Models that users write and the networks in the package do not hold, compiled."""

from __future__ import annotations

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.compiler import CompileOptions
from lucid.ir import parse_graph
from lucid.ir.batch import mixing_node
from lucid.ir.interpret import interpret


def image(batch: int, channels: int = 8, height: int = 9, width: int = 11) -> np.ndarray:
    shape = (batch, channels, height, width)
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


def assert_right(model: nn.Module, batch: int = 2, kernel: str | None = None, **shape: int) -> None:
    """The compiled model agrees with the float64 interpreter on the graph as captured."""
    x = image(batch, **shape)
    kernels = {"*": kernel} if kernel else {}
    fast = lucid.compile(model, x.shape, threads=1, options=CompileOptions(kernels=kernels))
    expected = interpret(lucid.trace(model, x.shape), [x.astype(np.float64)], dtype=np.float64)
    results = fast(x)
    for result, wanted in zip(
        results if isinstance(results, tuple) else [results], expected, strict=True
    ):
        np.testing.assert_allclose(result, wanted, rtol=0, atol=4e-6 * max(1, abs(wanted).max()))


class SlicedResidual(nn.Module):
    """A residual that is a part of a larger tensor, by channels or by pixels."""

    def __init__(self, groups: int = 1, by_pixels: bool = False) -> None:
        super().__init__()
        self.wide = nn.Conv2d(8, 24, 1)
        self.conv = nn.Conv2d(24 if groups == 1 else 8, 8, 3, padding=1, groups=groups)
        self.by_pixels = by_pixels

    def forward(self, x):
        y = self.wide(x)
        if self.by_pixels:
            return nn.functional.relu(self.conv(y[:, :, 1:-1, 1:-1]) + y[:, :8, :-2, 2:])
        z = self.conv(y if self.conv.groups == 1 else y[:, 16:])
        return nn.functional.relu(z + y[:, 8:16])


@pytest.mark.parametrize("kernel", ["direct", "winograd2x2", "winograd4x4"])
@pytest.mark.parametrize("by_pixels", [False, True])
def test_a_residual_may_be_a_part_of_a_tensor(kernel, by_pixels):
    model = SlicedResidual(by_pixels=by_pixels)
    x = image(2)
    options = CompileOptions(kernels={"conv": kernel})
    fast = lucid.compile(model, x.shape, threads=1, options=options)
    (wanted,) = interpret(lucid.trace(model, x.shape), [x.astype(np.float64)], dtype=np.float64)
    np.testing.assert_allclose(fast(x), wanted, rtol=0, atol=4e-6 * abs(wanted).max())


def test_a_depthwise_layer_may_have_such_a_residual():
    assert_right(SlicedResidual(groups=8))


class Whole(nn.Module):
    """An op on the batch as a whole, by name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "mean":
            return x - x.mean(0, True)
        if self.kind == "softmax":
            return x.softmax(0)
        return x.permute(1, 0, 2, 3).reshape(2 * x.shape[0], 4, 3, 5)


@pytest.mark.parametrize("kind", ["mean", "softmax", "permute"])
def test_a_batch_whose_images_depend_on_each_other_is_never_cut(kind):
    model = Whole(kind)
    assert mixing_node(lucid.trace(model, (1, 8, 3, 5))) is not None
    assert_right(model, batch=19, channels=8, height=3, width=5)


def test_ordinary_networks_mix_nothing():
    for name in ("resnest_14", "resnest_50_4s2x40d", "resnet_18"):
        assert mixing_node(lucid.trace(lucid.models.create_model(name), (1, 3, 64, 64))) is None


class BySize(nn.Module):
    """A forward that does other things with large images."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 5, padding=2)

    def forward(self, x):
        if x.shape[2] > 10:
            return nn.functional.relu(self.large(x))
        return self.small(x)


def test_a_forward_may_branch_on_the_size_of_the_image():
    model = BySize()
    fast = lucid.compile(model, (1, 8, 9, 9), threads=1)
    x = image(1, height=16, width=16)
    (wanted,) = interpret(lucid.trace(model, x.shape), [x.astype(np.float64)], dtype=np.float64)
    np.testing.assert_allclose(fast(x), wanted, rtol=0, atol=4e-6 * abs(wanted).max())


class NamedLikeAnOp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add = nn.Parameter(np.array([1.0, 2.0, 3.0], np.float32).reshape(1, 3, 1, 1))

    def forward(self, x):
        return nn.functional.sigmoid(x + self.add) + self.add


def test_a_parameter_may_be_called_like_an_op():
    assert_right(NamedLikeAnOp(), channels=3)


UNREAD = """graph g(%x: f32[N,4,5,5]) -> f32[N,8,5,5] {{
  param @w: f32[8,4,3,3]
  param @v: f32[8,4,1,1]
  %e = conv2d(%x, @v) : f32[N,8,5,5] at "e"
  %y = fusion(%x, @w{extra}) {{anchor=conv2d{{padding=(1,1,1,1)}},
    body=graph body(%y: f32[N,8,5,5]{input}) -> f32[N,8,5,5] {{
      %r = {op} : f32[N,8,5,5]
      return {result}
    }}
  }} : f32[N,8,5,5] at "c"
  %s = add(%y, %e) : f32[N,8,5,5] at "s"
  return %s
}}"""
EXTRA = {"extra": ", %e", "input": ", %e: f32[N,8,5,5]"}


@pytest.mark.parametrize(
    "parts",
    [
        {**EXTRA, "op": "relu(%y)", "result": "%r"},  # an extra that nothing reads
        {"extra": "", "input": "", "op": "relu(%y)", "result": "%r"},
        {**EXTRA, "op": "add(%y, %e)", "result": "%y"},  # a step that nothing reads
        {**EXTRA, "op": "relu(%y)", "result": "%e"},  # a body that returns an extra
    ],
)
def test_bodies_that_no_pass_makes_are_compiled_too(parts):
    graph = parse_graph(UNREAD.format(**parts))
    rng = np.random.default_rng(0)
    graph.payload = {
        name: rng.standard_normal(source.type.concrete(1)).astype(np.float32)
        for name, source in graph.sources().items()
    }
    x = image(2, 4, 5, 5)
    disable = ["canonicalise", "fuse-epilogue", "merge-shortcut"]
    fast = lucid.compile(graph, threads=1, options=CompileOptions(disable=disable))
    (wanted,) = interpret(graph, [x.astype(np.float64)], dtype=np.float64)
    np.testing.assert_allclose(fast(x), wanted, rtol=0, atol=4e-6 * abs(wanted).max())


class SignedZero(nn.Module):
    def forward(self, x):
        return 1.0 / (x * 0.0), 1.0 / (x * -0.0)


def test_zero_and_minus_zero_are_two_constants():
    x = np.abs(image(1, 2, 3, 3)) + 1
    plus, minus = lucid.compile(SignedZero(), x.shape, threads=1)(x)
    assert np.all(plus == np.inf)
    assert np.all(minus == -np.inf)
