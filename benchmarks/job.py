"""What is run: the model, its weights and images, and the files that all engines start from."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one state-dict entry, from its name and shape alone; no branch stays silent."""
    rng = np.random.default_rng([0, zlib.crc32(key.encode())])
    kind = key.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind == "running_var":
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:  # convolutions and linear layers: He scaling
        value = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif kind == "weight":  # batch norms; small where a branch joins the trunk: sums stay finite
        joins = ".bn3." in key or ".downsample." in key
        value = rng.uniform(0.1, 0.3, shape) if joins else rng.uniform(0.5, 1.2, shape)
    else:  # biases and running means
        value = 0.1 * rng.standard_normal(shape)
    return value.astype(np.float32)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A whole state dict: {key: array} for {key: shape}."""
    return {key: tensor(key, tuple(shape)) for key, shape in shapes.items()}


@dataclass(frozen=True)
class Job:
    """What every engine is asked to run.

    `callers`: how many call at the same time, each on `threads` threads. `isa`: "native", or "avx2"
    for a machine without AVX-512. `folder` holds the files. `imported`: the model is not in Lucid's
    registry, which starts from the ONNX file like the others. `file`: that file, where it is not
    one of the folder; `lengths`: the shape of its input, where that is no batch of square images.
    `quantised`: every engine runs the same int8 file, made of that one.
    """

    model: str
    batch: int
    threads: int
    size: int
    folder: str
    channels: int = 3
    callers: int = 1
    isa: str = "native"
    precision: str = "fast"
    imported: bool = False
    file: str = ""
    lengths: tuple[int, ...] = ()
    quantised: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.lengths) or (self.batch, self.channels, self.size, self.size)

    def images(self) -> np.ndarray:
        """Normal float32 numbers, the same in every process."""
        return np.random.default_rng(self.shape).standard_normal(self.shape, np.float32)

    def model_file(self, ending: str) -> Path:
        """A file that depends on the model alone."""
        return Path(self.folder, f"{self.model}{ending}")

    def sized_file(self, ending: str) -> Path:
        """A file that depends on the input's size too."""
        size = "x".join(map(str, self.lengths)) or self.size
        return Path(self.folder, f"{self.model}-{size}{ending}")

    @property
    def weights(self) -> Path:
        return self.model_file(".safetensors")

    @property
    def float_onnx(self) -> Path:
        return Path(self.file) if self.file else self.sized_file(".onnx")

    @property
    def onnx(self) -> Path:
        """What engines run."""
        return self.sized_file("-int8.onnx") if self.quantised else self.float_onnx

    @property
    def reference(self) -> Path:
        """All outputs, the first as `logits`, and `flops` of one run (2 for a multiply-add)."""
        kind = "-int8" if self.quantised else ""
        return self.sized_file(f"{kind}-batch{self.batch}.npz")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A place to write `path`, which appears whole or not at all."""
    place = path.with_name(f"partial-{path.name}")
    yield place
    place.replace(path)
