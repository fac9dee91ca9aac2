"""A network in PyTorch with generated weights, none of them silent and none of them wild.

Nothing is downloaded. Values follow from names, shapes and, for the statistics of batch norms, from
the images that a layer sees: each gets, in one forward pass, statistics near those of its input, so
that signals neither explode nor vanish however deep the network is.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from networks import Network

IMAGES = 4
"""How many images the statistics come from."""
SHIFT = 1.0
"""Around what the biases of batch norms lie. With 0 a deep random network is chaotic: PyTorch's own
float32 is off by 1e-5 in resnet50. Most activations positive, it errs like a trained one."""
LEAST = 0.5
"""The least variance of a channel, in the mean square of all: a channel that hardly varies is not
blown up, as that would blow up rounding errors too."""


def build(network: Network) -> nn.Module:
    """The network in evaluation mode, float32."""
    torch.manual_seed(0)
    model = create(network).eval()
    fill(model)
    shape = (IMAGES, 3, network.size, network.size)
    calibrate(model, torch.from_numpy(np.random.default_rng(1).standard_normal(shape, np.float32)))
    return model


def create(network: Network) -> nn.Module:
    """As its library makes it, without trained weights."""
    if network.library == "timm":
        import timm

        return timm.create_model(network.name, pretrained=False, **network.options)
    from torchvision.models import get_model

    return get_model(network.name, weights=None, **network.options)


def fill(model: nn.Module) -> None:
    """Give every parameter a value that makes its layer matter."""
    with torch.no_grad():
        for path, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                value = _generated(module, name, parameter.numpy(), _random(f"{path}.{name}"))
                parameter.copy_(torch.from_numpy(value.astype(np.float32)))


def _generated(
    module: nn.Module, name: str, initial: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    shape = initial.shape
    if name == "weight" and isinstance(module, _ConvNd | nn.Linear):  # He scaling
        return random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    if "LayerScale" in type(module).__name__ or name.startswith(("gamma", "layer_scale")):
        return random.uniform(0.3, 1.0, shape)  # new ones are 1e-6: the block would not matter
    if name == "weight" and isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
        return random.uniform(0.5, 1.2, shape)
    noise = 0.1 * random.standard_normal(shape)
    if name == "bias":
        return noise + SHIFT * isinstance(module, _BatchNorm)
    return initial + noise


def calibrate(model: nn.Module, images: torch.Tensor) -> None:
    """Give each batch norm statistics near those of what it sees when `images` come in."""

    def observe(path: str, norm: _BatchNorm) -> None:
        random = _random(f"{path}.statistics")

        def before(_: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
            x = inputs[0]
            axes = [axis for axis in range(x.ndim) if axis != 1]
            variance, mean = torch.var_mean(x, axes, correction=0)
            variance = torch.maximum(variance, LEAST * (x * x).mean())
            channels = len(mean)
            off = torch.from_numpy(random.uniform(-0.2, 0.2, channels).astype(np.float32))
            factor = torch.from_numpy(random.uniform(0.8, 1.25, channels).astype(np.float32))
            norm.running_mean.copy_(mean + off * variance.sqrt())
            norm.running_var.copy_(variance * factor)

        hooks.append(norm.register_forward_pre_hook(before))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            observe(path, module)
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()


def _random(key: str) -> np.random.Generator:
    """Numbers that follow from a name alone."""
    return np.random.default_rng([0, zlib.crc32(key.encode())])
