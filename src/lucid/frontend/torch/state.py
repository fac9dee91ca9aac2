"""Mutable state of a module: the tensors that its forward writes to.

A graph keeps nothing. Where no result depends on what was written, the writing is left out; where
one does, the forward is refused: it would give the first call's result for ever.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping

from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node

from lucid.errors import TraceError
from lucid.frontend.torch.aliasing import is_mutation, memory
from lucid.frontend.torch.places import place_of
from lucid.frontend.torch.tables import depends_on_shape_only


def refuse_changed_constants(name: str, program: ExportedProgram) -> None:
    """Raises TraceError where a forward writes to a tensor that is no buffer of its module."""
    constants = program.graph_signature.inputs_to_lifted_tensor_constants
    for node in filter(is_mutation, program.graph.nodes):
        target = constants.get(memory(node).name)
        if target is not None:
            raise TraceError(_complaint(name, {f"the tensor {target}": _place(node)}))


def refuse_kept_state(name: str, program: ExportedProgram, assigned: Collection[str]) -> None:
    """Raises TraceError where a result depends on what the forward of the module called `name`
    writes and would read at its next call; warns of what it writes to no effect.

    `assigned`: attributes that the forward has set to other tensors.
    """
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    read = _read_by_results(program, nodes)
    harmful, harmless = {}, []
    for spec in signature.output_specs:
        if spec.kind.name in ("BUFFER_MUTATION", "PARAMETER_MUTATION"):
            if spec.target in read:
                kind = spec.kind.name.partition("_")[0].lower()
                harmful[f"the {kind} {spec.target}"] = _place(nodes[spec.arg.name])
            else:
                harmless.append(str(spec.target))
    harmful |= {f"the attribute {target}": "" for target in assigned if target in read}
    if harmful:
        raise TraceError(_complaint(name, harmful))
    if harmless:
        warnings.warn(
            f"the forward of {name} writes to {', '.join(harmless)}, on which its result does not "
            "depend: the compiled model does not write there",
            stacklevel=2,
        )


def _read_by_results(program: ExportedProgram, nodes: Mapping[str, Node]) -> set[str | None]:
    """The names of the tensors of the module whose elements some result depends on."""
    signature = program.graph_signature
    kept = [s for s in signature.output_specs if s.kind is OutputKind.USER_OUTPUT]
    reached = _reached(nodes[s.arg.name] for s in kept if getattr(s.arg, "name", "") in nodes)
    return {s.target for s in signature.input_specs if nodes.get(s.arg.name) in reached}


def _reached(nodes: Iterable[Node]) -> set[Node]:
    """The nodes, and all whose elements they depend on."""
    reached: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += [] if depends_on_shape_only(node) else node.all_input_nodes
    return reached


def _place(node: Node) -> str:
    module, line = place_of(node)
    return (f" in {module}" if module else "") + (f" at {line}" if line else "")


def _complaint(name: str, written: Mapping[str, str]) -> str:
    targets = " and ".join(f"{what}{place}" for what, place in written.items())
    return (
        f"the forward of {name} writes to {targets}, and its result depends on it: a compiled "
        "model keeps nothing from one call to the next. Let the forward write only while training "
        "(`if self.training:`), or take the state as its input and return it"
    )
