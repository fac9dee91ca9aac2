"""What the cost model chooses at levels that were measured: the fastest of the layers it was fitted
to, and at levels with AVX-512 what it chose when those were measured."""

from dataclasses import replace

import pytest
from harness import ZEN4

from lucid.codegen.costs import AVX2, AVX512, Transforms
from lucid.codegen.scheduling.conv_shape import ConvShape
from lucid.codegen.scheduling.cost_model import cycles, tile_block
from lucid.codegen.scheduling.schedule import cheapest
from lucid.codegen.target import LEVELS, Target
from lucid.ir.ops import Conv2d

ZEN3 = replace(LEVELS["x86-64-v3"], l2=512 << 10)
XEON = replace(LEVELS["x86-64-v4"], l2=2 << 20)


def window(channels: int, columns: int, side: int, groups: int = 1, stride: int = 1) -> ConvShape:
    op = Conv2d(padding=(1, 1, 1, 1), groups=groups, stride=(stride,) * 2)
    return ConvShape(1, channels, columns, side, side, (3, 3), op, 4)


def choice(shape: ConvShape, target: Target) -> tuple[str, int]:
    kernel = cheapest(shape, target, "fast")
    return kernel, tile_block(shape, kernel, target)


@pytest.mark.parametrize(
    ("shape", "fastest"),
    [
        ((3, 64, 224), "direct"),  # 2.40 ms; F(4x4) 7.52
        ((3, 32, 112), "direct"),  # 0.39; 0.78
        ((8, 8, 112), "winograd4x4"),  # 0.24; direct 0.32
        ((18, 18, 56), "winograd4x4"),  # 0.15; F(2x2) 0.22
        ((64, 64, 56), "winograd4x4"),  # 0.98; 1.88
        ((256, 256, 14), "winograd4x4"),  # 1.14; 1.33
        ((24 * 14, 24 * 14, 14, 14), "winograd4x4"),  # 0.20; 0.23
        ((8 * 32, 8 * 32, 28, 32), "winograd4x4"),  # 0.40; depthwise 0.68
        ((512, 512, 7), "winograd2x2"),  # 2.35; F(4x4) 3.36, direct 3.51
        ((24 * 38, 24 * 38, 7, 38), "winograd2x2"),  # 0.23; direct 0.29
        ((256, 256, 5), "winograd2x2"),  # 0.40; direct 0.46
        ((4 * 32, 4 * 32, 56, 32), "depthwise"),  # 0.24; direct 0.83
        ((512, 512, 4), "direct"),  # 1.29; F(2x2) 1.49
        ((256, 256, 2), "direct"),  # 0.20; 0.34
        ((256, 256, 28, 32, 2), "depthwise"),  # 1.0; direct 1.1
        ((512, 512, 28, 64, 2), "depthwise"),  # 2.8; 3.2
        ((256, 256, 56, 32, 2), "direct"),  # 5.6; depthwise 7.1
        ((384, 384, 56, 48, 2), "direct"),  # 6.6; 9.7
    ],
)
def test_the_fastest_kernels_on_avx2(shape: tuple[int, ...], fastest: str) -> None:
    assert cheapest(window(*shape), ZEN3, "fast") == fastest


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        ((3, 64, 224), ("direct", 0)),
        ((64, 64, 56), ("winograd4x4", 49)),
        ((64, 128, 56, 2), ("winograd4x4", 49)),
        ((128, 128, 28), ("winograd4x4", 49)),
        ((256, 256, 14), ("winograd2x2", 49)),
        ((512, 512, 7), ("winograd2x2", 48)),
        ((128, 32, 7), ("direct", 0)),
        ((24 * 14, 24 * 14, 14, 14), ("winograd2x2", 49)),
        ((8 * 32, 8 * 32, 28, 32), ("depthwise", 0)),
    ],
)
def test_choices_on_avx512(shape: tuple[int, ...], chosen: tuple[str, int]) -> None:
    assert choice(window(*shape), XEON) == chosen


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        ((3, 64, 224), ("direct", 0)),
        ((64, 64, 56), ("winograd4x4", 49)),  # 0.62 ms; F(2x2) 1.02
        ((128, 128, 28), ("winograd4x4", 49)),  # 0.58; 0.96
        ((256, 256, 14), ("winograd4x4", 48)),  # 0.74; 0.95
        ((512, 512, 7), ("winograd2x2", 48)),  # 1.27; F(4x4) 1.88
    ],
)
def test_choices_on_zen4(shape: tuple[int, ...], chosen: tuple[str, int]) -> None:
    assert choice(window(*shape), ZEN4) == chosen


@pytest.mark.parametrize(
    ("channels", "columns", "side", "chosen"),
    [
        (256, 1024, 14, "strassen"),  # two threads: 0.45 ms; plain 0.47
        (1024, 256, 14, "pointwise"),  # 0.50; 0.46
        (64, 256, 56, "pointwise"),  # one thread: 1.02; 0.95
        (512, 2048, 7, "pointwise"),
    ],
)
def test_strassen_for_convolutions_on_zen4(
    channels: int, columns: int, side: int, chosen: str
) -> None:
    shape = ConvShape(1, channels, columns, side, side, (1, 1), Conv2d(), 4)
    assert cheapest(shape, ZEN4, "fast") == chosen
    assert cheapest(shape, ZEN4, "strict") == cheapest(shape, XEON, "fast") == "pointwise"


def test_levels_have_the_costs_of_what_was_measured() -> None:
    assert {name for name, t in LEVELS.items() if t.costs is AVX2} == {
        "x86-64-v3",
        "x86-64-v3-vnni",
    }
    assert LEVELS["x86-64-v4"].costs is LEVELS["aarch64"].costs is AVX512


def test_costs_choose_and_are_no_part_of_the_code() -> None:
    """Kernels are cached by the target's text."""
    dear = replace(ZEN3.costs, transforms4=Transforms(1e4, 1e4))
    other = replace(ZEN3, costs=dear)
    assert repr(other) == repr(ZEN3)
    shape = window(64, 64, 56)
    assert cycles(shape, "winograd4x4", other) > cycles(shape, "winograd4x4", ZEN3)
    assert cheapest(shape, other, "fast") == "winograd2x2"
