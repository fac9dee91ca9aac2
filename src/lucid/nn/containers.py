"""Modules that hold other modules by number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from lucid.nn.module import Module


class ModuleList(Module):
    """Modules by number. Its own forward does nothing: the module that holds it calls them."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def append(self, module: Module) -> Self:
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> list[Module]: ...

    def __getitem__(self, index: int | slice) -> Module | list[Module]:
        return list(self.children())[index]


class Sequential(ModuleList):
    """One module after the other: `Sequential(a, b)` or `Sequential({"first": a, "then": b})`."""

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        for module in modules:
            if isinstance(module, Mapping):
                for name, part in module.items():
                    self.add_module(name, part)
            else:
                self.append(module)

    def forward(self, input: Any) -> Any:
        for module in self.children():
            input = module(input)
        return input
