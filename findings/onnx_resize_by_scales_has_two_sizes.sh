#!/usr/bin/env bash
# ONNX Resize by scales: onnx itself and ONNX Runtime disagree on the size of the result.
#
# The specification says floor(size * scale), and a scale is a float32. ONNX Runtime multiplies in
# float32, as torch does, from whose exporter such files come; onnx's shape inference and its reference
# evaluator multiply in float64. 10 * 0.7 is then 7 for one and 6.9999998807 for the other. A file whose
# shapes were inferred declares a size that its runtime does not give, and ONNX Runtime only warns.
# Lucid computes in float32.
#
# Seen with onnx 1.23.2, ONNX Runtime 1.32.0, NumPy 2.4.6, Python 3.11:
# scale 0.7 of 10 x 20: shape inference 6 x 13, reference evaluator 6 x 13, ONNX Runtime 7 x 14
# scale 1.9 of 10 x 20: shape inference 18 x 37, reference evaluator 18 x 37, ONNX Runtime 19 x 38
#
# Exit status 0: still so. 1: it has changed, and what Lucid does about it may go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

onnxruntime.set_default_logger_severity(3)
image = np.ones((1, 1, 10, 20), np.float32)
changed = False
for scale, by_onnx, by_runtime in ((0.7, (6, 13), (7, 14)), (1.9, (18, 37), (19, 38))):
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")],
            "resize",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0]
    declared = tuple(d.dim_value for d in inferred.type.tensor_type.shape.dim[2:])
    reference = ReferenceEvaluator(model).run(None, {"x": image})[0].shape[2:]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    runtime = session.run(None, {"x": image})[0].shape[2:]
    print(f"scale {scale}: inferred {declared}, reference {reference}, ONNX Runtime {runtime}")
    changed |= (declared, reference, runtime) != (by_onnx, by_onnx, by_runtime)
raise SystemExit(changed)
PYTHON
