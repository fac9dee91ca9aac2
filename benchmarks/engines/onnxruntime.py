"""ONNX Runtime."""

from __future__ import annotations

import numpy as np

from engines.base import Engine, Outputs
from job import Job


class OnnxRuntime(Engine, name="onnxruntime", package="onnxruntime"):
    """One session for all callers, whose own threads do the work where they have but one."""

    def load(self, job: Job) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_free_dimension_override_by_name("N", job.batch)
        self.session = ort.InferenceSession(
            str(job.onnx), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> Outputs:
        return self.session.run(None, {self.input: images})
