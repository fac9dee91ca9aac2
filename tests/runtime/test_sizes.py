"""Sizes whose products overflow, or that no memory holds, are refused before anything is taken."""

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.errors import InputError
from lucid.runtime.memory import Memory


class Line(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return nn.functional.relu(self.conv(x)).mean((2, 3))


class Larger(nn.Module):
    """A small image becomes one of many terabytes."""

    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=4096).mean((2, 3))


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 1 << 31, 1 << 31),
        (1, 3, 1 << 62, 1),
        (1, 3, 10**30, 8),
        (1 << 62, 3, 8, 8),
        (1 << 80, 3, 8, 8),
        (1 << 44, 3, 2, 2),
        (0, 3, 1 << 31, 1 << 31),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_an_input_that_no_memory_holds(shape: tuple[int, ...], threads: int) -> None:
    with pytest.raises(InputError, match="more than a process can have"):
        lucid.compile(Line(), shape, threads=threads)


def test_the_product_of_sizes_that_pass_2_31_is_planned_and_takes_nothing() -> None:
    fast = lucid.compile(Line(), (1, 3, 1 << 16, 1 << 16), threads=2)
    assert fast.program().arena > 1 << 37
    assert fast(np.zeros((1, 3, 4, 4), np.float32)).shape == (1, 8)


def test_a_result_within_that_no_memory_holds() -> None:
    with pytest.raises(InputError, match=r"%\w+: .* would take .* bytes"):
        lucid.compile(Larger(), (1, 3, 1 << 16, 1 << 14), threads=1)


def test_a_dynamic_model_refuses_at_the_call() -> None:
    lazy = lucid.compile(Line(), threads=1)
    with pytest.raises(InputError, match="more than a process can have"):
        lazy.prepare((1, 3, 1 << 40, 1 << 40))
    assert lazy(np.zeros((1, 3, 4, 4), np.float32)).shape == (1, 8)


@pytest.mark.parametrize("size", [1 << 60, 1 << 70])
def test_memory_that_cannot_be_had(size: int) -> None:
    with pytest.raises(MemoryError, match="bytes of memory cannot be had"):
        Memory(size)
