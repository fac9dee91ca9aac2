#!/usr/bin/env bash
# onnx's reference evaluator: LRN, GridSample and LogSoftmax are not what onnx specifies.
#
# Tests that take onnx's evaluator for the truth fail where the tested program is right. LRN is
# checked against its formula, written out here, as is LogSoftmax; GridSample (cubic, border) against
# ONNX Runtime, which gives what torch gives. Lucid's tests compare these with the formulas.
#
# Seen with onnx 1.23.2, ONNX Runtime 1.32.0, NumPy 2.4.6, Python 3.11:
# LRN of size 1 over 7 channels: the reference is off by more than 0.1, ONNX Runtime by less than 1e-5
# LogSoftmax of (1000, 1): the reference gives (0, -inf), ONNX Runtime (0, -999), which is exact
# GridSample, cubic, border: the two differ by more than 0.01; with zeros or reflection they agree
#
# Exit status 0: still so. 1: it has changed, and what Lucid does about it may go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

warnings.filterwarnings("ignore")


def both(op, *arrays, **attributes):
    names = [f"input{i}" for i in range(len(arrays))]
    kinds = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], op, kinds, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    feed = dict(zip(names, arrays, strict=True))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return ReferenceEvaluator(model).run(None, feed)[0], session.run(None, feed)[0]


random = np.random.default_rng(0)
x = random.standard_normal((1, 7, 3, 3)).astype(np.float32)
formula = x / (1 + 0.5 * x * x) ** 0.75
reference, runtime = both("LRN", x, size=1, alpha=0.5, beta=0.75, bias=1.0)
off = [float(abs(y - formula).max()) for y in (reference, runtime)]
print("LRN is off by", off)
changed = not (off[0] > 0.1 and off[1] < 1e-5)

reference, runtime = both("LogSoftmax", np.array([[1000, 1]], np.float32))
print("LogSoftmax of (1000, 1):", reference[0], runtime[0])
changed |= not (np.isneginf(reference[0, 1]) and runtime[0, 1] == -999)

image = random.standard_normal((1, 1, 5, 6)).astype(np.float32)
grid = (1.6 * random.standard_normal((1, 4, 4, 2))).astype(np.float32)
for padding, differs in (("border", True), ("zeros", False), ("reflection", False)):
    reference, runtime = both("GridSample", image, grid, mode="cubic", padding_mode=padding)
    apart = float(abs(reference - runtime).max())
    print(f"GridSample, cubic, {padding}: {apart:.2g} apart")
    changed |= (apart > 0.01) != differs
raise SystemExit(changed)
PYTHON
