"""MNN, from a model that its own converter makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Caller, Engine
from job import Job


class Mnn(Engine, name="mnn", package="MNN"):
    """In high precision, which is float32. A module serves one caller at a time."""

    def prepare(self, job: Job) -> dict[str, Any]:
        """Calls the converter itself: its wrapper `mnnconvert` installs a package that reports
        what is converted, and an older protobuf with it."""
        if not _file(job).exists():
            import _tools as converter

            made = _file(job).with_suffix(".partial")
            arguments = {"-f": "ONNX", "--modelFile": job.onnx, "--MNNModel": made}
            arguments["--bizCode"] = "benchmark"
            words = [str(word) for pair in arguments.items() for word in pair]
            if not converter.mnnconvert(["mnnconvert", *words]):
                raise RuntimeError("MNN cannot convert the model")
            made.replace(_file(job))
        return {}

    def load(self, job: Job) -> None:
        self.job = job
        self.run_one = self.caller()

    def run(self, images: np.ndarray) -> np.ndarray:
        return self.run_one(images)

    def caller(self) -> Caller:
        import MNN
        import onnx

        graph = onnx.load(self.job.onnx, load_external_data=False).graph
        settings = {"backend": "CPU", "precision": "high", "numThread": self.job.threads}
        runtime = MNN.nn.create_runtime_manager((settings,))
        module = MNN.nn.load_module_from_file(
            str(_file(self.job)),
            [graph.input[0].name],
            [graph.output[0].name],
            runtime_manager=runtime,
            shape_mutable=False,
        )

        def call(images: np.ndarray) -> np.ndarray:
            x = MNN.expr.const(images, list(images.shape), MNN.expr.NCHW)
            return np.array(module.forward([x])[0].read())

        return call


def _file(job: Job) -> Path:
    return job.sized_file(".mnn")
