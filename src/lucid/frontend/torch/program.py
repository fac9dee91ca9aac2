"""Exporting a module: `torch.export` in evaluation mode, decomposed where there are no emitters.

What an emitter is there for is kept whole: `silu` says more than a product with a sigmoid.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram, default_decompositions, export
from torch.fx import Graph, Node

from lucid.errors import InputError, TraceError
from lucid.frontend.torch.aliasing import DROPOUTS, PERHAPS_VIEWS, changes_show, is_mutation
from lucid.frontend.torch.calling import Calling
from lucid.frontend.torch.places import line_of, place_of
from lucid.frontend.torch.state import refuse_changed_constants
from lucid.frontend.torch.writer import emitter_name, has_emitter
from lucid.ir.types import Shapes


class ExportError(TraceError):
    """Torch cannot export a forward for some sizes, some of them symbols perhaps. `details`: all
    that it says of it."""

    def __init__(self, module: str, message: str, details: str) -> None:
        super().__init__(message)
        self.module = module
        self.details = details

    def told(self, advice: str) -> TraceError:
        """The error for who cannot go another way."""
        return TraceError(f"{self}{advice}{_report(self.module, self.details)}")


class TooLong(BaseException):
    """An export that takes too long; torch lets only what is no Exception pass."""


def module_of(model: Any) -> torch.nn.Module:
    """The module that `model` is, or that torch.compile or torch.export made it of.

    Raises InputError for what is none.
    """
    if isinstance(model, ExportedProgram):
        return model.module()
    module = getattr(model, "_orig_mod", model)  # of torch.compile
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            "import_torch wants a torch.nn.Module, or what torch.export.export gives, got "
            f"{type(module).__name__}"
        )
    return module


def exported_program(
    module: torch.nn.Module, calling: Calling, shapes: Shapes, axes: Sequence[Sequence[int]]
) -> tuple[ExportedProgram, set[str], ExportedProgram]:
    """The module's forward for inputs of `shapes`, of which the sizes at `axes` are symbols where
    torch can have them so; the attributes that the forward assigned; and the program as torch gave
    it, before it was decomposed.

    The module is left as it is found: it is exported in evaluation mode, which is undone after.
    Raises TraceError where torch cannot export it, InputError where torch.export has made it for
    other sizes.
    """
    name = type(module).__name__
    _require_exported_sizes(module, shapes)
    dynamic = calling.dynamic(module, axes) if any(axes) else None
    args, kwargs = calling.arguments(module, shapes)
    with _evaluating(module), torch.no_grad(), _listening() as heard:
        try:
            original = program = export(module, args, kwargs, dynamic_shapes=dynamic, strict=False)
            refuse_changed_constants(name, program)
            _refuse_mixed_floats(name, program.graph)
            if _needs_decomposition(program.graph):
                program = program.run_decompositions(_decompositions())
        except (TraceError, InputError):
            raise
        except Exception as error:  # torch raises many kinds, most of them its own
            details = "".join(traceback.format_exception(error)) + heard.text.getvalue()
            raise ExportError(name, _explain(name, shapes, error), details) from None
    return program, heard.assigned(), original


PRODUCTS = {
    *("addmm", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "convolution", "linear", "matmul"),
    *("mm", "scaled_dot_product_attention"),
}
"""Operators that take floats of one dtype, which torch checks only where they are computed."""


def _refuse_mixed_floats(name: str, graph: Graph) -> None:
    """Raises InputError where floats of several dtypes are multiplied."""
    for node in graph.nodes:
        if getattr(node.target, "_opname", "") not in PRODUCTS:
            continue
        values = [n.meta.get("val") for n in node.all_input_nodes]
        kinds = {v.dtype for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()}
        if len(kinds) > 1:
            told = " by ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
            module, line = place_of(node)
            place = (f" in {module}" if module else "") + (f" at {line}" if line else "")
            raise InputError(
                f"{name} multiplies {told}{place}, which torch does not: convert its inputs to the "
                "dtype of its weights, as in x.astype(np.float32)"
            )


GUARDS = "_guards_fn"
"""The part of a module made by torch.export that checks the sizes of its input."""


class _Unguarded(torch.nn.Module):
    """In place of such guards: nothing."""

    def forward(self, *inputs: Any) -> None:
        pass


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Until left, the module and all in it are in evaluation mode.

    What torch.export made stays in the mode that it was made in, and takes any batch.
    """
    modes = {part: part.training for part in module.modules()}
    guards = module._modules.get(GUARDS)
    try:
        if guards is not None:
            module._modules[GUARDS] = _Unguarded()
        with suppress(NotImplementedError):  # of torch.export's
            module.eval()
        yield
    finally:
        if guards is not None:
            module._modules[GUARDS] = guards
        for part, training in modes.items():
            part.training = training


