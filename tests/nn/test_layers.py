"""Layers and functions: PyTorch's arguments, defaults and meaning."""

import math

import numpy as np
import pytest

import lucid
from lucid import Tensor, nn
from lucid.errors import LucidError, ShapeError
from lucid.models import create_model
from lucid.nn import functional as F

X = np.random.default_rng(0).standard_normal((2, 4, 9, 7)).astype(np.float32)


def values(result: Tensor) -> np.ndarray:
    assert isinstance(result, Tensor)
    return result.numpy()


def reference_convolution(x, weight, bias, stride, borders, dilation, groups):
    """By the definition, one output pixel at a time."""
    top, left, bottom, right = borders
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    outputs, inputs, kernel_h, kernel_w = weight.shape
    spread_h, spread_w = dilation[0] * (kernel_h - 1) + 1, dilation[1] * (kernel_w - 1) + 1
    height = (x.shape[2] - spread_h) // stride[0] + 1
    width = (x.shape[3] - spread_w) // stride[1] + 1
    y = np.zeros((len(x), outputs, height, width))
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for i in range(height):
            for j in range(width):
                rows = slice(i * stride[0], i * stride[0] + spread_h, dilation[0])
                columns = slice(j * stride[1], j * stride[1] + spread_w, dilation[1])
                window = x[:, first : first + inputs, rows, columns]
                y[:, o, i, j] = (window * weight[o]).sum((1, 2, 3)) + bias[o]
    return y


@pytest.mark.parametrize(
    ("options", "borders"),
    [
        ({}, (0, 0, 0, 0)),
        ({"padding": 1, "stride": 2}, (1, 1, 1, 1)),
        ({"padding": (2, 1), "dilation": (2, 1), "stride": (1, 2)}, (2, 1, 2, 1)),
        ({"padding": "valid", "groups": 2}, (0, 0, 0, 0)),
        ({"padding": "same", "dilation": (1, 2)}, (1, 2, 1, 2)),
        ({"padding": "same", "kernel_size": (2, 4), "groups": 4}, (0, 1, 1, 2)),
    ],
)
def test_convolution(options: dict, borders: tuple[int, int, int, int]) -> None:
    layer = nn.Conv2d(4, 8, **{"kernel_size": 3, **options})
    wanted = reference_convolution(
        X,
        layer.weight.numpy(),
        layer.bias.numpy(),
        layer.stride,
        borders,
        layer.dilation,
        layer.groups,
    )
    np.testing.assert_allclose(values(layer(Tensor(X))), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"padding_mode": "reflect"}, "padding_mode must be 'zeros'"),
        ({"padding": "full"}, "'same' or 'valid'"),
        ({"padding": "same", "stride": 2}, "stride 1 only"),
        ({"groups": 3}, "multiples of groups 3"),
        ({"kernel_size": (1, 2, 3)}, "kernel_size must be an int or a pair"),
    ],
)
def test_convolutions_that_are_refused(options: dict, error: str) -> None:
    with pytest.raises(LucidError, match=error):
        nn.Conv2d(4, 8, **{"kernel_size": 3, **options})


def test_wrong_channels_are_a_clear_error() -> None:
    with pytest.raises(ShapeError, match="conv2d"):
        nn.Conv2d(3, 8, 3)(Tensor(X))
    with pytest.raises(ShapeError, match="weight must be"):
        F.conv2d(Tensor(X), np.ones((3, 3), np.float32))


def test_batch_norm() -> None:
    layer = nn.BatchNorm2d(4, eps=0.1, momentum=None)
    rng = np.random.default_rng(1)
    state = {k: rng.uniform(0.5, 2, 4).astype(np.float32) for k in layer.state_dict()}
    layer.load_state_dict(state)
    shaped = {k: v[:, None, None] for k, v in state.items()}
    wanted = (X - shaped["running_mean"]) / np.sqrt(shaped["running_var"] + 0.1)
    wanted = wanted * shaped["weight"] + shaped["bias"]
    np.testing.assert_allclose(values(layer(Tensor(X))), wanted, rtol=1e-5, atol=1e-6)

    plain = nn.BatchNorm2d(4, affine=False)
    assert list(plain.state_dict()) == ["running_mean", "running_var"]
    np.testing.assert_allclose(values(plain(Tensor(X))), X / math.sqrt(1 + 1e-5), rtol=1e-5)
    lucid.trace(plain, (1, 4, 9, 7))
    with pytest.raises(LucidError, match="running statistics"):
        nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(LucidError, match="running statistics"):
        F.batch_norm(Tensor(X), None, None)


