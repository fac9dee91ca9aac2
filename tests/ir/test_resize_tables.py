"""A graph for another image size, by its ops' own rules."""

import pytest

from lucid import models
from lucid.errors import ShapeError
from lucid.frontend.trace import trace
from lucid.ir import verify
from lucid.ir.resize import resized
from lucid.ir.text import parse_graph


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (2, 3, 97, 75)])
def test_it_is_what_is_traced(shape):
    model = models.create_model("resnest_50")
    other = resized(trace(model, (1, 3, 64, 64)), (shape,))
    verify(other)
    assert str(other) == str(trace(model, shape))


@pytest.mark.parametrize(
    ("op", "type", "wanted"),
    [
        ("reshape(%x) {shape=(N,216)}", "f32[N,216]", "f32[N,280]"),
        ("reshape(%x) {shape=(N,2,2,6,9)}", "f32[N,2,2,6,9]", "f32[N,2,2,7,10]"),
        ("reshape(%x) {shape=(N,-1)}", "f32[N,216]", "f32[N,280]"),
        ("slice(%x) {axis=3, start=2, stop=9}", "f32[N,4,6,7]", "f32[N,4,7,8]"),
        ("slice(%x) {axis=3, start=2, stop=5}", "f32[N,4,6,3]", "f32[N,4,7,3]"),
        ("expand(%x) {shape=(2,N,4,6,9)}", "f32[2,N,4,6,9]", "f32[2,N,4,7,10]"),
        ("resize(%x) {size=(6,9)}", "f32[N,4,6,9]", "f32[N,4,7,10]"),
        ("resize(%x) {size=(5,5)}", "f32[N,4,5,5]", "f32[N,4,5,5]"),
        ("resize(%x) {size=(9,18), scale=(1.5,2.0)}", "f32[N,4,9,18]", "f32[N,4,10,20]"),
    ],
)
def test_attributes_follow_the_size(op, type, wanted):
    text = f"graph g(%x: f32[N,4,6,9]) -> {type} {{ %y = {op} : {type} return %y }}"
    other = resized(parse_graph(text), ((1, 4, 7, 10),))
    verify(other)
    assert str(other.outputs[0].type) == wanted


@pytest.mark.parametrize(
    ("op", "type"),
    [
        ("reshape(%x) {shape=(N,4,2,3,9)}", "f32[N,4,2,3,9]"),
        ("slice(%x) {axis=3, start=2, stop=8}", "f32[N,4,6,6]"),
    ],
)
def test_what_does_not_fit(op, type):
    text = f"graph g(%x: f32[N,4,6,9]) -> {type} {{ %y = {op} : {type} return %y }}"
    with pytest.raises(ShapeError):
        resized(parse_graph(text), ((1, 4, 7, 7),))
