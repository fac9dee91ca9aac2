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
        level = {"LUCID_TARGET": "x86-64-v3"} if job.isa == "avx2" else {}
        return {"LUCID_CACHE_DIR": str(_cache(job, cls.__name__))} | level

    def prepare(self, job: Job) -> dict[str, Any]:
        """Compile with no kernel cached yet; `load` then finds them all."""
        shutil.rmtree(_cache(job, type(self).__name__), ignore_errors=True)
        self.load(job)
        return {"compile_cold": self.facts["compile_cached"]}

    def load(self, job: Job) -> None:
        import lucid

        model = self.model(job)
        start = time.perf_counter()
        self.compiled = lucid.compile(
            model,
            job.shape,
            threads=self.threads(job),
            precision=job.precision,
        )
        self.facts["compile_cached"] = time.perf_counter() - start

    def model(self, job: Job) -> Any:
        return str(job.onnx) if job.imported or job.quantised else _registered(job)

    def threads(self, job: Job) -> int:
        return job.threads

    def run(self, images: np.ndarray) -> Outputs:
        return self.compiled(images)


class LucidAlone(Lucid, name="lucid 1 thread", package="lucid-compiler"):
    """The same on one thread, beside which a team is to be no slower."""

    def threads(self, job: Job) -> int:
        return 1


class LucidFloats(Lucid, name="lucid float32", package="lucid-compiler"):
    """The same from the float32 file that a quantised job's int8 file was made of."""

    def model(self, job: Job) -> Any:
        return str(job.float_onnx)


def _registered(job: Job) -> Any:
    from lucid.models import create_model

    model = create_model(job.model)
    model.load_weights(job.weights)
    return model


def _cache(job: Job, engine: str) -> Path:
    return Path(job.folder, f"cache-{engine}")
