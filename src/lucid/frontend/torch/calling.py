"""How a forward is called: which tensors it takes, under which names, and what else it is given.

A graph has a flat list of inputs, the tensors among the arguments: those in lists, tuples and dicts
are named after their place in them (`boxes_0`, `targets_mask`). Numbers, strings and None among the
arguments are constants of the graph.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export import Dim
from torch.utils import _pytree

from lucid.errors import InputError, kind_of
from lucid.ir.types import Shapes

DTYPES = {
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float64: "f64",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "u8",
    torch.uint16: "u16",
    torch.uint32: "u32",
    torch.uint64: "u64",
    torch.bool: "bool",
}
"""Torch's dtypes, as graphs call them."""


@dataclass(frozen=True)
class Input:
    """A tensor that a forward takes. `dtype`: the input's, in the graph's terms; `kind`: torch's,
    which is that of the weights where nobody has said what the forward takes."""

    name: str
    dtype: str
    kind: torch.dtype


class Calling:
    """A way to call a forward: `leaves`, an `Input` for each tensor, else a constant, in the
    order in which torch has them, nested in positional and named arguments as `spec` says."""

    def __init__(self, leaves: Sequence[Any], spec: Any) -> None:
        self.leaves = tuple(leaves)
        self.spec = spec
        self.inputs = [leaf for leaf in leaves if isinstance(leaf, Input)]

    @property
    def key(self) -> Any:
        """What torch.export is given, but for the sizes; calls of equal keys share programs."""
        told = [
            (leaf.name, leaf.kind) if isinstance(leaf, Input) else (type(leaf).__name__, repr(leaf))
            for leaf in self.leaves
        ]
        return tuple(told), str(self.spec)

    @property
    def assumed(self) -> set[torch.dtype]:
        """The dtypes that tensors were taken to be of, and that are f32 to who calls the graph."""
        return {i.kind for i in self.inputs if i.dtype == "f32"}

    @staticmethod
    def of_shapes(module: torch.nn.Module, count: int) -> Calling:
        """Of a forward that is given so many tensors by position, of the dtype of its weights."""
        kind = weights_of(module)[0]
        return _calling(module, (kind,) * count, {}, "f32")

    @staticmethod
    def of_examples(
        module: torch.nn.Module, inputs: Sequence[Any], named: Mapping[str, Any]
    ) -> tuple[Calling, Shapes]:
        """Of a forward that is called with such arguments, and the shapes of the tensors in them.

        Raises InputError for arguments that the forward does not take, or that hold what is neither
        a tensor (or array) nor a constant.
        """
        leaves, spec = _pytree.tree_flatten((tuple(inputs), _in_order(module, inputs, named)))
        tensors = list(map(_tensor, leaves))
        args, kwargs = _pytree.tree_unflatten(
            [leaf.dtype if isinstance(leaf, torch.Tensor) else leaf for leaf in tensors], spec
        )
        shapes = tuple(tuple(t.shape) for t in tensors if isinstance(t, torch.Tensor))
        return _calling(module, args, kwargs, None), shapes

    def arguments(self, module: torch.nn.Module, shapes: Shapes) -> tuple[Any, Any]:
        """Arguments by position and by name, with tensors of these shapes for the inputs."""
        device = weights_of(module)[1]
        sizes = iter(shapes)
        leaves = [
            torch.zeros(next(sizes), dtype=leaf.kind, device=device)
            if isinstance(leaf, Input)
            else leaf
            for leaf in self.leaves
        ]
        args, kwargs = _pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

    def dynamic(self, module: torch.nn.Module, axes: Sequence[Sequence[int]]) -> Any:
        """What torch.export is to know of the arguments: the axes of each input whose sizes may
        differ from call to call."""
        own = iter(axes)
        dims = [_Axes(next(own)) if isinstance(leaf, Input) else None for leaf in self.leaves]
        args, kwargs = _pytree.tree_unflatten(dims, self.spec)
        named = _bound(module, args, kwargs)
        return _pytree.tree_map(
            lambda leaf: leaf.dims() if isinstance(leaf, _Axes) else None, named
        )


@dataclass(frozen=True)
class _Axes:
    """Stands for the axes of a tensor, where a tuple of them would be taken for several leaves."""

    axes: Sequence[int]

    def dims(self) -> dict[int, Any]:
        return dict.fromkeys(self.axes, Dim.AUTO)


