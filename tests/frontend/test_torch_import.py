"""PyTorch modules as graphs: every emitter against torch itself, in float64."""

import copy
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import lucid
from lucid.errors import (
    InputError,
    LucidError,
    TraceError,
    UnsupportedError,
    WeightsError,
)
from lucid.ir import ops
from lucid.ir.graph import Graph
from lucid.ir.interpret import interpret
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.types import Dim
from lucid.ir.verify import verify

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
torch.manual_seed(0)

from lucid.frontend.torch import import_torch  # noqa: E402  # needs torch


class Applied(nn.Module):
    """A function of one tensor as a module, perhaps with weights."""

    def __init__(self, function: Any, **weights: Any) -> None:
        super().__init__()
        self.function = function
        for name, weight in weights.items():
            setattr(self, name, weight)

    def forward(self, x: Any) -> Any:
        parts = {**self._parameters, **self._buffers, **self._modules}
        return self.function(x, **parts) if parts else self.function(x)


def parameter(*shape: int) -> Any:
    return nn.Parameter(torch.randn(shape))


def flat(result: Any) -> list[Any]:
    if isinstance(result, torch.Tensor):
        return [result]
    return list(result.values() if isinstance(result, dict) else result)


def agrees(module: Any, shape: tuple[int, ...], batch: int = 3) -> Graph:
    """The graph of a module, which computes what the module does, for a batch of another size."""
    graph = import_torch(module, shape)
    verify(graph)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((batch, *shape[1:]), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        wanted = flat(copy.deepcopy(module).double().eval()(x.clone()))
    got = interpret(graph, [x.numpy()], dtype=np.float64)
    for value, array, result in zip(graph.outputs, got, wanted, strict=True):
        assert value.type.concrete(batch) == tuple(result.shape)
        scale = max(1.0, float(np.abs(np.nan_to_num(result.double().numpy(), posinf=0)).max()))
        np.testing.assert_allclose(array, result.double().numpy(), rtol=0, atol=1e-10 * scale)
    return graph


IMAGE = (1, 8, 10, 12)
LINE = (1, 8, 10)
VOLUME = (1, 8, 5, 7, 6)

UNARY = """
    abs ceil cos erf exp floor logical_not neg relu round rsqrt sigmoid sign sin sqrt square tanh
    trunc reciprocal log log2 log10 isnan isinf exp2 expm1 log1p
"""
ACTIVATIONS = """
    celu elu gelu glu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu6 selu silu
    softplus softsign tanhshrink hardshrink softshrink
"""
ELEMENTWISE = {name: getattr(torch, name) for name in UNARY.split()} | {
    name: getattr(F, name) for name in ACTIVATIONS.split()
}

FUNCTIONS: dict[str, tuple[Any, tuple[int, ...]]] = {
    # arithmetic
    "add alpha": (lambda x: torch.add(x, x * 2, alpha=3), IMAGE),
    "sub": (lambda x: torch.sub(x, x * x, alpha=2) - 1, IMAGE),
    "rsub": (lambda x: 1 - x, IMAGE),
    "scalars": (lambda x: (x + 1) * 2 / 3 - 0.5, IMAGE),
    "broadcast": (lambda x: x.mean((2, 3), keepdim=True) * x + x[:, :1], IMAGE),
    "div modes": (
        lambda x: (
            torch.div(x * 9, 2, rounding_mode="floor"),
            torch.div(x * 9, x + 5, rounding_mode="trunc"),
            torch.floor_divide(x * 9, 4),
        ),
        IMAGE,
    ),
    "powers": (lambda x: x**2 + x**3 + x.abs() ** 0.5 + x**-1 + x.abs() ** 1.7 + 2.0**x, IMAGE),
    "pow of tensors": (lambda x: x.abs() ** x, IMAGE),
    "addcmul": (lambda x: torch.addcmul(x, x + 1, x, value=0.5), IMAGE),
    "lerp": (lambda x: torch.lerp(x, x * x, 0.3), IMAGE),
    "in place": (lambda x: (x + 1).relu_().add_(1).mul_(x), IMAGE),
    "in place, then read": (lambda x: (y := x * 2, y.add_(1), y * 3)[2], IMAGE),
    "in place on a view": (lambda x: (y := x * 2, y[:, :3].relu_(), y * 3)[2], IMAGE),
    "in place through a dropout": (
        lambda x: (y := x * 2, F.dropout(y, 0.5, False).add_(1), y * 3)[2],
        IMAGE,
    ),
    "in place on the input": (lambda x: x.clone().mul_(2) + x.add_(1), IMAGE),
    # comparisons and truth values
    "comparisons": (lambda x: (x > 0, x >= 0.5, x < 0, x <= x.abs(), x == x, x != 0), IMAGE),
    "where": (lambda x: torch.where(x > 0, x, -2 * x), IMAGE),
    "where scalars": (lambda x: torch.where(x > 0, 1.0, x) + torch.where(x < 0, 2.0, 3.0), IMAGE),
    "logic": (lambda x: ~(x > 0) & (x < 1) | (x > 2), IMAGE),
    "logical": (lambda x: torch.logical_or(x > 1, torch.logical_and(x > -1, x < 0)), IMAGE),
    "logic of numbers": (
        lambda x: (
            torch.logical_and(x, x.relu()),
            torch.logical_or(x.relu(), x > 1),
            torch.logical_xor(x, x.relu()),
        ),
        IMAGE,
    ),
    "truth as numbers": (lambda x: (x > 0).float() * x + (x < 0).to(x.dtype) * (x > 0), IMAGE),
    "bool of a number": (lambda x: x.relu().bool(), IMAGE),
    "masked fill": (lambda x: x.masked_fill(x < 0, 7.0), IMAGE),
    "threshold": (lambda x: F.threshold(x, 0.1, 20.0), IMAGE),
    "any and all": (lambda x: ((x > 2).any(1), (x > -3).all(2), (x > 0).any(-1, True)), IMAGE),
    "any and all of numbers": (
        lambda x: ((x.abs() * -1).any(1), x.relu().all(2), x.relu().any(3), (x * 0).any(1)),
        IMAGE,
    ),
    # bounds and activations
    "clamp": (lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0.1) + x.clamp(max=0.2), IMAGE),
    "clamp by tensors": (lambda x: torch.clamp(x, x * 0.5, x.abs()), IMAGE),
    "minimum": (lambda x: torch.minimum(x, x * x) + torch.maximum(x, -x), IMAGE),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), IMAGE),
    "softplus beta": (lambda x: F.softplus(x, beta=2.0), IMAGE),
    "softplus threshold": (
        lambda x: (F.softplus(x, threshold=0.5), F.softplus(x * 9, 0.5, 2), F.softplus(x, 2, 0)),
        IMAGE,
    ),
    "softplus with a large threshold": (lambda x: F.softplus(x * 30, threshold=50), IMAGE),
    "elu alpha": (lambda x: F.elu(x, 0.7), IMAGE),
    # reductions
    "mean": (lambda x: (x.mean((2, 3)), x.mean(-1, keepdim=True), x.mean((1, 2, 3))), IMAGE),
    "sum": (lambda x: (x.sum((1, 2)), x.sum(-1), x.flatten(1).sum(1)), IMAGE),
    "extremes": (lambda x: (x.amax((2, 3)), x.amin(1), x.max(1)[0], x.min(-1)[0]), IMAGE),
    "places": (lambda x: (x.max(1)[1], x.argmax(2), x.argmin(-1, keepdim=True)), IMAGE),
    "var": (lambda x: (x.var((2, 3)), x.std(1, correction=0), x.var(1, keepdim=True)), IMAGE),
    "norms": (
        lambda x: (x.norm(dim=1), x.norm(p=1, dim=(2, 3)), torch.linalg.norm(x, torch.inf, 1)),
        IMAGE,
    ),
    "normalize": (lambda x: F.normalize(x, dim=1), IMAGE),
    "softmax": (lambda x: (x.softmax(1), x.log_softmax(-1), x.logsumexp((1, 2))), IMAGE),
    # shapes
    "view": (lambda x: x.view(x.shape[0], -1), IMAGE),
    "fold into the batch": (
        lambda x: x.view(x.shape[0] * 8, 10, 12).mean(1).view(-1, 8, 12),
        IMAGE,
    ),
    "flatten": (lambda x: x.flatten(2).unflatten(1, (2, 4)), IMAGE),
    "squeeze": (lambda x: x.mean(1, keepdim=True).squeeze(1).unsqueeze(-1), IMAGE),
    "transposed": (lambda x: (x.mT, x.mH, x.adjoint(), x.swapaxes(1, -1)), IMAGE),
    "transposed matrices": (lambda x: (x[..., :8].mT, x[..., :8].mH), (1, 8, 8)),
    "transposed rows": (lambda x: (x.T @ x, x.H @ x, x.t() @ x, x.mT @ x), (1, 8)),
    "axes reversed": (lambda x: x[:, :8, :8, :8].T.permute(3, 0, 1, 2), IMAGE),
    "parts of real numbers": (lambda x: x.conj().real + x.conj_physical(), IMAGE),
    "permute": (lambda x: x.permute(0, 2, 3, 1).transpose(-1, -2).movedim(1, 3), IMAGE),
    "expand": (lambda x: x[:, :1].expand(-1, 4, -1, -1), IMAGE),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), IMAGE),
    "cat": (lambda x: torch.cat([x, x * 2, torch.zeros(x.shape[0], 1, 10, 12)], 1), IMAGE),
    "stack": (lambda x: torch.stack([x, x + 1], 2), IMAGE),
    "slices": (lambda x: x[:, 1:-1:2, ::3, -4:], IMAGE),
    "select": (lambda x: x[:, 3] + x.select(1, -1), IMAGE),
    "unbind": (lambda x: torch.unbind(x, 1), IMAGE),
    "split": (lambda x: (*x.split(3, 1), *x.split([2, 6], 1), *x.chunk(3, 2)), IMAGE),
    "narrow": (lambda x: x.narrow(1, 2, 3), IMAGE),
    "repeat interleaved": (lambda x: x.repeat_interleave(3, 2), IMAGE),
    "windows": (lambda x: x.unfold(2, 4, 3).unfold(3, 2, 1), IMAGE),
    "columns of windows": (lambda x: F.unfold(x, (3, 2), (1, 2), (1, 0), (2, 1)), IMAGE),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 4), IMAGE),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), IMAGE),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 4), value=0.5), IMAGE),
    "pad by less than nothing": (lambda x: F.pad(x, (-1, 2, 0, -3)), IMAGE),
    "pad by mirrors": (lambda x: F.pad(x, (1, 2, 3, 4), mode="reflect"), IMAGE),
    "pad around": (lambda x: F.pad(x, (1, 2, 3, 4), mode="circular"), IMAGE),
    "pad by the edge": (lambda x: F.pad(x, (1, 2, 3, 4), mode="replicate"), IMAGE),
    "roll": (lambda x: torch.roll(x, (3, -2), (2, 3)), IMAGE),
    "flip": (lambda x: x.flip(3), IMAGE),
    "index": (lambda x: x[:, torch.tensor([3, 1, 1, 7])], IMAGE),
    "index of a range": (lambda x: x[:, torch.arange(1, 8, 2)], IMAGE),
    "index of two axes": (
        lambda x: x[:, :, torch.tensor([[0], [9]]), torch.tensor([0, -1, 5])],
        IMAGE,
    ),
    "index select": (lambda x: x.index_select(2, torch.tensor([9, 0])), IMAGE),
    "assignment": (
        lambda x: (y := x * 2, y.__setitem__((slice(None), slice(2, 4)), x[:, :2]), y)[2],
        IMAGE,
    ),
    "assignment of one": (
        lambda x: (y := x * 2, y.__setitem__((slice(None), 3), 1.0), y)[2],
        IMAGE,
    ),
    "casts": (lambda x: (x * 2).to(torch.float64).type_as(x), IMAGE),
    "whole numbers": (lambda x: (x * 5).long() + 1, IMAGE),
    # pools and resizing
    "max pool": (lambda x: F.max_pool2d(x, 3, 2, 1), IMAGE),
    "max pool, ceiling": (lambda x: F.max_pool2d(x, (3, 2), 2, ceil_mode=True), IMAGE),
    "max pool, dilated": (lambda x: F.max_pool2d(x, 2, 1, 0, 2), IMAGE),
    "max pool of lines": (lambda x: F.max_pool1d(x, 3, 2, 1), LINE),
    "avg pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGE),
    "avg pool, borders left out": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        IMAGE,
    ),
    "avg pool, divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), IMAGE),
    "max pool of volumes": (
        lambda x: F.max_pool3d(x, (3, 2, 3), (2, 1, 2), (1, 1, 0), (1, 2, 1), ceil_mode=True),
        VOLUME,
    ),
    "where maxima lie": (lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[1] * 1.0, IMAGE),
    "where maxima of volumes lie": (
        lambda x: F.max_pool3d(x, 2, (2, 1, 1), return_indices=True)[1] * 1.0,
        VOLUME,
    ),
    "avg pool of volumes": (
        lambda x: F.avg_pool3d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        VOLUME,
    ),
    "avg pool of volumes, divisor": (lambda x: F.avg_pool3d(x, 2, divisor_override=5), VOLUME),
    "adaptive avg pool of volumes": (lambda x: F.adaptive_avg_pool3d(x, (3, 4, 5)), VOLUME),
    "adaptive max pool of volumes": (lambda x: F.adaptive_max_pool3d(x, (3, 4, 5)), VOLUME),
    "global avg pool of volumes": (lambda x: F.adaptive_avg_pool3d(x, 1), VOLUME),
    "lp pool of lines": (lambda x: F.lp_pool1d(x, 2, 3), LINE),
    "trilinear": (lambda x: F.interpolate(x, scale_factor=(2, 1.5, 3), mode="trilinear"), VOLUME),
    "nearest of volumes": (lambda x: F.interpolate(x, size=(4, 11, 13), mode="nearest"), VOLUME),
    "avg pool of lines": (lambda x: F.avg_pool1d(x, 3, 1, 1), LINE),
    "local response norm": (lambda x: F.local_response_norm(x, 5, 0.1, 0.7, 2.0), IMAGE),
    "adaptive avg pool": (lambda x: F.adaptive_avg_pool2d(x, (3, 5)), IMAGE),
    "global avg pool": (lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE),
    "adaptive avg pool of lines": (lambda x: F.adaptive_avg_pool1d(x, 3), LINE),
    "adaptive max pool": (lambda x: F.adaptive_max_pool2d(x, (4, None)), IMAGE),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "nearest to a size": (lambda x: F.interpolate(x, size=(7, 31)), IMAGE),
    "nearest-exact": (lambda x: F.interpolate(x, size=(7, 31), mode="nearest-exact"), IMAGE),
    "bilinear": (lambda x: F.interpolate(x, size=(25, 7), mode="bilinear"), IMAGE),
    "bilinear by a factor": (lambda x: F.interpolate(x, scale_factor=1.55, mode="bilinear"), IMAGE),
    "bilinear, corners": (
        lambda x: F.interpolate(x, size=(25, 7), mode="bilinear", align_corners=True),
        IMAGE,
    ),
    "bicubic": (lambda x: F.interpolate(x, size=(25, 7), mode="bicubic"), IMAGE),
    "bicubic by a factor": (lambda x: F.interpolate(x, scale_factor=1.55, mode="bicubic"), IMAGE),
    "bicubic to its own size": (
        lambda x: F.interpolate(x, scale_factor=1.05, mode="bicubic"),
        IMAGE,
    ),
    "bicubic, aligned": (
        lambda x: F.interpolate(x, size=(25, 7), mode="bicubic", align_corners=True),
        IMAGE,
    ),
    **{
        f"{mode}, antialiased, {told}": (
            lambda x, m=mode, t=told: F.interpolate(x, mode=m, antialias=True, **t),
            IMAGE,
        )
        for mode in ("bilinear", "bicubic")
        for told in (
            {"size": (5, 31)},
            {"scale_factor": (0.4, 1.05)},
            {"size": (3, 2), "align_corners": True},
        )
    },
    "fold": (
        lambda x: F.fold(F.unfold(x, 3, 2, 1, 2) * 2, x.shape[2:], 3, 2, 1, 2),
        IMAGE,
    ),
    "max unpool": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, 2, 0, x.shape[2:]),
        IMAGE,
    ),
    "affine grid": (
        lambda x: F.affine_grid(x[:, :2, :3, 0], (x.shape[0], 3, 4, 5), False),
        IMAGE,
    ),
    **{
        f"grid sample, {mode}, {padding}, {corners}": (
            lambda x, m=mode, p=padding, c=corners: F.grid_sample(
                x, x[:, :2].permute(0, 2, 3, 1), m, p, c
            ),
            IMAGE,
        )
        for mode, padding, corners in (
            ("bilinear", "zeros", False),
            ("bilinear", "reflection", True),
            ("nearest", "border", False),
            ("nearest", "zeros", True),
            ("bicubic", "zeros", True),
            ("bicubic", "reflection", False),
            ("bicubic", "border", False),
        )
    },
    "nearest to its own size": (lambda x: F.interpolate(x, scale_factor=1.05), IMAGE),
    "nearest-exact to its own size": (
        lambda x: F.interpolate(x, scale_factor=1.08, mode="nearest-exact"),
        IMAGE,
    ),
    "bilinear to its own size": (
        lambda x: F.interpolate(x, scale_factor=1.05, mode="bilinear"),
        IMAGE,
    ),
    "corners to its own size": (
        lambda x: F.interpolate(x, scale_factor=1.05, mode="bilinear", align_corners=True),
        IMAGE,
    ),
    "nearest by almost two": (lambda x: F.interpolate(x, scale_factor=2.05), IMAGE),
    "bilinear by less than one": (
        lambda x: F.interpolate(x, scale_factor=(0.97, 1.05), mode="bilinear"),
        IMAGE,
    ),
    "linear to its own size": (
        lambda x: F.interpolate(x, scale_factor=1.05, mode="linear"),
        LINE,
    ),
    "linear, corners": (
        lambda x: F.interpolate(x, scale_factor=1.7, mode="linear", align_corners=True),
        LINE,
    ),
    "nearest of lines": (lambda x: F.interpolate(x, scale_factor=1.7), LINE),
    "a factor that the sizes replace": (
        lambda x: F.interpolate(x, scale_factor=1.55, recompute_scale_factor=True),
        IMAGE,
    ),
    # tables
    "positions": (lambda x: x + torch.arange(12).to(x.dtype) / 8, IMAGE),
    "positions by batch": (
        lambda x: x + torch.ones(x.shape[0], 1, 10, 12).cumsum(2) * torch.full((12,), 0.5),
        IMAGE,
    ),
    "filled like": (
        lambda x: x * torch.full_like(x, 3.0) + x.new_zeros(12) + torch.ones_like(x),
        IMAGE,
    ),
    "causal mask": (
        lambda x: x.masked_fill(torch.ones(10, 12).tril() == 0, -torch.inf).softmax(-1),
        IMAGE,
    ),
    "tensor in the forward": (lambda x: x * torch.tensor([0.5, 1.5, 2.5])[0], IMAGE),
    # products
    "matmul": (lambda x: x @ x.transpose(-1, -2), IMAGE),
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), LINE),
    "baddbmm": (
        lambda x: torch.baddbmm(x[:, :, :8], x, x.transpose(1, 2), beta=0.5, alpha=2),
        LINE,
    ),
    "einsum": (lambda x: torch.einsum("nchw,ndhw->ncd", x, x), IMAGE),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x + 1, x * 2), IMAGE),
    "causal attention": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), IMAGE),
    "masked attention": (
        lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(10, 10).tril(-1).bool()),
        IMAGE,
    ),
    "attention with a bias": (
        lambda x: F.scaled_dot_product_attention(x, x, x, x[..., :10], scale=0.3),
        IMAGE,
    ),
}

