"""The files all engines start from: weights, ONNX model, float64 reference.

Runs in a process of its own, so that torch's memory is nobody's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from peers import Job

Weights = Callable[[Mapping[str, tuple[int, ...]]], dict[str, np.ndarray]]

TIMM_NAMES = {
    "resnest_14": "resnest14d",
    "resnest_26": "resnest26d",
    "resnest_50": "resnest50d",
    "resnest_101": "resnest101e",
    "resnest_200": "resnest200e",
    "resnest_269": "resnest269e",
    "resnest_50_1s4x24d": "resnest50d_1s4x24d",
    "resnest_50_4s2x40d": "resnest50d_4s2x40d",
    "resnet_18": "resnet18",
    "resnet_34": "resnet34",
    "resnet_50": "resnet50",
    "resnet_101": "resnet101",
    "resnet_152": "resnet152",
}


def prepare(job: Job, weights: Weights) -> None:
    """Write what is missing of the job's files: weights, ONNX model, float64 reference."""
    if job.model not in TIMM_NAMES:
        raise SystemExit(f"no counterpart of {job.model!r} in timm; known: {', '.join(TIMM_NAMES)}")
    import torch

    net = import_timm(torch).create_model(TIMM_NAMES[job.model]).eval()
    if not job.weights.exists():
        values = weights({key: tuple(value.shape) for key, value in net.state_dict().items()})
        with written(job.weights) as path, path.open("wb") as file:
            np.savez(file, **values)
    with np.load(job.weights) as state:
        net.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    if not job.onnx.exists():
        with written(job.onnx) as path:
            torch.onnx.export(
                net,
                (torch.zeros(2, 3, job.size, job.size),),
                str(path),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
            )
    if not job.reference.exists():
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            logits = net.double()(torch.from_numpy(job.images()).double())
        with written(job.reference) as path, path.open("wb") as file:
            np.savez(file, logits=logits.numpy(), flops=counter.get_total_flops())


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A place to write `path`, which appears whole or not at all."""
    place = path.with_name(f"partial-{path.name}")
    yield place
    place.replace(path)


def import_timm(torch: Any) -> Any:
    """timm, even next to a torchvision made for another torch (PyPI's next to a CPU-only one).

    Such a torchvision fails at import, for want of two operators that no model here uses.
    """
    try:
        import timm
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float overlap) -> Tensor")
        import timm
    return timm
