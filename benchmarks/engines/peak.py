"""No network: what the FMA units can do, in the same minutes."""

from __future__ import annotations

import numpy as np

from engines.base import Engine
from fma_peak import FmaLoop
from job import Job


class Peak(Engine, name="peak", package="llvmlite"):
    def load(self, job: Job) -> None:
        self.loop = FmaLoop(job.threads * job.callers, widest=8 if job.isa == "avx2" else 16)
        self.facts["flops"] = self.loop.flops

    def run(self, images: np.ndarray) -> np.ndarray:
        return self.loop.run()
