"""What all engines start from: a network's ONNX file, and what it gives in float64."""

from __future__ import annotations

import dataclasses
import json
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from job import Job, written
from networks import Network
from networks import build as generated
from networks.build import build
from reference import error, leaves, outputs, write


def facts_file(job: Job) -> Path:
    return job.sized_file("-facts.json")


def export(network: Network, job: Job, batches: Sequence[int]) -> dict[str, Any]:
    """Write what is missing of the network's files, or older than the code that makes weights; the
    facts about it."""
    version = zlib.crc32(Path(generated.__file__).read_bytes())
    facts = json.loads(facts_file(job).read_text()) if facts_file(job).exists() else {}
    if facts.get("weights") != version:
        for path in job.onnx.parent.glob(f"{job.onnx.stem}*"):
            path.unlink()
    jobs = [dataclasses.replace(job, batch=batch) for batch in {job.batch, *batches}]
    missing = [j for j in jobs if not j.reference.exists()]
    if facts and not missing and job.onnx.exists():
        return facts
    model = build(network)
    single = torch.from_numpy(job.images())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        found = leaves(model(single))
    flops = counter.get_total_flops()
    exporter = _to_onnx(model, job)
    model = model.double()
    for j in missing:
        _write_reference(model, j, flops * j.batch)
    facts = {
        "weights": version,
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop": flops / 1e9,
        "exporter": exporter,
        "torch_float32_error": error(found, outputs(job)),
    }
    with written(facts_file(job)) as path:
        path.write_text(json.dumps(facts))
    return facts


def _to_onnx(model: torch.nn.Module, job: Job) -> str:
    """Export with any batch, called N; by which of PyTorch's exporters."""
    example = torch.from_numpy(dataclasses.replace(job, batch=2).images())
    with written(job.onnx) as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                external_data=False,
                verbose=False,
            )
        except Exception:
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=False,
                input_names=["x"],
                dynamic_axes={"x": {0: "N"}},
            )
            return "torch.onnx, TorchScript"
    return "torch.onnx, dynamo"


def _write_reference(model: torch.nn.Module, job: Job, flops: int) -> None:
    """All outputs, computed image by image, which takes less memory: a batch changes nothing."""
    images = torch.from_numpy(job.images()).double()
    with torch.no_grad():
        parts = [leaves(model(image[None])) for image in images]
    write(job, [torch.cat(list(part)).numpy() for part in zip(*parts, strict=True)], flops)
