"""What the pipeline makes of the families it was written for."""

from collections import Counter

import numpy as np
import pytest

from lucid import models
from lucid.frontend.trace import trace
from lucid.ir import interpret
from lucid.ir.passes import run_passes


def compiled(name: str, size: int = 64):
    return run_passes(trace(getattr(models, name)(), (1, 3, size, size)))


def ops(graph) -> Counter:
    return Counter(node.op.name for node in graph.nodes)


def test_resnest_50_pass_by_pass():
    counts, seen = {}, {}

    def observe(name, graph):
        counts[name], seen[name] = graph.parameter_count(), ops(graph)

    run_passes(trace(models.resnest_50(), (1, 3, 224, 224)), observe=observe)
    assert counts["fold-batch-norm"] == 27_449_064
    assert counts["fuse-epilogue"] == 26_816_552
    assert counts["drop-dead-parameters"] == 26_812_712  # the shortcuts' biases are added up
    assert "batch_norm" not in seen["fold-batch-norm"]
    assert seen["drop-dead-parameters"] == {
        "fusion": 51,  # all with a relu; 16 of them with the residual
        "split_attention": 16,
        "avg_pool2d": 6,  # three avd pools, three shortcut pools
        "concat": 4,  # what the last convolution and the shortcut's read, side by side
        "max_pool2d": 1,
        "mean": 1,
        "reshape": 1,
        "linear": 1,
    }


def test_resnet_50_has_nothing_left_to_fuse():
    graph = compiled("resnet_50")
    assert ops(graph) == {
        "fusion": 49, "concat": 4, "avg_pool2d": 3, "max_pool2d": 1, "mean": 1, "reshape": 1,
        "linear": 1,
    }  # fmt: skip
    assert graph.parameter_count() == 25_526_632


@pytest.mark.parametrize(
    ("name", "radix", "cardinality"),
    [
        ("resnest_50_4s2x40d", 4, 2),
        ("resnest_50_1s4x24d", 1, 4),
        ("resnest_50_fast_1s1x64d", 1, 1),
        ("resnest_50_fast_2s2x40d", 2, 2),
    ],
)
@pytest.mark.parametrize("size", [64, 32])
def test_variants_and_sizes(name, radix, cardinality, size):
    """At 32 pixels the last stage's maps are 1x1: the same nodes must come out."""
    graph = compiled(name, size)
    found = [n for n in graph.nodes if n.op.name == "split_attention"]
    assert len(found) == 16
    assert {(n.op.radix, n.op.cardinality, n.op.folded) for n in found} == {
        (radix, cardinality, radix == 2)
    }
    assert not {"batch_norm", "relu", "add", "mul", "softmax", "sigmoid"} & set(ops(graph))


def test_packed_weights_are_the_same_for_every_image_size():
    recipes = [
        {name: p.recipe for name, p in compiled("resnest_14", size).parameters.items()}
        for size in (32, 64, 97)
    ]
    assert recipes[0] == recipes[1] == recipes[2]


def test_radix_0_fuses_like_a_resnet():
    model = models.ResNeSt(models.resnest._ResNeStBottleneck, [1, 1], radix=0)
    assert set(ops(run_passes(trace(model, (1, 3, 64, 64))))) <= {
        "fusion", "concat", "avg_pool2d", "max_pool2d", "mean", "reshape", "linear"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["resnest_14", "resnet_18", "resnest_50_4s2x40d"])
def test_results_stay(name):
    before = trace(getattr(models, name)(), (1, 3, 64, 64))
    x = np.random.default_rng(0).normal(size=(2, 3, 64, 64))
    (wanted,) = interpret(before, [x], dtype=np.float64)
    (given,) = interpret(run_passes(before), [x], dtype=np.float64)
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_a_large_network_takes_a_moment():
    graph = trace(models.resnest_269(), (1, 3, 64, 64))
    assert len(graph.nodes) > 2000
    result = run_passes(graph)
    assert ops(result)["split_attention"] == 89
