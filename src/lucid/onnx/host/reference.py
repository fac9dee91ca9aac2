"""Operators by the reference implementations of the package onnx."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from lucid.errors import UnsupportedError
from lucid.onnx.host import quantised
from lucid.onnx.host.control import RUNS
from lucid.onnx.operator import Operator

RENAMED = {"Scatter": ("ScatterElements", 11)}
"""Operators that newer versions call something else: the name, and the version that has it."""


def obstacle(operator: Operator) -> str:
    """Why an operator cannot be run on the host, whatever its operands are; empty where it can."""
    if operator.kind in quantised.RUNS:
        return ""
    if operator.schema is None:
        return "no version of ONNX has such an operator"
    if operator.proto.op_type in RUNS and not operator.domain:
        return ""
    if _is_random(operator.schema):
        return (
            "it draws random numbers, which no two implementations share: give them to the model as"
            " an input"
        )
    try:
        _evaluator(operator)
    except Exception as problem:  # whatever the package raises
        return f"the reference of the package onnx has none: {type(problem).__name__}"
    return ""


def evaluate(operator: Operator, values: Mapping[str, Any]) -> list[Any]:
    """The results of an operator for values of the names that it reads, in the file's types.

    Raises UnsupportedError where onnx has no implementation, or that refuses its operands.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = quantised.RUNS.get(operator.kind)
            ran = own(operator, values) if own else _evaluator(operator).run(None, dict(values))
            given = iter(ran)
            return [next(given) if name else None for name in operator.proto.output]
    except Exception as problem:  # whatever the package raises
        raise UnsupportedError(
            f"{operator.kind} {operator.where} runs by the reference of the package onnx, which"
            f" refuses it: {type(problem).__name__}: {problem}"
        ) from problem


@lru_cache(maxsize=256)
def _evaluator(operator: Operator) -> Any:
    from onnx.helper import make_empty_tensor_value_info, make_graph, make_model, make_opsetid
    from onnx.reference import ReferenceEvaluator

    proto, opsets = operator.proto, dict(operator.opsets)
    if proto.op_type in RENAMED:
        proto = type(proto).FromString(proto.SerializeToString())
        proto.op_type, opsets[""] = RENAMED[proto.op_type]
    inputs = [make_empty_tensor_value_info(name) for name in operator.reads]
    outputs = [make_empty_tensor_value_info(name) for name in proto.output if name]
    graph = make_graph([proto], "operator", inputs, outputs)
    versions = [make_opsetid(domain, version) for domain, version in opsets.items()]
    return ReferenceEvaluator(make_model(graph, opset_imports=versions))


def _is_random(schema: Any) -> bool:
    from onnx.defs import OpSchema

    determined: bool = schema.node_determinism == OpSchema.NodeDeterminism.NonDeterministic
    return determined and schema.name != "Dropout"  # which has a seed in its own right
