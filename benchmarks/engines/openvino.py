"""OpenVINO."""

from __future__ import annotations

import numpy as np

from engines.base import Caller, Engine, Outputs
from job import Job


class OpenVino(Engine, name="openvino", package="openvino"):
    """In float32, or for a job of bfloat16 as it comes, which is that where the processor has it; a
    stream for each caller."""

    @classmethod
    def environment(cls, job: Job) -> dict[str, str]:
        return {"ONEDNN_MAX_CPU_ISA": "AVX2"} if job.isa == "avx2" else {}

    def load(self, job: Job) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(job.onnx))
        model.reshape(list(job.shape))
        settings = {
            "PERFORMANCE_HINT": "LATENCY" if job.callers == 1 else "THROUGHPUT",
            "INFERENCE_NUM_THREADS": job.threads * job.callers,
            "NUM_STREAMS": job.callers,
        }
        if job.precision != "bf16":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        self.compiled = core.compile_model(model, "CPU", settings)
        self.request = self.compiled.create_infer_request()

    def run(self, images: np.ndarray) -> Outputs:
        return list(self.request.infer({0: images}, share_inputs=True).values())

    def caller(self) -> Caller:
        request = self.compiled.create_infer_request()
        return lambda images: list(request.infer({0: images}, share_inputs=True).values())
