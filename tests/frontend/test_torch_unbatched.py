"""Operators of images without a batch, against torch."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402  # needs torch

import lucid  # noqa: E402

MODULES = [
    (nn.Conv1d(3, 8, 3, padding="same"), (3, 16)),
    (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 10)),
    (nn.Conv3d(3, 4, 3), (3, 4, 5, 6)),
    (nn.ConvTranspose1d(3, 4, 3, 2), (3, 7)),
    (nn.ConvTranspose2d(3, 4, 2, 2), (3, 5, 6)),
    (nn.MaxPool1d(2), (3, 8)),
    (nn.MaxPool2d(2, return_indices=True), (3, 8, 6)),
    (nn.AvgPool2d(3, ceil_mode=True), (3, 8, 6)),
    (nn.AvgPool3d(2), (3, 4, 4, 6)),
    (nn.AdaptiveAvgPool2d(1), (3, 8, 6)),
    (nn.AdaptiveMaxPool2d((2, 3)), (3, 8, 6)),
    (nn.Unfold(2), (3, 5, 6)),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.PixelShuffle(2)), (3, 8, 8)),
]


@pytest.mark.parametrize(
    ("module", "shape"), MODULES, ids=[type(module).__name__ for module, _ in MODULES]
)
def test_as_torch_has_it(module: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lucid.compile(module.eval(), shape, threads=1)(x), module(x))
