"""A graph for inputs of another size, by the shape rules of its ops alone."""

from __future__ import annotations

from lucid.ir.graph import Graph, Value


def resized(graph: Graph, shape: tuple[int, ...]) -> Graph:
    """The same ops over an input of this shape, whose batch stays symbolic.

    Where an attribute depends on the size (a reshape's, the places of a slice), the result is not
    what the model means: who asks must know that none does. Raises ShapeError where an op does not
    take what it is given.
    """
    other = Graph(graph.name, graph.payload)
    mapped: dict[Value, Value] = {}
    for value in graph.inputs:
        type = value.type.with_shape((value.type.shape[0], *shape[1:]))
        mapped[value] = other.add_input(type, value.name)
    for name, parameter in graph.parameters.items():
        mapped[parameter] = other.add_parameter(name, parameter.recipe)
    for node in graph.nodes:
        new = other.append(
            node.op,
            [mapped[v] for v in node.inputs],
            names=[v.name for v in node.outputs],
            origin=node.origin,
            fused_from=node.fused_from,
            location=node.location,
        )
        mapped.update(zip(node.outputs, new.outputs, strict=True))
    other.set_outputs(mapped[v] for v in graph.outputs)
    return other
