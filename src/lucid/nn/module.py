"""`Module`, the base of networks, which holds parameters, buffers and other modules.

They are ordinary attributes, found by their class. Lucid runs networks and does not train them:
modules always evaluate with running statistics.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from lucid.errors import LucidError
from lucid.frontend import recording
from lucid.frontend.weights import load_weights, match_weights
from lucid.nn.parameter import Buffer, Parameter

if TYPE_CHECKING:
    from lucid.vision import Preprocess

T = TypeVar("T")


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` could not place."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def _unimplemented(self: Module, *inputs: Any) -> Any:
    raise NotImplementedError(f"{type(self).__name__} defines no forward")


class Module:
    """Base of all modules. Subclasses set their parts as attributes and define `forward`."""

    training = False
    forward: Callable[..., Any] = _unimplemented
    preprocess: Preprocess | None = None
    """What an image goes through to suit the model, where that is known."""
    _name: str | None = None

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        recorder = recording.active.get()
        if recorder is None:
            return self.forward(*inputs, **options)
        with recorder.scope(self):
            return self.forward(*inputs, **options)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            value.adopt(name)
        elif isinstance(value, Module):
            for _, tensor in value.named_tensors():
                tensor.adopt(name)
        object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """What graphs of this model are called: its registered name, else the class's."""
        return self._name or type(self).__name__

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    # -- parts ----------------------------------------------------------------------------------

    def register_buffer(self, name: str, tensor: Any) -> None:
        """Hold an array that belongs to the module's state and is not learned."""
        setattr(self, name, None if tensor is None else Buffer(tensor))

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        setattr(self, name, parameter)

    def add_module(self, name: str, module: Module | None) -> None:
        setattr(self, name, module)

    def _own(self, kind: type[T]) -> list[tuple[str, T]]:
        return [(name, value) for name, value in vars(self).items() if isinstance(value, kind)]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from self._own(Module)

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it with their paths, each once, parents first."""
        seen: set[int] = set()

        def walk(module: Module, path: str) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            seen.add(id(module))
            yield path, module
            for name, child in module.named_children():
                yield from walk(child, f"{path}.{name}" if path else name)

        return walk(self, prefix)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def get_submodule(self, path: str) -> Module:
        """The module at a path such as `layer1.0.conv2`. Raises AttributeError."""
        module: Module = self
        for part in path.split(".") if path else ():
            module = getattr(module, part)
        return module

    def named_tensors(self, prefix: str = "", recurse: bool = True) -> list[tuple[str, Parameter]]:
        """Parameters and buffers with their state-dict keys, each tensor once."""
        found: dict[int, tuple[str, Parameter]] = {}
        for path, module in self.named_modules(prefix) if recurse else ((prefix, self),):
            own = module._own(Parameter)
            own.sort(key=lambda item: isinstance(item[1], Buffer))  # a stable sort: buffers last
            for name, tensor in own:
                found.setdefault(id(tensor), (f"{path}.{name}" if path else name, tensor))
        return list(found.values())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        tensors = self.named_tensors(prefix, recurse)
        return ((n, t) for n, t in tensors if not isinstance(t, Buffer))

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (tensor for _, tensor in self.named_parameters("", recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Buffer]]:
        tensors = self.named_tensors(prefix, recurse)
        return ((n, t) for n, t in tensors if isinstance(t, Buffer))

    def buffers(self, recurse: bool = True) -> Iterator[Buffer]:
        return (tensor for _, tensor in self.named_buffers("", recurse))

    # -- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Parameter]:
        """Every parameter and buffer by its key. This call reads or initialises none of them."""
        return dict(self.named_tensors())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Take the values of a state dict: arrays, tensors of Lucid or torch, and their like.

        Raises WeightsError, listing every missing, unexpected and misshapen tensor, and then
        changes nothing. With `strict=False` only misshapen ones are errors.
        """
        return self._take(state_dict, strict, "the state dict")

    def load_weights(self, path: str | os.PathLike[str], strict: bool = True) -> Self:
        """Take the weights of a safetensors, .pth or .pt file. Raises WeightsError."""
        self._take(load_weights(path), strict, str(path))
        return self

    def _take(self, found: Mapping[str, Any], strict: bool, source: str) -> IncompatibleKeys:
        own = self.state_dict()
        shapes = {key: tensor.shape for key, tensor in own.items()}
        matched, unexpected = match_weights(shapes, found, source, self.name, strict)
        for key, values in matched.items():
            own[key].assign(values)
        return IncompatibleKeys([key for key in own if key not in matched], unexpected)

    # -- modes, which Lucid does not have ---------------------------------------------------------

    def eval(self) -> Self:
        """Does nothing: modules always evaluate with running statistics."""
        return self

    def train(self, mode: bool = True) -> Self:
        """Raises LucidError unless `mode` is false: Lucid does not train."""
        if mode:
            raise LucidError(
                f"{type(self).__name__}.train(): Lucid runs networks and does not train them; "
                "train with PyTorch and load the weights with load_weights(path)"
            )
        return self

    # -- looking --------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What the repr says of this module beside its class."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}" for name, child in self.named_children()]
        head = f"{type(self).__name__}({self.extra_repr()}"
        if not lines:
            return f"{head})"
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{head}\n  {body}\n)"
