"""ncnn, from a model converted by pnnx. It knows no batch: images go one by one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Engine
from job import Job


class Ncnn(Engine, name="ncnn", package="ncnn"):
    processes = True

    def prepare(self, job: Job) -> dict[str, Any]:
        param, weights = _files(job)
        if not (param.exists() and weights.exists()):
            import pnnx

            with tempfile.TemporaryDirectory() as folder:
                shape = ",".join(map(str, (1, *job.shape[1:])))
                Path(folder, "m.onnx").symlink_to(job.onnx)
                subprocess.run(
                    [pnnx.EXEC_PATH, "m.onnx", f"inputshape=[{shape}]", "fp16=0"],
                    cwd=folder,
                    check=True,
                )
                for made, kept in (("m.ncnn.bin", weights), ("m.ncnn.param", param)):
                    shutil.move(Path(folder, made), kept)
        return {}

    def load(self, job: Job) -> None:
        import ncnn

        self.ncnn = ncnn
        self.net = ncnn.Net()
        options = self.net.opt
        options.num_threads = job.threads
        options.use_vulkan_compute = False
        for name in dir(options):  # float32 only
            if name.startswith(("use_fp16", "use_bf16", "use_int8")):
                setattr(options, name, False)
        for load, path in zip((self.net.load_param, self.net.load_model), _files(job), strict=True):
            if load(str(path)) != 0:
                raise RuntimeError(f"ncnn cannot read {path.name}")

    def run(self, images: np.ndarray) -> np.ndarray:
        return np.stack([self._one(image) for image in images])

    def _one(self, image: np.ndarray) -> np.ndarray:
        extractor = self.net.create_extractor()
        extractor.input("in0", self.ncnn.Mat(image))
        _, logits = extractor.extract("out0")
        return np.array(logits)


def _files(job: Job) -> tuple[Path, Path]:
    return job.sized_file(".ncnn.param"), job.sized_file(".ncnn.bin")