MODULES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(8, 6, 3, stride=2, padding=1), IMAGE),
    "conv, all of it": (
        nn.Conv2d(8, 6, (3, 2), (1, 2), (2, 1), (2, 1), groups=2, bias=False),
        IMAGE,
    ),
    "conv, same": (nn.Conv2d(8, 6, (4, 3), padding="same", dilation=(1, 2)), IMAGE),
    "conv, mirrored": (nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "depthwise": (nn.Conv2d(8, 8, 5, padding=2, groups=8), IMAGE),
    "conv of lines": (nn.Conv1d(8, 6, 3, 2, 1), LINE),
    "conv of lines, same": (nn.Conv1d(8, 6, 4, padding="same"), LINE),
    "transposed conv": (nn.ConvTranspose2d(8, 6, 3, 2, 1, 1, groups=2), IMAGE),
    "transposed conv, cut": (nn.ConvTranspose2d(8, 6, (2, 3), (3, 1), (2, 3), bias=False), IMAGE),
    "transposed conv, dilated": (nn.ConvTranspose2d(8, 6, 3, (1, 2), dilation=2), IMAGE),
    "transposed conv, blocks": (nn.ConvTranspose2d(8, 6, (2, 3), (2, 3), groups=2), IMAGE),
    "conv of volumes": (nn.Conv3d(8, 6, 3, (1, 2, 1), (1, 0, 2), (2, 1, 1), groups=2), VOLUME),
    "conv of volumes, same": (nn.Conv3d(8, 6, (2, 3, 3), padding="same", bias=False), VOLUME),
    "conv of volumes, normalised": (
        nn.Sequential(nn.Conv3d(8, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU()),
        VOLUME,
    ),
    "transposed conv of volumes": (nn.ConvTranspose3d(8, 6, 3, 2, 1, 1, groups=2), VOLUME),
    "transposed conv of volumes, blocks": (nn.ConvTranspose3d(8, 6, 2, 2), VOLUME),
    "transposed conv of lines": (nn.ConvTranspose1d(8, 6, 4, 2, 1), LINE),
    "linear": (nn.Linear(12, 5), IMAGE),
    "linear of vectors": (nn.Linear(8, 5, bias=False), (1, 8)),
    "bilinear product with weights": (
        Applied(lambda x, w, b: torch.addmm(b, x, w), w=parameter(8, 5), b=parameter(5)),
        (1, 8),
    ),
    "weights on the left": (Applied(lambda x, w: w @ x, w=parameter(4, 10)), IMAGE),
    "a vector of weights": (Applied(lambda x, w: x @ w, w=parameter(12)), IMAGE),
    "batch norm": (nn.BatchNorm2d(8), IMAGE),
    "batch norm, plain": (nn.BatchNorm2d(8, affine=False), IMAGE),
    "batch norm of vectors": (nn.BatchNorm1d(8), (1, 8)),
    "batch norm of itself": (nn.BatchNorm2d(8, track_running_stats=False), IMAGE),
    "layer norm": (nn.LayerNorm((10, 12)), IMAGE),
    "layer norm, plain": (nn.LayerNorm(12, elementwise_affine=False), IMAGE),
    "layer norm, no bias": (nn.LayerNorm(12, bias=False), IMAGE),
    "group norm": (nn.GroupNorm(4, 8), IMAGE),
    "group norm, plain": (nn.GroupNorm(2, 8, affine=False), IMAGE),
    "instance norm": (nn.InstanceNorm2d(8, affine=True), IMAGE),
    "rms norm": (nn.RMSNorm(12, eps=1e-5), IMAGE),
    "prelu": (nn.PReLU(8), IMAGE),
    "prelu of one": (nn.PReLU(), IMAGE),
    "dropout": (nn.Sequential(nn.Dropout2d(0.5), nn.Dropout(0.5), nn.AlphaDropout(0.5)), IMAGE),
    "embedding": (
        Applied(lambda x, w: x + w(torch.tensor([[3], [0]])).sum((0, 1)), w=nn.Embedding(5, 12)),
        IMAGE,
    ),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4, 3)), IMAGE),
    "attention": (
        Applied(lambda x, a: a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(10, 2)),
        LINE,
    ),
    "transformer": (
        nn.TransformerEncoderLayer(10, 2, 16, batch_first=True, activation="gelu"),
        LINE,
    ),
}


