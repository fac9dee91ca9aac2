"""uint8 images in front of a graph: the same as normalising them first."""

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.errors import InputError
from lucid.frontend.images import takes_images
from lucid.ir.interpret import interpret
from lucid.ir.text import parse_graph
from lucid.ir.verify import verify
from lucid.vision import IMAGENET, Preprocess

SPECS = [
    IMAGENET,
    Preprocess(order="bgr", mean=(103.9, 116.8, 123.7), std=(1, 2, 3), divisor=1),
    Preprocess(order="grey", mean=0.3, std=0.4),
]


def graph_of(channels: int, size: tuple[int, int] = (9, 7)):
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU())
    return lucid.trace(model, (1, channels, *size))


@pytest.mark.parametrize("spec", SPECS, ids=[s.order for s in SPECS])
def test_what_normalise_does(spec):
    plain = graph_of(spec.channels)
    graph = takes_images(plain, spec)
    verify(graph)
    assert str(graph.inputs[0].type) == f"u8[N,9,7,{spec.channels}]"
    assert parse_graph(str(graph)) == graph
    levels = np.random.default_rng(0).integers(0, 256, (3, 9, 7, spec.channels), np.uint8)
    (wanted,) = interpret(plain, [spec.normalise(levels)], dtype=np.float64)
    (result,) = interpret(graph, [levels], dtype=np.float64)
    assert np.abs(result - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_the_models_own_part_is_kept():
    plain = graph_of(3)
    graph = takes_images(plain, IMAGENET)
    assert graph.payload is plain.payload
    assert graph.sources() == plain.sources()
    assert [n.origin for n in graph.nodes][-2:] == ["0", "1"]
    assert [v.name for v in graph.outputs] == [v.name for v in plain.outputs]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("%x: f32[N,4]", IMAGENET),
        ("%x: f32[N,4,8,8]", IMAGENET),
        ("%x: f32[N,3,8,8]", SPECS[2]),
        ("%x: f32[N,3,8,8], %y: f32[N,3,8,8]", IMAGENET),
    ],
)
def test_models_that_take_no_such_images(text, spec):
    graph = parse_graph(f"graph g({text}) -> {text.split()[1].strip(',')} {{\n  return %x\n}}\n")
    with pytest.raises(InputError, match=r"g has the inputs .*order \(rgb, bgr or grey\)"):
        takes_images(graph, spec)
