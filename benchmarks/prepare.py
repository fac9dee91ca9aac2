"""The files that all engines start from: weights, ONNX model, reference.

Runs in a process of its own, so that its memory is nobody's. The network is Lucid's trace of the
model with batch norms folded in float64 and split attention written out, so that all engines run
exactly the same one. Of an ONNX file only the reference is made. A quantised job's int8 file is
made of the float32 one.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx

from job import Job, weights, written
from lucid.frontend.trace import trace
from lucid.ir import Graph, interpret
from lucid.ir.ops import Conv2d, Linear
from lucid.ir.passes import run_passes
from lucid.models import create_model
from lucid.onnx.writer import to_onnx
from reference import write

PASSES = ["canonicalise", "fold-batch-norm", "fuse-split-attention"]


def prepare(job: Job) -> None:
    """Write what is missing of the job's files."""
    from safetensors.numpy import save_file

    model = create_model(job.model, weights=None)
    if not job.weights.exists():
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        with written(job.weights) as path:
            save_file(weights(shapes), path)
    model.load_weights(job.weights)
    graph = trace(model, job.shape)
    if not job.float_onnx.exists():
        data = to_onnx(run_passes(graph, PASSES)).SerializeToString()
        with written(job.float_onnx) as path:
            path.write_bytes(data)
    if job.quantised:
        prepare_file(job)
    elif not job.reference.exists():
        (logits,) = interpret(graph, [job.images()], dtype=np.float64)
        write(job, [logits], flops(graph, job.batch))


def prepare_file(job: Job) -> None:
    """The reference of an ONNX file, whose operations nobody counted: what ONNX Runtime gives, one
    operator of the file after the other. So it computes a quantised one exactly, in float32."""
    import onnxruntime as ort

    if job.quantised and not job.onnx.exists():
        quantise(job)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(job.onnx), options, providers=["CPUExecutionProvider"])
    write(job, session.run(None, {session.get_inputs()[0].name: job.images()}), float("nan"))


def quantise(job: Job) -> None:
    """The int8 file of a float32 one, as ONNX Runtime's own tool writes it: QDQ, 8-bit weights by
    channel, uint8 activations, ranges from the job's images."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self.left = [{name: job.images()}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    clean = job.sized_file("-clean.onnx")
    quant_pre_process(str(job.float_onnx), str(clean), skip_symbolic_shape=True)
    with written(job.onnx) as path:
        quantize_static(
            str(clean),
            str(path),
            Images(onnx.load(clean).graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    clean.unlink()


def flops(graph: Graph, batch: int) -> int:
    """Operations of all convolutions and linear layers, computed directly; 2 a multiply-add."""
    return sum(
        2 * prod(node.output.type.concrete(batch)) * prod(node.inputs[1].type.concrete(1)[1:])
        for node in graph.nodes
        if isinstance(node.op, Conv2d | Linear)
    )
