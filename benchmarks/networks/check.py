"""Does the compiled network agree with PyTorch in float64? From the module and from ONNX alike."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Sequence
from typing import Any

from job import Job
from networks import Network
from networks.build import build
from reference import error, leaves, outputs


def check(network: Network, job: Job, batches: Sequence[int], source: str) -> dict[str, Any]:
    """Compile once, run every batch: errors by batch and seconds, or the failure and its stage."""
    import lucid

    model = build(network) if source == "torch" else str(job.onnx)
    stage = "compile"
    try:
        start = time.perf_counter()
        compiled = lucid.compile(model, job.shape, threads=job.threads)
        seconds = time.perf_counter() - start
        stage = "run"
        errors = {}
        for batch in batches:
            run = dataclasses.replace(job, batch=batch)
            errors[str(batch)] = error(leaves(compiled(run.images())), outputs(run))
        return {"seconds": seconds, "errors": errors}
    except Exception as problem:
        return {"failure": _reason(problem, stage)}


def _reason(problem: Exception, stage: str) -> dict[str, Any]:
    """What went wrong, in which stage, and in which of Lucid's lines."""
    frames = [f for f in traceback.extract_tb(problem.__traceback__) if "/lucid/" in f.filename]
    if stage == "compile" and any("/lucid/frontend/" in f.filename for f in frames):
        stage = "import"
    where = f"lucid/{frames[-1].filename.rsplit('/lucid/', 1)[1]}:{frames[-1].lineno}"
    return {
        "stage": stage,
        "reason": f"{type(problem).__name__}: {problem}",
        "where": where if frames else "",
    }
