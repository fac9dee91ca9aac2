"""What torch has exported of a module, kept for its life: an export takes seconds, and serves every
batch, other sizes of images as far as torch can tell, and further compilations of the module.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram

from lucid.frontend.torch.calling import Calling, weights_of
from lucid.frontend.torch.program import ExportError, TooLong, exported_program
from lucid.frontend.torch.sizes import Sizes, bound, hold, serves_any_batch
from lucid.ir.types import Shapes

EXAMPLE_BATCH = 2
"""The batch that a forward is exported with where 0 or 1 are asked for, which torch takes for fixed
sizes."""
PATIENCE = 2.0
"""An export whose heights, widths and lengths are symbols is given up, for one of fixed sizes, once
it has taken so many times what the first export took, and a second. Of most networks it takes as
long; gcvit_tiny, 6 s, had not ended after 190."""
PROGRAMS_KEPT = 8
"""Programs of one module; each is a graph without weights."""


@dataclass(eq=False)
class Exported:
    """A program; the shapes of its inputs, with torch's symbols; what must hold for these, beside;
    and the attributes that the forward assigned (`refuse_kept_state`)."""

    program: ExportedProgram
    patterns: list[tuple[Any, ...]]
    conditions: list[Any]
    ranges: dict[Any, Any]
    assigned: set[str]
    seconds: float

    def any_batch(self, shapes: Shapes) -> Sizes | None:
        """The sizes for inputs of these shapes, the batch N; None where the program does not serve
        every batch, or not these shapes."""
        if list(map(len, shapes)) != list(map(len, self.patterns)):
            return None
        batch = _batch(shapes)
        axes = [
            s[0] for s, shape in zip(self.patterns, shapes, strict=True) if shape[:1] == (batch,)
        ]
        symbols = [d.node.expr for d in axes if isinstance(d, torch.SymInt)]
        symbols = [s for s in symbols if s.is_Symbol]
        values = bound(self.patterns, shapes)
        others = [d for pattern in self.patterns for d in pattern[1:]]
        inner = {x for d in others if isinstance(d, torch.SymInt) for x in d.node.expr.free_symbols}
        if values is None or not symbols or inner & set(symbols):
            return None
        rest = {s: v for s, v in values.items() if s not in symbols}
        sizes = Sizes(rest, symbols)
        inside = self._inside(rest)
        return sizes if inside and serves_any_batch(self.conditions, sizes) else None

    def at(self, shapes: Shapes) -> Sizes | None:
        """The sizes for inputs of exactly these shapes; None where the program does not serve
        them."""
        values = bound(self.patterns, shapes)
        if values is None or not self._inside(values):
            return None
        sizes = Sizes(values)
        return sizes if hold(self.conditions, sizes, 0) else None

    def _inside(self, values: dict[Any, int]) -> bool:
        ranges = ((value, self.ranges.get(symbol)) for symbol, value in values.items())
        return all(r is None or r.lower <= value <= r.upper for value, r in ranges)


def _batch(shapes: Shapes) -> int | None:
    """The leading size of the first input that has one."""
    return next((shape[0] for shape in shapes if shape), None)


@dataclass
class Programs:
    """The programs of one module, called in one way."""

    made: list[Exported] = field(default_factory=list)
    asked: list[Shapes] = field(default_factory=list)

    def found(self, module: torch.nn.Module, calling: Calling, shapes: Shapes) -> Exported:
        """A program for inputs of these shapes, the batch any where torch can have it so."""
        for known in self.made:
            if self._serves(known, shapes):
                return known
        made = self._made(module, calling, shapes)
        self.made = [*self.made, made][-PROGRAMS_KEPT:]
        self.asked = [*self.asked, shapes][-PROGRAMS_KEPT:]
        return made

    def exactly(self, module: torch.nn.Module, calling: Calling, shapes: Shapes) -> Exported:
        """A program for inputs of exactly these shapes."""
        for known in self.made:
            if known.patterns and known.at(shapes) is not None:
                return known
        made = _fixed(module, calling, shapes)
        self.made = [*self.made, made][-PROGRAMS_KEPT:]
        return made

    @staticmethod
    def _serves(known: Exported, shapes: Shapes) -> bool:
        return known.any_batch(shapes) is not None or known.at(shapes) is not None

    def _made(self, module: torch.nn.Module, calling: Calling, shapes: Shapes) -> Exported:
        """With the batch dynamic; from the second size on, all sizes that images may differ by."""
        batch = _batch(shapes)
        sized = shapes
        leading: list[tuple[int, ...]] = [(0,) if s[:1] == (batch,) else () for s in shapes]
        if batch is not None and batch < EXAMPLE_BATCH:
            sized = tuple(
                (EXAMPLE_BATCH, *shape[1:]) if axes else shape
                for shape, axes in zip(shapes, leading, strict=True)
            )
        attempts: list[tuple[Shapes, list[tuple[int, ...]], float | None]] = []
        free = self._free_axes(shapes)
        if any(free):
            axes = [tuple(sorted({*a, *b})) for a, b in zip(leading, free, strict=True)]
            seconds = max(known.seconds for known in self.made)
            attempts.append((sized, axes, PATIENCE * seconds + 1))
        attempts.append((sized, leading, None))
        for given, axes, limit in attempts:
            try:
                with _within(limit):
                    made = _export(module, calling, given, axes)
            except (ExportError, TooLong):
                continue
            if self._serves(made, shapes):
                return made
        return _fixed(module, calling, shapes)

    def _free_axes(self, shapes: Shapes) -> list[tuple[int, ...]]:
        """The axes behind the first whose sizes have differed, or are those of images that have;
        none where nothing differs."""
        ranks = list(map(len, shapes))
        others = [known for known in self.asked if list(map(len, known)) == ranks]
        free = []
        for i, shape in enumerate(shapes):
            unlike = {a for o in others for a in range(1, len(shape)) if o[i][a] != shape[a]}
            free.append(tuple(unlike | set(range(2, len(shape))) if unlike else ()))
        return free


def _fixed(module: torch.nn.Module, calling: Calling, shapes: Shapes) -> Exported:
    """For exactly these shapes. Raises TraceError."""
    try:
        return _export(module, calling, shapes, [()] * len(shapes))
    except ExportError as problem:
        given = {i.kind for i in calling.inputs if i.kind.is_floating_point}
        own = weights_of(module)[0]
        raise problem.told(_unlike(given - {own}, own)) from None


def _unlike(given: set[torch.dtype], own: torch.dtype) -> str:
    """What may be meant, where inputs are of other floats than the weights."""
    if not given:
        return ""
    kinds = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in given))
    return f"; its inputs are of {kinds}, its weights of {str(own).removeprefix('torch.')}"


def _export(
    module: torch.nn.Module, calling: Calling, shapes: Shapes, axes: Sequence[Sequence[int]]
) -> Exported:
    began = time.perf_counter()
    program, assigned, original = exported_program(module, calling, shapes, axes)
    nodes = {n.name: n for n in original.graph.nodes if n.op == "placeholder"}
    user = [nodes[name] for name in _user_inputs(original)]
    values = [node.meta.get("val") for node in user]
    patterns = [tuple(v.shape) for v in values if isinstance(v, torch.Tensor)]
    symbolic: list[Any] = [d for p in patterns for d in p if isinstance(d, torch.SymInt)]
    environment = symbolic[0].node.shape_env if symbolic else None
    conditions = [] if environment is None else [g.expr for g in environment.guards]
    ranges = {} if environment is None else dict(environment.var_to_range)
    seconds = time.perf_counter() - began
    return Exported(program, patterns, conditions, ranges, assigned, seconds)


def _user_inputs(program: ExportedProgram) -> Iterator[str]:
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            yield spec.arg.name


class _within:  # noqa: N801  # a context manager
    """Ends an export of this thread, at the next module that is called, after so many seconds."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        if self.seconds is None:
            self._hook = None
            return
        end, thread = time.perf_counter() + self.seconds, threading.get_ident()

        def check(*_: Any) -> None:
            if time.perf_counter() > end and threading.get_ident() == thread:
                raise TooLong

        self._hook = torch.nn.modules.module.register_module_forward_pre_hook(check)

    def __exit__(self, *_: Any) -> None:
        if self._hook is not None:
            self._hook.remove()


