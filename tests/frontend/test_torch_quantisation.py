"""Programs as `convert_pt2e` leaves them: `quantized_decomposed` operators, against torch."""

from __future__ import annotations

import numpy as np
import pytest

import lucid
from lucid.errors import UnsupportedError
from lucid.ir import interpret

torch = pytest.importorskip("torch")
decomposed_module = pytest.importorskip("torch.ao.quantization.fx._decomposed")
from torch import nn  # noqa: E402

from lucid.frontend.torch import import_torch  # noqa: E402

OPS = torch.ops.quantized_decomposed
BOUNDS = {torch.uint8: (0, 255), torch.int8: (-128, 127)}


def quantised(x, scale, zero, dtype=torch.uint8, bounds=None):
    return OPS.quantize_per_tensor(x, scale, zero, *(bounds or BOUNDS[dtype]), dtype)


def dequantised(q, scale, zero, dtype=torch.uint8, bounds=None):
    return OPS.dequantize_per_tensor(q, scale, zero, *(bounds or BOUNDS[dtype]), dtype)


def both(x, *step, **options):
    return dequantised(quantised(x, *step, **options), *step, **options)


class Layer(nn.Module):
    """A convolution with weights of integers, as convert_pt2e folds them (or not)."""

    def __init__(self, folded=True, channels=True, zero=0):
        super().__init__()
        torch.manual_seed(0)
        weight = torch.randn(6, 4, 3, 3)
        scales = weight.abs().amax((1, 2, 3)) / 120
        self.channels, self.folded = channels, folded
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.full((6,), zero))
        self.bias = nn.Parameter(torch.randn(6))
        if folded and channels:
            weight = OPS.quantize_per_channel(weight, scales, self.zeros, 0, -128, 127, torch.int8)
        elif folded:
            weight = quantised(weight, 0.02, zero, torch.int8)
        self.register_buffer("weight", weight)
        self.zero = zero

    def forward(self, x):
        bounds = (-128, 127, torch.int8)
        weight = self.weight
        if self.channels:
            if not self.folded:
                weight = OPS.quantize_per_channel(weight, self.scales, self.zeros, 0, *bounds)
            weight = OPS.dequantize_per_channel(weight, self.scales, self.zeros, 0, *bounds)
        else:
            if not self.folded:
                weight = quantised(weight, 0.02, self.zero, torch.int8)
            weight = dequantised(weight, 0.02, self.zero, torch.int8)
        y = nn.functional.conv2d(both(x, 0.03, 120), weight, self.bias, padding=1)
        return both(torch.relu(y), 0.05, 0)


def compare(module, *inputs, step=0.0):
    graph = import_torch(module, [tuple(x.shape) for x in inputs])
    with torch.no_grad():
        wanted = module(*inputs).numpy()
    arrays = [x.numpy() for x in inputs]
    compiled = lucid.compile(module, *[x.shape for x in arrays])
    for y in (interpret(graph, arrays)[0], compiled(*arrays)):
        assert y.dtype == wanted.dtype
        apart = np.abs(y.astype(np.float64) - wanted)
        assert apart.max() <= step * 1.001
        assert (apart > step / 2).mean() < 0.01
    return graph


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("zero", [0, 3])
def test_layers(folded, channels, zero):
    x = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    graph = compare(Layer(folded, channels, zero), x, step=0.05)
    dtypes = {p.type.dtype for p in graph.parameters.values()}
    assert ("i8" in dtypes) == (folded or (channels and zero != 0))


class Step(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


STEPS = {
    "u8": lambda x: quantised(x, 0.02, 100),
    "i8": lambda x: quantised(x, 0.02, -7, torch.int8),
    "seven bits": lambda x: both(x, 0.02, 100, bounds=(0, 127)),
    "weights of 8 bits but one": lambda x: quantised(x, 0.02, 0, torch.int8, (-127, 127)),
    "tensors": lambda x: OPS.quantize_per_tensor.tensor(
        x, torch.tensor([0.02]), torch.tensor([3]), 0, 255, torch.uint8
    ),
}


@pytest.mark.parametrize("function", STEPS.values(), ids=STEPS)
def test_quantising(function):
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)) * 4
    compare(Step(function), x, step=1.0)


BAD = {
    "a scale of 0": (lambda x: quantised(x, 0.0, 1), "its scale is 0"),
    "NaN": (lambda x: quantised(x, float("nan"), 1), "its scale is nan"),
    "a zero point out of range": (lambda x: quantised(x, 1.0, 300), "zero point 300 is no u8"),
}


@pytest.mark.parametrize(("function", "message"), BAD.values(), ids=BAD)
def test_bad_operands(function, message):
    with pytest.raises(UnsupportedError, match=message):
        import_torch(Step(function), [(2, 3)])
