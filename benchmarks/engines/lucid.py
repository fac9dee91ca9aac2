"""Lucid, from a model of its registry and a safetensors file, or from ONNX."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Engine, Outputs
from job import Job


class Lucid(Engine, name="lucid", package="lucid-compiler"):
    @classmethod
    def environment(cls, job: Job) -> dict[str, str]:
        return {"LUCID_CACHE_DIR": str(_cache(job))}

    def prepare(self, job: Job) -> dict[str, Any]:
        """Compile with no kernel cached yet; `load` then finds them all."""
        shutil.rmtree(_cache(job), ignore_errors=True)
        self.load(job)
        return {"compile_cold": self.facts["compile_cached"]}

    def load(self, job: Job) -> None:
        import lucid

        model = str(job.onnx) if job.imported else _registered(job)
        target = "x86-64-v3" if job.isa == "avx2" else "host"
        start = time.perf_counter()
        self.compiled = lucid.compile(
            model,
            job.shape,
            threads=job.threads,
            precision=job.precision,
            options=lucid.CompileOptions(target=target),
        )
        self.facts["compile_cached"] = time.perf_counter() - start

    def run(self, images: np.ndarray) -> Outputs:
        return self.compiled(images)


def _registered(job: Job) -> Any:
    from lucid.models import create_model

    model = create_model(job.model)
    model.load_weights(job.weights)
    return model


def _cache(job: Job) -> Path:
    return Path(job.folder, "lucid-cache")
