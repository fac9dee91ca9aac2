"""onnx's own node tests through `lucid.compile`: what becomes of each.

A status is `native` (right, and nothing ran in NumPy), `interpreted` (right, and NumPy ran nothing
but a small graph behind sizes that are computed at run time), `host` (right), `refused` (a
LucidError), or why it is none of these.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import lucid
from lucid.errors import LucidError

RECORD = Path(__file__).parent / "data" / "onnx_node_tests.json"
"""Statuses by test, as `python docs/draw_node_tests.py` has last seen them."""

ORDER = ("refused", "host", "interpreted", "native")
"""Statuses, from the least."""


def cases() -> Iterator[Any]:
    """All tests that the package has for single operators."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from load_model_tests(kind="node")


def recorded() -> dict[str, str]:
    record: dict[str, str] = json.loads(RECORD.read_text())
    return record


def operator_of(case: Any) -> str:
    """The operator that a test is of; that of its function where it is written out."""
    name = case.name.removeprefix("test_").removesuffix("_expanded")
    kinds = [node.op_type for node in case.model.graph.node]
    if not case.name.endswith("_expanded") and len(set(kinds)) == 1:
        return str(kinds[0])
    return f"{name.split('_')[0]} (several operators)"


def status_of(case: Any) -> str:
    """What becomes of a test."""
    inputs, wanted = case.data_sets[0]
    try:
        compiled = lucid.compile(case.model)
        results = compiled(*inputs)
    except LucidError:
        return "refused"
    results = results if isinstance(results, tuple) else (results,)
    for got, want in zip(results, wanted, strict=True):
        problem = difference(case, got, want)
        if problem:
            return problem
    if ran_on_host(compiled):
        return "host"
    return "interpreted" if compiled._source.model.interpreted else "native"


def ran_on_host(compiled: Any) -> bool:
    stages = (compiled, *compiled.further_stages)
    return any(stage.host_ops for stage in stages) or bool(compiled._source.model.hosted)


def difference(case: Any, got: Any, want: Any) -> str:
    """How a result differs from what is wanted; empty if it does not."""
    if want is None or isinstance(want, list):
        return "" if str(got) == str(want) else "another sequence or optional"
    if type(want).__name__ == "TensorProto" and isinstance(got, np.ndarray):
        from onnx.numpy_helper import to_array

        want = to_array(want)  # of a test whose inputs are arrays
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{got.shape} for {want.dtype}{want.shape}"
    if want.dtype.kind in "OSU":
        return "" if np.array_equal(got, want) else "other strings"
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    near = np.allclose(got.astype(wide), want.astype(wide), case.rtol, case.atol, equal_nan=True)
    return "" if near else "other numbers"
