"""The tensors of a module, by reference: NumPy arrays over torch's own memory.

What NumPy cannot look at in place (half floats, other devices) is converted when it is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from lucid.errors import WeightsError
from lucid.frontend.weights import IGNORED, match_weights, normalise_keys
from lucid.ir.graph import State
from lucid.ir.ops import Array

IN_PLACE = (torch.float32, torch.float64)
"""The dtypes that are read as they are."""


class ConvertedTensor:
    """A tensor of another dtype, or not in main memory, which `numpy.asarray` reads as float32."""

    is_lazy: ClassVar[bool] = True
    dtype: ClassVar[str] = "float32"

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        self.name = name
        self.tensor = tensor
        self.shape = tuple(tensor.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.tensor.is_meta:
            raise WeightsError(
                f"{self.name} is on torch's meta device and has no values; load weights first"
            )
        array: Array = self.tensor.to("cpu", torch.float32).numpy()
        return array.astype(dtype or np.float32, copy=False)


def floating_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every floating parameter and buffer by its name, tied ones under all of theirs."""
    named = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    return {name: t.detach() for name, t in named.items() if t.is_floating_point()}


def payload_of(tensors: dict[str, torch.Tensor], module: str) -> dict[str, Any]:
    """The tensors as what a graph's payload holds. Warns of those that are not float32."""
    others = {str(t.dtype).removeprefix("torch.") for t in tensors.values()} - {"float32"}
    if others:
        warnings.warn(
            f"{module} has weights of {' and '.join(sorted(others))}: Lucid computes in float32, "
            "and converts them as it packs them (module.float() does so beforehand)",
            stacklevel=2,
        )
    return {name: _readable(name, tensor) for name, tensor in tensors.items()}


def _readable(name: str, tensor: torch.Tensor) -> Any:
    if tensor.dtype in IN_PLACE and tensor.device.type == "cpu" and tensor.layout is torch.strided:
        return tensor.numpy()
    return ConvertedTensor(name, tensor)


def state_of(module: torch.nn.Module) -> State:
    """The shapes of the floating tensors in a module's state dict, and its tables of integers."""
    shapes, tables = {}, {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            shapes[name] = tuple(tensor.shape)
        elif name.rsplit(".", 1)[-1] != IGNORED:
            tables[name] = tensor.cpu().numpy()
    return State(shapes, tables)


def match_state(module: torch.nn.Module, weights: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """What fills each floating tensor of the module's state dict, from tensors by name.

    One name of tied tensors is enough. Tables of integers became part of the graph: they must be
    the module's own. Raises WeightsError with everything that is missing, unexpected or unfit.
    """
    own = module.state_dict(keep_vars=True)
    found = normalise_keys(weights, origin)
    for name, tensor in own.items():
        if tensor.is_floating_point() or name not in found:
            continue
        if not np.array_equal(np.asarray(found.pop(name)), tensor.cpu().numpy()):
            raise WeightsError(
                f"{origin}: {name}, a table of {tensor.dtype}, differs from the module's; "
                "compile a module that has been loaded with these weights"
            )
    floating = {name: t for name, t in own.items() if t.is_floating_point()}
    given = {id(t): found[name] for name, t in floating.items() if name in found}
    for name, tensor in floating.items():
        if id(tensor) in given:
            found.setdefault(name, given[id(tensor)])
    shapes = {name: tuple(t.shape) for name, t in floating.items()}
    return match_weights(shapes, found, origin, type(module).__name__)[0]