def _require_exported_sizes(module: torch.nn.Module, shapes: Shapes) -> None:
    """Raises InputError where torch.export has made a module for other sizes of images."""
    nodes = module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ()
    values = [n.meta.get("val") for n in nodes if n.op == "placeholder"]
    own = [tuple(v.shape) for v in values if isinstance(v, torch.Tensor)]
    if not own:
        return
    if len(own) != len(shapes):
        raise InputError(f"the module was exported for {len(own)} inputs, not {len(shapes)}")
    for sizes, shape in zip(own, shapes, strict=True):
        taken = all(_takes(d, s) for d, s in zip(sizes[1:], shape[1:], strict=False))
        if len(sizes) != len(shape) or not taken:
            told = ", ".join(map(_with_range, sizes))
            raise InputError(
                f"the module was exported for inputs of ({told}), and is to be compiled for "
                f"{tuple(shape)}: export it for that, or with dynamic_shapes"
            )


def _takes(size: int | torch.SymInt, number: int) -> bool:
    """Whether a dimension that was exported may be of this size."""
    if isinstance(size, int):
        return size == number
    limits = _range(size)
    return limits is None or bool(limits.lower <= number <= limits.upper)


def _range(size: torch.SymInt) -> Any:
    """The limits of a symbolic size, where it has such of its own."""
    environment = size.node.shape_env
    return None if environment is None else environment.var_to_range.get(size.node.expr)


def _with_range(size: int | torch.SymInt) -> str:
    """`3`, `s0 (from 6 to 10)`"""
    limits = None if isinstance(size, int) else _range(size)
    if limits is None or "oo" in str(limits.upper):
        return str(size)
    return f"{size} (from {limits.lower} to {limits.upper})"


# -- what torch says ----------------------------------------------------------------------------

LONGEST = 300
"""Characters of what torch says that a message repeats: expressions over sizes may fill pages."""
ASSIGNED = re.compile(r"The tensor attributes? (.+?) (?:was|were) assigned during export")


@dataclass
class _Heard:
    """What torch prints, logs and warns of."""

    text: io.StringIO
    warned: list[warnings.WarningMessage]

    def assigned(self) -> set[str]:
        """The attributes, not buffers, that a forward set to other tensors."""
        found = [ASSIGNED.search(str(w.message)) for w in self.warned]
        paths = [path for match in found if match for path in match[1].split(", ")]
        return {path.removeprefix("self.") for path in paths}


@contextmanager
def _listening() -> Iterator[_Heard]:
    """Keeps what is printed to stderr, logged and warned of meanwhile: torch tells of a failed
    export at length. Where none fails, what was printed is passed on."""
    heard = io.StringIO()
    handlers = logging.getLogger("torch").handlers
    logs = [h for h in handlers if type(h) is logging.StreamHandler]  # torch's own, no heir
    streams = [(handler, handler.setStream(heard)) for handler in logs]
    try:
        with redirect_stderr(heard), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield _Heard(heard, warned)
    finally:
        for handler, stream in streams:
            if stream is not None:
                handler.setStream(stream)
    sys.stderr.write(heard.getvalue())


def _explain(name: str, shapes: Shapes, error: Exception) -> str:
    """The first thing that torch says, and its place."""
    text = re.split(r"\n\s*\n|\n\s*The error above occurred", str(error).strip())[0]
    text = re.sub(r"\s*For more information[^\n]*", "", text)
    kind = type(error).__name__
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ..."
    if "data-dependent" in text:
        text += "; the forward must not branch on the elements of tensors, nor take sizes from them"
    sizes = " and ".join(f"({', '.join(map(str, shape))})" for shape in shapes)
    inputs, line = "an input" if len(shapes) == 1 else "inputs", line_of(error)
    place = f" at {line}" if line else ""
    return f"torch.export cannot export {name} for {inputs} of {sizes}{place}: {kind}: {text}"


def _report(name: str, text: str) -> str:
    """Where all that torch says has been written; empty where it cannot be."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"lucid-{name}-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError:
        return ""
    return f"\nAll that torch says of it is in {file.name}"


# -- decompositions -----------------------------------------------------------------------------


def _decompositions() -> Any:
    """Torch's way to core ATen, without the operators that have an emitter (but with what may give
    its operand itself, through which changes in place go)."""
    table: Any = default_decompositions()
    for target in list(table):
        if has_emitter(target) and target._opname not in PERHAPS_VIEWS | DROPOUTS:
            table.pop(target)
    return table


def _needs_decomposition(graph: Graph) -> bool:
    """Whether there are operators without an emitter on what is not known yet, or changes in place
    that show. (Decomposing takes longer than the export itself.)"""
    known: set[Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr":
            return True
        if node.op != "call_function" or _is_plumbing(node.target):
            continue
        if not is_mutation(node) and all(n in known or _is_size(n) for n in node.all_input_nodes):
            known.add(node)
        elif not has_emitter(node.target):
            return True
    return changes_show(graph)


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), int | torch.SymInt)


def _is_plumbing(target: Any) -> bool:
    """Python's and torch's own functions of sizes, and checks."""
    return not isinstance(target, torch._ops.OpOverload) or emitter_name(target) in IGNORED


IGNORED = {
    "aten._assert_async.msg",
    "aten._assert_scalar.default",
    "aten._assert_tensor_metadata.default",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
    "aten.sym_size.int",
}
"""Operators that give no tensor: checks, and sizes, which are known anyway."""