def test_linear() -> None:
    layer = nn.Linear(7, 5)
    wanted = X @ layer.weight.numpy().T + layer.bias.numpy()
    np.testing.assert_allclose(values(layer(Tensor(X))), wanted, rtol=1e-5, atol=1e-6)
    assert nn.Linear(7, 5, bias=False)(Tensor(X)).shape == (2, 4, 9, 5)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (nn.ReLU(inplace=True), lambda x: np.maximum(x, 0)),
        (nn.ReLU6(), lambda x: np.clip(x, 0, 6)),
        (nn.SiLU(), lambda x: x * sigmoid(x)),
        (nn.Sigmoid(), sigmoid),
        (nn.Tanh(), np.tanh),
        (nn.Hardswish(), lambda x: x * np.clip(x + 3, 0, 6) / 6),
        (nn.Hardsigmoid(), lambda x: np.clip(x + 3, 0, 6) / 6),
        (nn.GELU(), lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2),
        (
            nn.GELU("tanh"),
            lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
        ),
        (nn.Softmax(dim=-1), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        (nn.Softmax(), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        (nn.Dropout(0.3), lambda x: x),
        (nn.Identity(1, a=2), lambda x: x),
        (nn.Flatten(), lambda x: x.reshape(2, -1)),
        (nn.Flatten(0, -2), lambda x: x.reshape(-1, 7)),
        (nn.AdaptiveAvgPool2d(1), lambda x: x.mean((2, 3), keepdims=True)),
        (
            nn.AdaptiveAvgPool2d((3, None)),
            lambda x: x.reshape(2, 4, 3, 3, 7).mean(3),
        ),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else None,
)
def test_activations_and_small_layers(layer: nn.Module, wanted) -> None:
    x = 4 * X
    np.testing.assert_allclose(
        values(layer(Tensor(x))), wanted(x.astype(np.float64)), rtol=1e-4, atol=1e-5
    )


def test_pools() -> None:
    x = Tensor(X)
    cut = X[:, :, :8, :6].reshape(2, 4, 4, 2, 3, 2)
    np.testing.assert_allclose(values(nn.AvgPool2d(2)(x)), cut.mean((3, 5)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(values(nn.MaxPool2d(2)(x)), cut.max((3, 5)))
    assert nn.MaxPool2d(3, stride=2, padding=1)(x).shape == (2, 4, 5, 4)
    assert nn.MaxPool2d(2, ceil_mode=True)(x).shape == (2, 4, 5, 4)
    assert nn.AvgPool2d((3, 2), (2, 1), (1, 0))(x).shape == (2, 4, 5, 6)
    ones = Tensor(np.ones((1, 1, 3, 3), np.float32))
    counted = values(F.avg_pool2d(ones, 3, 2, 1))
    assert counted[0, 0, 0, 0] == pytest.approx(4 / 9)
    excluded = F.avg_pool2d(ones, 2, 2, ceil_mode=True, count_include_pad=False)
    np.testing.assert_array_equal(values(excluded), np.ones((1, 1, 2, 2)))
    assert values(F.avg_pool2d(ones, 2, divisor_override=8)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: nn.MaxPool2d(2, return_indices=True), "return_indices"),
        (lambda: F.max_pool2d(Tensor(X), 2, return_indices=True), "return_indices"),
        (lambda: nn.AvgPool2d(2, padding=2)(Tensor(X)), "at most half"),
        (lambda: nn.AdaptiveAvgPool2d(2)(Tensor([1.0])), "cannot pool"),
        (lambda: nn.GELU("exact"), "approximate"),
        (lambda: nn.Dropout(2), "between 0 and 1"),
        (lambda: F.dropout(Tensor(X), training=True), "does not train|do not train|not train"),
        (lambda: F.concat([]), "at least one tensor"),
    ],
)
def test_what_is_refused(make, error: str) -> None:
    with pytest.raises(LucidError, match=error):
        make()


def test_an_empty_batch() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    assert model(Tensor(X[:0])).shape == (0, 3)
    assert Tensor(X[:0]).reshape(0, 2, -1).shape == (0, 2, 126)
    assert Tensor(X[:0]).reshape(-1, 7).shape == (0, 7)
    network = create_model("resnest_14", layers=[1, 1], num_classes=5)
    assert network(Tensor(np.zeros((0, 3, 32, 32), np.float32))).shape == (0, 5)
