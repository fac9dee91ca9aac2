"""The element types of what operators give, by the numbers that ONNX has for them.

Graphs compute truth values and all floats in f32; what a name of the file is said to hold tells
what `CastLike`, sequences, operators that run on the host, and outputs make of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from lucid.onnx.operator import Operator

FLOAT, UINT8, INT64, STRING, BOOL, DOUBLE = 1, 2, 7, 8, 9, 11

STATED = {
    "Cast": "to",
    "BitCast": "to",
    "RandomNormal": "dtype",
    "RandomUniform": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniformLike": "dtype",
    "EyeLike": "dtype",
    "Bernoulli": "dtype",
    "Multinomial": "dtype",
    "HannWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "BlackmanWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
    "DequantizeLinear": "output_dtype",
    "QuantizeLinear": "output_dtype",
}
"""Operators that say the element type of their result, and in which attribute."""

DEFAULTS = {
    "RandomNormal": FLOAT,
    "RandomUniform": FLOAT,
    "Multinomial": 6,
    "HannWindow": FLOAT,
    "HammingWindow": FLOAT,
    "BlackmanWindow": FLOAT,
    "MelWeightMatrix": FLOAT,
    "ConstantOfShape": FLOAT,
    "QuantizeLinear": UINT8,
    "PaddedNonMaxSuppression": INT64,
}
"""What those give that do not."""

CONSTANTS = {
    "value_float": FLOAT,
    "value_floats": FLOAT,
    "value_int": INT64,
    "value_ints": INT64,
    "value_string": STRING,
    "value_strings": STRING,
}


def result_types(operator: Operator, types: Mapping[str, int]) -> list[int]:
    """The element type of each result; 0 where that is not told. Of a sequence or an optional, that
    of its elements."""
    stated = _stated(operator)
    schema = operator.schema
    count = len(operator.proto.output)
    if stated:
        return [stated] * count
    if schema is None:
        return [0] * count
    bound = _bound(operator, schema, types)
    formal = [_name(o) for o in schema.outputs]
    if not formal:
        return [0] * count
    names = [formal[min(i, len(formal) - 1)] for i in range(count)]
    return [bound.get(name) or _concrete(name) for name in names]


def _stated(operator: Operator) -> int:
    attributes = {a.name: a for a in operator.proto.attribute}
    kind = operator.proto.op_type
    name = STATED.get(kind)
    if name in attributes and attributes[name].i:
        return int(attributes[name].i)
    if kind in ("Constant", "ConstantOfShape") and "value" in attributes:
        return int(attributes["value"].t.data_type)
    if kind == "Constant":
        return next((number for name, number in CONSTANTS.items() if name in attributes), 0)
    if kind == "QuantizeLinear" and len(operator.proto.input) > 2 and operator.proto.input[2]:
        return 0
    return DEFAULTS.get(kind, 0)


def _bound(
    operator: Operator, schema: onnx.defs.OpSchema, types: Mapping[str, int]
) -> dict[str, int]:
    """What the type variables of an operator stand for, by the operands that it has."""
    bound: dict[str, int] = {}
    formal: Sequence[str] = [_name(i) for i in schema.inputs]
    for index, name in enumerate(operator.proto.input):
        if name and formal:
            bound.setdefault(formal[min(index, len(formal) - 1)], types.get(name, 0))
    if operator.proto.op_type == "QuantizeLinear":
        bound.setdefault("T2", types.get(next(iter(operator.proto.input[2:3]), ""), 0))
    return bound


def _name(parameter: onnx.defs.OpSchema.FormalParameter) -> str:
    """The type variable, without what is around it: `S` is a sequence of `T`, `seq(T)`."""
    text = str(parameter.type_str)
    return "T" if text in ("S", "O", "V", "seq(T)", "optional(T)") else text


def _concrete(name: str) -> int:
    """`tensor(int64)` -> 7; 0 for what is no such type."""
    from onnx import TensorProto

    if not name.startswith("tensor("):
        return 0
    element = name.removeprefix("tensor(").removesuffix(")").upper()
    numbers: dict[str, int] = dict(TensorProto.DataType.items())
    return numbers.get(element, 0)
