"""Exporting a module: `torch.export` with a dynamic batch, in evaluation mode, decomposed as far as
there are no emitters.

What an emitter is there for is kept whole: `silu` says more than a product with a sigmoid.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import Dim, ExportedProgram, default_decompositions, export
from torch.fx import Graph, Node

from lucid.errors import TraceError
from lucid.frontend.torch.aliasing import DROPOUTS, PERHAPS_VIEWS, changes_show, is_mutation
from lucid.frontend.torch.writer import emitter_name, has_emitter

EXAMPLE_BATCH = 2
"""The batch that the forward runs with while it is exported: 0 and 1 are special to torch."""


def export_program(module: torch.nn.Module, shape: Sequence[int]) -> ExportedProgram:
    """The module's forward for inputs of `shape`, the first dimension any batch.

    The module is left as it is found: it is exported in evaluation mode, which is undone after.
    Raises TraceError where torch cannot export it.
    """
    example = _example(module, (EXAMPLE_BATCH, *shape[1:]))
    with _evaluating(module), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own code
        try:
            program = export(module, (example,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
            if _needs_decomposition(program.graph):
                program = program.run_decompositions(_decompositions())
        except Exception as error:  # torch raises many kinds, most of them its own
            raise TraceError(_explain(module, shape, error)) from error
    return program


def _example(module: torch.nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """An input of the dtype and on the device of the module's weights."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    return torch.zeros(shape)


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Until left, the module and all in it are in evaluation mode."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _explain(module: torch.nn.Module, shape: Sequence[int], error: Exception) -> str:
    """What torch says, without its pages of advice."""
    text = re.split(r"\n\s*\n|\n\s*The error above occurred", str(error).strip())[0]
    kind = type(error).__name__
    if "dynamic" in text.lower() or "constraint" in kind.lower() or "specializ" in text.lower():
        text += (
            "; the forward must work for any batch size: no branch on x.shape[0], and no fixed "
            "batch in a reshape (-1 or x.shape[0] instead)"
        )
    size = ", ".join(map(str, shape))
    name = type(module).__name__
    return f"torch.export cannot export {name} for an input of ({size}): {kind}: {text}"


# -- decompositions -----------------------------------------------------------------------------


def _decompositions() -> Any:
    """Torch's way to core ATen, without the operators that have an emitter (but with what may give
    its operand itself, through which changes in place go)."""
    table = default_decompositions()
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