def randomised(module: Any) -> Any:
    """The module with statistics and scales that mean something."""
    for part in module.modules():
        for name in ("running_mean", "weight", "bias"):
            tensor = getattr(part, name, None)
            if "Norm" in type(part).__name__ and isinstance(tensor, torch.Tensor):
                tensor.data.normal_()
        if isinstance(getattr(part, "running_var", None), torch.Tensor):
            part.running_var.data.uniform_(0.5, 2)
    return module


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str) -> None:
    function = ELEMENTWISE[name]
    positive = name in ("rsqrt", "sqrt", "log", "log2", "log10", "log1p")
    agrees(Applied(lambda x: function(x.abs() + 0.1 if positive else x * 3)), IMAGE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function, shape = FUNCTIONS[name]
    agrees(Applied(function), shape)


FACTORS = [0.3, 0.45, 0.5, 0.7, 0.97, 1.05, 1.1, 1.3, 1.49, 1.9, 2.0, 2.05, 2.3, 2.45, 3.0, 3.3]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear"])
def test_sizes_and_samples_of_interpolation(mode: str) -> None:
    """Those of torch, whose nearest coordinates are float32, over many sizes and factors."""
    for size in (*range(1, 20), 57, 100):
        x = torch.arange(size, dtype=torch.float32).reshape(1, 1, size, 1)
        for factor in (f for f in FACTORS if int(size * f)):
            wanted = F.interpolate(x, scale_factor=(factor, 1.0), mode=mode)
            (rows, _) = given = (int(size * factor), 1)
            assert tuple(wanted.shape[2:]) == given
            op = ops.interpolation((size, 1), given, (factor, 1.0), mode)
            near = 0 if mode != "bilinear" else 1e-5 * size
            np.testing.assert_allclose(op.evaluate(x.numpy()), wanted, rtol=0, atol=near)
        for rows in (1, size, 2 * size, size + 1, 37):
            wanted = F.interpolate(x, size=(rows, 1), mode=mode)
            op = ops.interpolation((size, 1), (rows, 1), None, mode)
            near = 0 if mode != "bilinear" else 1e-5 * size
            np.testing.assert_allclose(op.evaluate(x.numpy()), wanted, rtol=0, atol=near)


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    module, shape = MODULES[name]
    agrees(randomised(module), shape)


# -- what a graph keeps of a module -------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        return self.drop(self.norm(self.conv(x)).relu_()) + x


class Net(nn.Module):
    """Two blocks and a head, any image size."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(4, 3)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.head(self.blocks(x).mean((2, 3)) * self.scale)


@pytest.fixture
def net() -> Any:
    return randomised(Net())


def test_the_batch_is_symbolic(net: Any) -> None:
    graph = agrees(net, (1, 4, 6, 7), batch=5)
    assert graph.inputs[0].type.shape == (Dim(), 4, 6, 7)
    assert graph.outputs[0].type.shape == (Dim(), 3)
    folded = import_torch(Applied(lambda x: x.view(x.shape[0] * 2, -1)), (1, 4, 6))
    assert folded.outputs[0].type.shape == (Dim(2), 12)


def test_weights_are_not_copied(net: Any) -> None:
    graph = import_torch(net, (1, 4, 6, 7))
    assert set(graph.sources()) >= {*dict(net.named_parameters()), "blocks.0.norm.running_var"}
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.is_floating_point():
            assert np.shares_memory(graph.payload[name], tensor.detach().numpy()), name


def test_tied_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.second.weight = self.first.weight

        def forward(self, x: Any) -> Any:
            return self.second(self.first(x))

    tied, other = Tied(), Tied()
    agrees(tied, (1, 6))
    state = other.state_dict()
    del state["second.weight"]  # as files have it that keep a tensor once
    compiled = lucid.compile(tied, (1, 6)).load_weights(state)
    x = torch.randn(3, 6)
    torch.testing.assert_close(compiled(x), other(x).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["float64", "bfloat16", "float16"])
def test_other_dtypes_are_converted_as_they_are_read(kind: str) -> None:
    module = nn.Linear(6, 5).to(getattr(torch, kind))
    with pytest.warns(UserWarning, match=f"Linear has weights of {kind}: Lucid computes in"):
        graph = import_torch(module, (1, 6))
    assert graph.inputs[0].type.dtype == "f32"
    x = np.ones((2, 6))
    (got,) = interpret(graph, [x], dtype=np.float64)
    with torch.no_grad():
        wanted = module.double()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_nodes_know_their_modules_and_source_lines(net: Any) -> None:
    graph = import_torch(net, (1, 4, 6, 7))
    (first, *_) = graph.find(ops.Conv2d)
    assert first.origin == "blocks.0.conv"
    assert first.location is not None
    assert first.location.startswith(__file__)
    assert {n.origin for n in graph.nodes} >= {"blocks.1", "blocks.1.norm", "head", ""}


def test_the_module_is_left_as_it_is(net: Any) -> None:
    net.train()
    net.blocks[1].eval()
    modes = [part.training for part in net.modules()]
    before = {name: t.clone() for name, t in net.state_dict().items()}
    import_torch(net, (1, 4, 6, 7))
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_several_outputs_keep_their_order_and_names() -> None:
    both = Applied(lambda x: OrderedDict(out=x * 2, aux=(x + 1).mean((2, 3))))
    assert [v.name for v in agrees(both, IMAGE).outputs] == ["out", "aux"]
    nested = Applied(lambda x: (x * 2, [x + 1, None, {"deep": x - 1}]))
    graph = import_torch(nested, IMAGE)
    assert [v.name for v in graph.outputs][2] == "1_2_deep" or len(graph.outputs) == 3
    twice = Applied(lambda x: (lambda y: (y, y, x))(x * 2))
    assert len(agrees(twice, IMAGE).outputs) == 3


def test_graphs_can_be_printed_parsed_and_optimised(net: Any) -> None:
    graph = import_torch(net, (1, 4, 6, 7))
    assert parse_graph(print_graph(graph)) == graph
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 7))
    (wanted,) = interpret(graph, [x], dtype=np.float64)
    (got,) = interpret(run_passes(graph), [x], dtype=np.float64)
    np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_weight_standardisation_becomes_recipes() -> None:
    def standardised(x: Any, weight: Any, gain: Any) -> Any:
        flat = weight.reshape(1, 6, -1)
        w = F.batch_norm(flat, None, None, gain, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, w.reshape_as(weight), padding=1)

    graph = agrees(Applied(standardised, weight=parameter(6, 8, 3, 3), gain=parameter(6)), IMAGE)
    assert [n.op.name for n in run_passes(graph).nodes] == ["conv2d"]


def test_reading_by_a_range_is_a_slice() -> None:
    graph = import_torch(Applied(lambda x: x[:, torch.arange(1, 8, 2)]), IMAGE)
    assert [n.op for n in graph.nodes] == [ops.Slice(1, 1, 8, 2)]


def test_large_tables_join_the_payload() -> None:
    module = Applied(lambda x: x + torch.arange(6000).to(x.dtype).view(60, 100))
    graph = agrees(module, (1, 1, 60, 100))
    (name,) = graph.sources()
    assert graph.payload[name].shape == (60, 100)


# -- what cannot be imported --------------------------------------------------------------------


def test_all_that_is_unsupported_is_listed() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.AdaptiveMaxPool2d(5, return_indices=True)

        def forward(self, x: Any) -> Any:
            x = self.up(self.up(x)[1] * 1.0)[1] * 1.0
            return torch.sort(torch.fft.rfft(x).real, 1)[0] + F.dropout(
                x.mean(-1, keepdim=True), 0.5
            )

    with pytest.raises(UnsupportedError) as caught:
        import_torch(Odd(), IMAGE)
    message = str(caught.value)
    assert "Odd has" in message
    assert "2 times, first in the module itself at" in message
    assert "only there for training" in message
    for missing in ("_fft_r2c", "dropout"):
        assert missing in message
    assert __file__ in message


def test_a_result_only_there_for_training_that_is_returned_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="only there for training"):
        import_torch(Applied(lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)), IMAGE)


def test_results_only_there_for_training_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="only there for training"):
        import_torch(
            Applied(lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)[1] * 2), IMAGE
        )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x / x.shape[0],
        lambda x: x + torch.arange(x.shape[0]).view(-1, 1, 1, 1),
        lambda x: x + torch.full((12,), 1.0) * x.shape[0],
        lambda x: x.reshape(3, 8, -1).softmax(0),
        lambda x: (x.sort(0)[0], x.unbind(0)[1]),
    ],
)
def test_where_the_batch_is_taken_as_a_number_all_sizes_are_fixed(function: Any) -> None:
    """And another batch is imported anew."""
    graph = agrees(Applied(function), (3, 8, 10, 12))
    assert not any(v.type.batch_axes() for v in graph.inputs)
    agrees(Applied(lambda x: x / x.shape[0]), (1, 8, 10, 12), batch=1)
    agrees(Applied(lambda x: x / x.shape[0]), (5, 8, 10, 12), batch=5)


def test_branches_and_selections_by_value_are_refused() -> None:
    def branch(x: Any) -> Any:
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x * 2, (x,))

    with pytest.raises(UnsupportedError, match="cond in the module itself"):
        import_torch(Applied(branch), IMAGE)
    with pytest.raises(UnsupportedError, match="depends on the elements of a tensor"):
        import_torch(Applied(lambda x: x[x > 0]), IMAGE)


def test_what_converts_to_integers_first_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="converts to int64 before it reduces"):
        import_torch(Applied(lambda x: x.sum(1, dtype=torch.int64)), IMAGE)
    agrees(Applied(lambda x: (x > 0).sum(1, dtype=torch.int64)), IMAGE)
    agrees(Applied(lambda x: x.softmax(1, dtype=torch.float64)), IMAGE)


def test_random_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="drops weights at random"):
        import_torch(
            Applied(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)), IMAGE
        )
    with pytest.raises(UnsupportedError, match="random numbers"):
        import_torch(Applied(lambda x: x + torch.rand(12)), IMAGE)


def test_what_torch_cannot_export() -> None:
    def branching(x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x

    with pytest.raises(TraceError, match=r"cannot export Applied for an input of \(1, 8, 10, 12\)"):
        import_torch(Applied(branching), IMAGE)
    with pytest.raises(TraceError, match=r"for an input of \(1, 8, 10, 12\).*shape"):
        import_torch(Applied(lambda x: x.view(7, -1)), IMAGE)


def test_forwards_that_return_no_tensor() -> None:
    with pytest.raises(TraceError, match="returns no tensor"):
        import_torch(Applied(lambda x: 5), IMAGE)


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match=r"wants a torch.nn.Module, or .* got int"):
        import_torch(5, IMAGE)
    for shape in ((), (1, 0, 3), "abc", (1, 2.5)):
        with pytest.raises(InputError, match="input_shape must be ints, batch first"):
            import_torch(nn.ReLU(), shape)


# -- compiled -----------------------------------------------------------------------------------


def test_a_module_is_compiled_for_any_batch_and_image_size(net: Any) -> None:
    compiled = lucid.compile(net, (1, 4, 16, 16))
    assert repr(compiled).startswith("<CompiledModel Net")
    for shape in ((1, 4, 16, 16), (3, 4, 16, 16), (2, 4, 9, 20), (20, 4, 9, 20)):
        x = torch.randn(shape)
        with torch.no_grad():
            wanted = net.eval()(x)
        y = compiled(x)
        assert isinstance(y, torch.Tensor)
        torch.testing.assert_close(y, wanted, atol=1e-5, rtol=0)
    assert "blocks.0.conv" in compiled.explain()
    assert "conv2d" in compiled.ir("captured")


def test_weights_reload_by_torchs_names(net: Any, tmp_path: Any) -> None:
    compiled = lucid.compile(net, (1, 4, 8, 8))
    other = randomised(Net())
    x = torch.randn(2, 4, 8, 8)
    file = tmp_path / "other.pth"
    torch.save(other.state_dict(), file)
    for weights in (other.state_dict(), file):
        compiled.load_weights(weights)
        for size in (8, 10):
            x = torch.randn(2, 4, size, size)
            with torch.no_grad():
                wanted = other.eval()(x)
            torch.testing.assert_close(compiled(x), wanted, atol=1e-5, rtol=0)
    state = other.state_dict()
    del state["head.bias"]
    state["surplus"] = torch.ones(2)
    with pytest.raises(WeightsError, match=r"(?s)missing: head.bias.*unexpected: surplus"):
        compiled.load_weights(state)


def test_tables_of_integers_are_part_of_what_is_compiled() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(9))
            self.register_buffer("index", torch.tensor([0, 3, 5, 7]))

        def forward(self, x: Any) -> Any:
            return x + self.table[self.index]

    module = Biased()
    agrees(module, (1, 3, 4))
    compiled = lucid.compile(module, (1, 3, 4))
    compiled.load_weights(Biased().state_dict())
    state = {**module.state_dict(), "index": torch.tensor([1, 3, 5, 7])}
    with pytest.raises(WeightsError, match=r"index, a table of torch\.int64, differs"):
        compiled.load_weights(state)


def test_errors_of_the_model_go_through_as_they_are() -> None:
    with pytest.raises(UnsupportedError, match="only there for training") as caught:
        lucid.compile(Applied(lambda x: F.adaptive_max_pool2d(x, 2, True)[1] * 2), IMAGE)
    assert isinstance(caught.value, LucidError)
    with pytest.raises(TraceError, match="cannot export Net"):
        lucid.compile(Net(), (1, 5, 8, 8))


def test_outputs_of_several_kinds() -> None:
    module = Applied(lambda x: {"mean": x.mean((2, 3)), "image": x.relu()})
    x = torch.randn(2, 8, 10, 12)
    y = lucid.compile(module, IMAGE)(x)
    torch.testing.assert_close(y["mean"], x.mean((2, 3)))
    torch.testing.assert_close(y["image"], x.relu())


def test_torchvision_operators() -> None:
    """They are known by name: the importer does without torchvision."""
    vision = pytest.importorskip("torchvision")
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.moves = nn.Conv2d(4, 2 * 2 * 6, 3, padding=1)
            self.mask = nn.Conv2d(4, 2 * 6, 3, padding=1)
            self.deformed = vision.ops.DeformConv2d(4, 6, (2, 3), padding=(1, 1), groups=2)
            self.register_buffer("boxes", torch.tensor([[1.0, 2, 3, 20, 17], [0, 0, 0, 9, 30]]))

        def forward(self, x: Any) -> Any:
            moves, mask = (f(x)[:, :, :, :] for f in (self.moves, self.mask))
            below = F.pad(moves, (0, 0, 0, 1)), F.pad(mask, (0, 0, 0, 1))
            y = self.deformed(x, *below)
            return y, vision.ops.roi_align(y, self.boxes, (3, 2), 0.5, 0, True)

    net = Net().double().eval()
    graph = import_torch(net, (1, 4, 9, 11))
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    with torch.no_grad():
        wanted = net(x)
    graph_results = interpret(graph, [x.numpy()], dtype=np.float64)
    for value, result in zip(graph_results, wanted, strict=True):
        np.testing.assert_allclose(value, result.numpy(), atol=1e-9)
