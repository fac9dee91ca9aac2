"""PyTorch, eager and compiled, from the ONNX model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Engine
from job import Job


class TorchEager(Engine, name="torch", package="torch"):
    """Channels last, which its convolutions prefer."""

    @classmethod
    def environment(cls, job: Job) -> dict[str, str]:
        settings = {
            "TORCHINDUCTOR_CACHE_DIR": str(Path(job.folder, "torch-cache")),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of processes beside the worker
        }
        if job.isa == "avx2":
            settings |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
        return settings

    def load(self, job: Job) -> None:
        import torch

        from onnx_to_torch import to_torch

        torch.set_num_threads(job.threads)
        self.torch = torch
        model = to_torch(job.onnx, job.batch)
        self.model = model.to(memory_format=torch.channels_last)

    def run(self, images: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            x = self.torch.from_numpy(images).to(memory_format=self.torch.channels_last)
            return self.model(x).numpy()


class TorchCompiled(TorchEager, name="torch.compile", package="torch"):
    """With weights frozen, so that they are packed once and the layout is the compiler's."""

    def prepare(self, job: Job) -> dict[str, Any]:
        start = time.perf_counter()
        self.load(job)
        return {"load_cold": time.perf_counter() - start}

    def load(self, job: Job) -> None:
        super().load(job)
        from torch._inductor import config

        config.freezing = True
        config.cpp.simdlen = 256 if job.isa == "avx2" else None
        self.model = self.torch.compile(self.model, dynamic=False)
        self.run(job.images())
