"""Writes docs/onnx-node-tests.md, and what tests/onnx_files/test_onnx_nodes.py holds Lucid to.

pip install onnx==1.23.2
PYTHONPATH=src:tests python docs/draw_node_tests.py      # some minutes
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path

from node_tests import ORDER, RECORD, cases, operator_of, status_of

COLUMNS = ("native", "interpreted", "host", "refused", "wrong")
PAGE = Path(__file__).parent / "onnx-node-tests.md"


def main() -> None:
    warnings.simplefilter("ignore")
    record: dict[str, str] = {}
    operators: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for case in cases():
        status = status_of(case)
        if status not in ORDER:
            print(f"{case.name}: {status}", file=sys.stderr)
        record[case.name] = status if status in ORDER else "refused"
        operators[operator_of(case)][status if status in ORDER else "wrong"] += 1
    RECORD.write_text(json.dumps(record, indent=0, sort_keys=True) + "\n")
    PAGE.write_text(page(operators))


def page(operators: dict[str, Counter[str]]) -> str:
    total = sum(operators.values(), Counter())
    right = total["native"] + total["interpreted"] + total["host"]
    lines = [
        "# ONNX's own node tests",
        "",
        f"The package onnx {version('onnx')} brings {sum(total.values())} tests of single"
        f" operators. Through `lucid.compile`, {right} give the right result: {total['native']}"
        f" natively, {total['interpreted']} with a small graph that is interpreted in NumPy, as its"
        " sizes are computed at run time and compiling it would not pay,"
        f" and {total['host']} with operators that run in NumPy between the"
        f' native calls (a warning names them, `lucid.CompileOptions(host_ops="refuse")` refuses'
        f" them). {total['refused']} are refused with a message that says why; {total['wrong']} are"
        " wrong.",
        "",
        "Those refused mix arrays and `onnx.TensorProto`s, draw random numbers, speak version 1 of"
        " ONNX's operators, or compute with integers what Lucid computes with floats."
        " `src/lucid/onnx/bfloat16.py` says how results of bfloat16 are rounded.",
        "",
        "Written by `python docs/draw_node_tests.py`, which runs all of them.",
        "",
        "| operator | native | interpreted | in NumPy | refused | wrong |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, counts in sorted(operators.items(), key=lambda item: item[0].lower()):
        numbers = " | ".join(str(counts[s] or "") for s in COLUMNS)
        lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
