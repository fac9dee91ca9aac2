"""Small quantised networks give the same bits at every level of the processor that runs here, for
any number of threads, for a batch whole or in parts, compiled, loaded, or read from their file; and
those of the interpreter."""

import functools
from pathlib import Path

import numpy as np
import pytest
from harness import TARGETS

import lucid
from lucid.codegen.target import Target
from lucid.ir import interpret
from lucid.ir.passes import run_passes
from lucid.nn import functional as F

LEVELS = [target.name for target in TARGETS]
IMAGES = np.random.default_rng(0).normal(size=(3, 3, 20, 18)).astype(np.float32)


def layer(channels, out, kernel=3, **fields):
    """A convolution and its batch norm."""
    padding = fields.get("dilation", 1) * (kernel // 2)
    conv = lucid.nn.Conv2d(channels, out, kernel, padding=padding, bias=False, **fields)
    return lucid.nn.Sequential(conv, lucid.nn.BatchNorm2d(out))


class Net(lucid.nn.Module):
    """Three channels in front, a body, and a classifier."""

    def __init__(self, channels, out):
        super().__init__()
        self.stem, self.head = layer(3, channels, stride=1), lucid.nn.Linear(out, 10)

    def forward(self, x):
        y = self.body(F.relu(self.stem(x)))
        return self.head(F.flatten(F.adaptive_avg_pool2d(y, 1), 1))


class Residual(Net):
    """3x3 convolutions that Winograd takes, a shortcut with a convolution, one of stride 2."""

    def __init__(self):
        super().__init__(24, 40)
        self.a, self.b, self.c = layer(24, 24), layer(24, 24), layer(24, 40, stride=2)
        self.d, self.short = layer(40, 40), layer(24, 40, 1, stride=2)

    def body(self, x):
        x = F.max_pool2d(F.relu(self.b(F.relu(self.a(x))) + x), 3, 2, 1)
        return F.relu(self.d(F.relu(self.c(x))) + self.short(x))


class Mobile(Net):
    """Depthwise windows of 3 and 5, relu6 and hardswish."""

    def __init__(self):
        super().__init__(17, 20)
        self.up, self.depth, self.down = (
            layer(17, 51, 1),
            layer(51, 51, groups=51),
            layer(51, 17, 1),
        )
        self.wide = layer(17, 17, 5, groups=17, stride=2)
        self.last = layer(17, 20, 1)

    def body(self, x):
        x = x + self.down(F.relu6(self.depth(F.relu6(self.up(x)))))
        return F.hardswish(self.last(F.hardswish(self.wide(x))))


class Branches(Net):
    """Grouped and dilated windows, pools, a concatenation."""

    def __init__(self):
        super().__init__(16, 48)
        self.groups, self.far = layer(16, 16, groups=4), layer(16, 16, dilation=2)
        self.one = layer(16, 16, 1)

    def body(self, x):
        x = F.avg_pool2d(x, 2)
        parts = F.relu(self.groups(x)), F.relu(self.far(F.max_pool2d(x, 3, 1, 1)))
        return F.cat([*parts, F.relu(self.one(x))], 1)


NETWORKS = {"residual": Residual, "mobile": Mobile, "branches": Branches}


@functools.cache
def quantised(name):
    """The model, its file, and what the interpreter makes of the images."""
    model = lucid.quantize(NETWORKS[name](), [IMAGES])
    (wanted,) = interpret(run_passes(model.graph), [IMAGES])
    assert len(np.unique(wanted)) > 15
    return model, wanted


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("level", LEVELS)
def test_one_result(name, level, interpreted, tmp_path: Path, monkeypatch) -> None:
    model, wanted = quantised(name)
    monkeypatch.setenv("LUCID_TARGET", level)  # which is that of loaded models
    Target.host.cache_clear()
    try:
        for threads in (1, 2, 3):
            compiled = lucid.compile(model, threads=threads)
            assert compiled.target.name == level
            compiled.save(tmp_path / "net.lucid")
            loaded = lucid.load(tmp_path / "net.lucid", threads=4 - threads)
            for run in (compiled, loaded):
                np.testing.assert_array_equal(run(IMAGES), wanted)
                parts = [run(IMAGES[:2]), run(IMAGES[2:])]
                np.testing.assert_array_equal(np.concatenate(parts), wanted)
    finally:
        Target.host.cache_clear()


@pytest.mark.parametrize("name", NETWORKS)
def test_its_file_gives_the_same(name, interpreted, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    model, wanted = quantised(name)
    model.save_onnx(tmp_path / "net.onnx")
    compiled = lucid.compile(str(tmp_path / "net.onnx"), threads=2)
    np.testing.assert_array_equal(compiled(IMAGES), wanted)
