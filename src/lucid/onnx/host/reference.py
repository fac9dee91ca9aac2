"""Operators by the reference implementations of the package onnx."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from lucid.errors import UnsupportedError
from lucid.onnx.operator import Operator


def evaluate(operator: Operator, values: Mapping[str, Any]) -> list[Any]:
    """The results of an operator for values of the names that it reads, in the file's types.

    Raises UnsupportedError where onnx has no implementation, or that refuses its operands.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(_evaluator(operator).run(None, dict(values)))
    except Exception as problem:  # whatever the package raises
        raise UnsupportedError(
            f"{operator.kind} {operator.where} runs by the reference of the package onnx, which"
            f" refuses it: {type(problem).__name__}: {problem}"
        ) from problem


@lru_cache(maxsize=256)
def _evaluator(operator: Operator) -> Any:
    from onnx.helper import make_empty_tensor_value_info, make_graph, make_model, make_opsetid
    from onnx.reference import ReferenceEvaluator

    proto = operator.proto
    inputs = [make_empty_tensor_value_info(name) for name in operator.reads]
    outputs = [make_empty_tensor_value_info(name) for name in proto.output if name]
    graph = make_graph([proto], "operator", inputs, outputs)
    opsets = [make_opsetid(domain, version) for domain, version in operator.opsets.items()]
    return ReferenceEvaluator(make_model(graph, opset_imports=opsets))
