"""Operators that ONNX defines as functions of others, written out in these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lucid.onnx.operator import Expansion, Operator

if TYPE_CHECKING:
    import onnx

AS_THEY_ARE = frozenset({"SequenceMap", "Bernoulli"})
"""Functions that gain nothing by it: their bodies hold what runs on the host anyway."""


def written_out(operator: Operator, types: Mapping[str, int], prefix: str) -> Expansion | None:
    """The body of the function that an operator is; None where ONNX has none for these types."""
    schema = operator.schema
    if schema is None or operator.proto.op_type in AS_THEY_ARE:
        return None
    function = _body(schema, operator, types)
    if function is None:
        return None
    expansion = Expansion()
    expansion.add_function(function, with_defaults(operator.proto, schema), prefix)
    return expansion


def strangers(operator: Operator) -> str:
    """The attributes and operands that a node has and its operator has not, in words; none may be
    passed over."""
    schema = operator.schema
    if schema is None:
        return ""
    named = [str(a.name) for a in operator.proto.attribute if a.name not in schema.attributes]
    more = range(schema.max_input, len(operator.proto.input))
    told = [*named, *(f"operand {i}" for i in more if operator.proto.input[i])]
    return f"with {', '.join(told)}" if told else ""


def with_defaults(proto: onnx.NodeProto, schema: onnx.defs.OpSchema) -> onnx.NodeProto:
    """The node with the attributes that it leaves at their defaults, which a body may refer to."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    stated = {a.name for a in proto.attribute}
    for name, attribute in schema.attributes.items():
        if name not in stated and attribute.default_value.name:
            copy.attribute.append(attribute.default_value)
    return copy


def _body(
    schema: onnx.defs.OpSchema, operator: Operator, types: Mapping[str, int]
) -> onnx.FunctionProto | None:
    from onnx import FunctionProto

    said: Any = schema  # whose stubs lack these
    if said.has_function:
        version = _latest(said.function_opset_versions, operator.opset)
        fixed: bytes = said.get_function_with_opset_version(version) if version else b""
        return FunctionProto.FromString(fixed) if fixed else None
    if not said.has_context_dependent_function:
        return None
    version = _latest(said.context_dependent_function_opset_versions, operator.opset)
    kinds = [_type(types.get(name, 0)) if name else b"" for name in operator.proto.input]
    body: bytes = said.get_context_dependent_function_with_opset_version(
        version, operator.proto.SerializeToString(), kinds
    )
    return FunctionProto.FromString(body) if body else None


def _latest(versions: list[int], opset: int) -> int:
    return max((v for v in versions if v <= opset), default=0)


def _type(element: int) -> bytes:
    from onnx.helper import make_tensor_type_proto

    data: bytes = make_tensor_type_proto(element, None).SerializeToString()
    return data