# -- kept for the life of a module --------------------------------------------------------------


_kept: weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, dict[Any, Programs]]] = (
    weakref.WeakKeyDictionary()
)


def programs_of(module: torch.nn.Module, calling: Calling) -> Programs:
    """The programs of a module that is called in this way, those from before as long as nothing of
    the module has changed but the elements of its parameters and buffers."""
    state = _state_of(module)
    known = _kept.get(module)
    if known is None or known[0] != state:
        known = _kept[module] = (state, {})
    return known[1].setdefault(calling.key, Programs())


class _Same:
    """An object as part of a module's state: equal to itself alone, while it lives."""

    def __init__(self, thing: Any) -> None:
        self._thing: Any
        try:
            self._thing = weakref.ref(thing)
        except TypeError:  # unknown: never the same
            self._thing = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or self._thing is None or other._thing is None:
            return False
        own = self._thing()
        return own is not None and own is other._thing()

    __hash__ = None  # type: ignore[assignment]


OWN = ("training", "_parameters", "_buffers", "_modules", "_is_full_backward_hook")
"""Attributes of modules that are looked at in another way, or are of no account."""
DEPTH = 4
"""Levels of containers in an attribute that are looked into."""


def _state_of(module: torch.nn.Module) -> Any:
    """All of a module that a program depends on, to compare."""
    parts = [
        (name, type(part), *_attributes(part))
        for name, part in module.named_modules(remove_duplicate=False)
    ]
    tensors = itertools.chain(
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    shapes = [(name, tuple(t.shape), t.dtype, t.device) for name, t in tensors]
    tied: dict[int, list[str]] = {}
    for name, t in module.named_parameters(remove_duplicate=False):
        tied.setdefault(id(t), []).append(name)
    return parts, shapes, list(tied.values())


def _attributes(part: torch.nn.Module) -> Iterator[Any]:
    for name, value in part.__dict__.items():
        if name not in OWN:
            yield name, _looked_at(value, DEPTH)


def _looked_at(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | str | bytes | torch.dtype):
        return type(value), repr(value)
    if isinstance(value, torch.Tensor):
        return _Same(value), value._version
    if depth and isinstance(value, tuple | list | set | frozenset):
        return type(value), [_looked_at(v, depth - 1) for v in value]
    if depth and isinstance(value, dict):
        return type(value), [(repr(k), _looked_at(v, depth - 1)) for k, v in value.items()]
    return _Same(value)
