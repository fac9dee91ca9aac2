"""Reference weights and inputs for checking models against independent implementations.

`golden.npz` holds what the official ResNeSt code, timm and torchvision's ResNet compute in float64
for the weights and inputs that this file makes from names and shapes alone, so no checkpoint and no
torch is needed to use it.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FIELDS = ("logits", "stage_mean", "stage_std")


@dataclass(frozen=True)
class Case:
    """A registered model with the weights of `seed` on `image(batch, height, width, seed)`.

    logits: (batch, 1000) float64. stage_mean and stage_std (4,) are those of the outputs of layer1
    to layer4: they tell in which stage two implementations part.
    """

    model: str
    seed: int
    batch: int
    height: int
    width: int
    logits: np.ndarray
    stage_mean: np.ndarray
    stage_std: np.ndarray

    def __str__(self) -> str:
        return f"{self.model}-seed{self.seed}-{self.batch}x{self.height}x{self.width}"

    def image(self) -> np.ndarray:
        """The input, (batch, 3, height, width) float32."""
        return image(self.batch, self.height, self.width, self.seed)


def tensor(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The value of one state-dict key; no kind of key leaves a branch of the network silent."""
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    name = key.rsplit(".", 1)[-1]
    if name == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if name == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) >= 2:  # convolution and linear weights: He scaling
        deviation = np.sqrt(2.0 / int(np.prod(shape[1:])))
        return (rng.standard_normal(shape) * deviation).astype(np.float32)
    if name == "weight":  # batch-norm scales: low ones keep deep trunks finite
        low = key.endswith(("bn3.weight", "downsample.2.weight"))
        return rng.uniform(*((0.1, 0.3) if low else (0.5, 1.2)), shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)  # biases, running means


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """float32 arrays for a model's state-dict keys and shapes."""
    return {key: tensor(key, tuple(shape), seed) for key, shape in shapes.items()}


def image(batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(batch, 3, height, width) float32."""
    rng = np.random.default_rng([seed, batch, height, width])
    return rng.standard_normal((batch, 3, height, width)).astype(np.float32)


def cases() -> Iterator[Case]:
    """Every case of `golden.npz`."""
    with np.load(Path(__file__).with_name("golden.npz")) as data:
        for name in sorted({key.split("|")[0] for key in data.files}):
            model, *sizes = name.split(",")
            yield Case(model, *map(int, sizes), *(data[f"{name}|{field}"] for field in FIELDS))
