"""Pages: one file, no network, and data that fits together."""

import json
import re

import pytest

import lucid
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph
from lucid.view import Stage, compare, page, picture, to_html
from lucid.view.overlay import Buffer, MemoryPlan


@pytest.fixture(scope="module")
def graph():
    return lucid.trace(lucid.models.resnest_14(), (1, 3, 64, 64))


def data(text):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def test_nothing_comes_from_elsewhere(graph):
    text = to_html(graph)
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link(?![^>]*data:)|<script src|@import|url\(|fetch\(", text)


def test_the_data_fits_together(graph):
    before, after = picture(graph), picture(run_passes(graph))
    found = data(page([Stage("a", before), Stage("b", compare(before, after), "note")]))
    assert [s["name"] for s in found["stages"]] == ["a", "b"]
    assert found["stages"][1]["counts"]["removed"] > 90
    for scope in found["scopes"]:
        ins, outs, lanes, layers, links = found["orders"][scope["order"]]
        assert lanes == len(scope["items"]) + len(scope["ins"]) + len(scope["outs"])
        assert (ins, outs) == (len(scope["ins"]), len(scope["outs"]))
        slots = sorted(slot for layer in layers for slot in layer)
        assert slots == list(range(len(slots)))
        assert all(wire < len(scope["wires"]) for wire, _, _ in links)
        for item in scope["items"]:
            row = found["nodes"][item] if item >= 0 else found["scopes"][-1 - item]
            look = found["looks"][row[5] if item >= 0 else row["look"]]
            assert look[2] <= look[1]
            assert len(look[3]) == len(row[8] if item >= 0 else row["outs"])


def test_stages_share_what_they_have_in_common(graph):
    drawn = picture(graph)
    once, twice = (data(page([Stage("a", drawn)] * n)) for n in (1, 2))
    for table in ("nodes", "scopes", "looks", "orders", "facts"):
        assert once[table] == twice[table]


def test_text_that_looks_like_markup():
    graph = parse_graph(
        'graph g(%x: f32[N,4]) -> f32[N,4] {\n  %r = relu(%x) : f32[N,4] at "</script><b>"\n'
        "  return %r\n}"
    )
    found = data(to_html(graph))
    assert found["nodes"][1][3] == "</script><b>"


def test_the_plan_of_memory(graph):
    plan = MemoryPlan(128, 3, (Buffer("relu", 0, 64, 0, 1),))
    found = data(page([Stage("a", picture(graph))], memory=plan))
    assert found["memory"]["buffers"][0] == {
        "name": "relu",
        "offset": 0,
        "size": 64,
        "first": 0,
        "last": 1,
    }