def _calling(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], dtype: str | None
) -> Calling:
    """From arguments that have dtypes of torch's in place of tensors; `dtype`: the graph's, where
    it is not the same."""
    leaves, spec = _pytree.tree_flatten((tuple(args), dict(kwargs)))
    named, _ = _pytree.tree_flatten_with_path(_bound(module, args, kwargs))
    names = iter(_unique([place_name(path, "x") for path, _ in _alone(module, named)]))
    made = []
    for leaf in leaves:
        name = next(names)
        if isinstance(leaf, torch.dtype):
            if leaf not in DTYPES:
                raise InputError(f"input {name} is of {leaf}, which Lucid has no counterpart of")
            leaf = Input(name, dtype or DTYPES[leaf], leaf)
        made.append(leaf)
    return Calling(made, spec)


def _parameters(module: torch.nn.Module) -> dict[str, inspect.Parameter]:
    """Of the forward, by name; none of one that is not Python."""
    try:
        return dict(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        return {}


def _in_order(
    module: torch.nn.Module, inputs: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Named arguments in the order of the forward's parameters."""
    bound = [n for n in _bound(module, inputs, named) if n in named]
    return {name: named[name] for name in (*bound, *(n for n in named if n not in bound))}


def _bound(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Arguments by the names of the forward's parameters. Raises InputError where they do not
    fit."""
    parameters = _parameters(module)
    if not parameters:
        return {f"x{i}" if i else "x": a for i, a in enumerate(args)} | dict(kwargs)
    try:
        return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
    except TypeError as problem:
        told = [f"{len(args)} by position"] if args or not kwargs else []
        told += [f"{', '.join(kwargs)} by name"] if kwargs else []
        takes = ", ".join(map(_parameter, parameters.values()))
        raise InputError(
            f"the forward of {type(module).__name__} takes {takes}, got {' and '.join(told)} "
            f"({problem}): give an example of each input that it needs, as in "
            "lucid.compile(module, example_inputs=(a, b), kwargs={'c': c})"
        ) from None


def _parameter(parameter: inspect.Parameter) -> str:
    """`x`, `mask (optional)`, `*images`"""
    stars: dict[Any, str] = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    text = stars.get(parameter.kind, "")
    optional = parameter.default is not parameter.empty
    return f"{text}{parameter.name}{' (optional)' if optional else ''}"


def _alone(module: torch.nn.Module, named: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Leaves and their paths, from which what `*images` alone holds is called `images`, and what
    `**options` holds by its own name."""
    parameters = _parameters(module)
    made = []
    for path, leaf in named:
        parameter = parameters.get(path[0].key)
        kind = parameter.kind if parameter is not None else None
        if kind is inspect.Parameter.VAR_KEYWORD:
            path = path[1:]
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            count = sum(other[0] == path[0] for other, _ in named)
            path = path[:1] if count == 1 else path
        made.append((path, leaf))
    return made


def place_name(path: Sequence[Any], otherwise: str) -> str:
    """A name for what lies at a place in nested tensors: `boxes_0`."""
    parts = [str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path]
    name = re.sub(r"\W", "_", "_".join(filter(None, parts)), flags=re.ASCII)
    return name if re.match(r"[A-Za-z_]", name) else otherwise


def _unique(names: Sequence[str]) -> list[str]:
    made: list[str] = []
    for name in names:
        count, fresh = 0, name
        while fresh in made:
            count += 1
            fresh = f"{name}_{count}"
        made.append(fresh)
    return made


def _tensor(leaf: Any) -> Any:
    """An array as a tensor, by its memory; tensors and constants as they are."""
    constant = leaf is None or isinstance(leaf, bool | int | float | str | torch.device)
    if isinstance(leaf, torch.Tensor) or (constant and not isinstance(leaf, np.generic)):
        return leaf
    try:
        array = np.asarray(leaf)
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    except (TypeError, ValueError) as problem:
        raise InputError(
            f"an input is a tensor, an array, or a list, tuple or dict of them; got {kind_of(leaf)}"
        ) from problem


def weights_of(module: torch.nn.Module) -> tuple[torch.dtype, Any]:
    """The dtype and device of the module's weights."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return torch.float32, None
