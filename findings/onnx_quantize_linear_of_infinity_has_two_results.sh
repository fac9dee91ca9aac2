#!/usr/bin/env bash
# onnx and ONNX Runtime: QuantizeLinear of what int32 does not hold gives opposite ends of the range.
#
# The operator's text says y = saturate(round(x / y_scale) + y_zero_point), so that infinity and large
# finite numbers become the largest integer. onnx's own reference casts to int32 before it saturates:
# on x86-64 +inf and 1e30 come out as the least integer, as if they were negative. ONNX Runtime
# saturates. Of NaN the text says nothing; ONNX Runtime gives the least integer (-128 of int8, not 0).
# Lucid does as ONNX Runtime (docs/quantisation.md).
#
# Seen with onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, x86-64:
# x: [inf, 1.0000000150474662e+30, 1000.0, -inf, nan]
# INT8: onnxruntime [127, 127, 127, -128, -128], onnx's reference [-128, -128, 127, -128, -128]
# UINT8: onnxruntime [255, 255, 255, 0, 0], onnx's reference [0, 0, 255, 0, 0]
#
# Exit status 0: still so. 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

X = np.array([np.inf, 1e30, 1000.0, -np.inf, np.nan], np.float32)


def results(kind):
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    graph = helper.make_graph(
        [node],
        "quantize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(X)])],
        [helper.make_tensor_value_info("y", kind, [len(X)])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("zero", kind, [], [0]),
        ],
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return [r.run(None, {"x": X})[0].tolist() for r in (session, ReferenceEvaluator(model))]


print("x:", X.tolist())
found = {}
for name in ("INT8", "UINT8"):
    found[name] = results(getattr(TensorProto, name))
    print(f"{name}: onnxruntime {found[name][0]}, onnx's reference {found[name][1]}")
runtime, reference = found["INT8"]
same = runtime == [127, 127, 127, -128, -128] and reference[:2] == [-128, -128]
raise SystemExit(not same)
PYTHON
