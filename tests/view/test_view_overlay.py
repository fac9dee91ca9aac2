"""Times, layouts and the plan of memory on top of pictures."""

import json
import math

import pytest

from lucid.errors import ParseError
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph
from lucid.view import Stage, page, picture
from lucid.view.looks import box_look, short_type, told_ratio, told_time
from lucid.view.overlay import (
    Ratio,
    Timing,
    read_noise,
    read_profile,
    with_layouts,
    with_ratios,
    with_times,
)
from lucid.view.text_width import shortened, text_width

SMALL = """
graph small(%x: f32[N,4,8,8]) -> f32[N,4,8,8] {
  param @a.w: f32[4,4,3,3]
  %c = conv2d(%x, @a.w) {padding=(1,1,1,1)} : f32[N,4,8,8] at "a"
  %r = relu(%c) : f32[N,4,8,8] at "b"
  %p = max_pool2d(%r) {kernel=(1,1), stride=(1,1)} : f32[N,4,8,8] at "c"
  return %p
}
"""


@pytest.mark.parametrize(
    "data",
    [
        [{"origin": "a", "ms": 2}],
        {"model": "m", "kernels": [{"origin": "a", "milliseconds": 2.0}], "notes": []},
    ],
)
def test_profiles_are_read(data):
    assert read_profile(json.dumps(data)) == [Timing("a", 2.0)]


@pytest.mark.parametrize("text", ["", "{}", "[]", '[{"origin": "a"}]', "7"])
def test_what_is_no_profile(text):
    with pytest.raises(ParseError, match="a profile is"):
        read_profile(text)


def test_times_find_their_boxes():
    drawn = picture(run_passes(parse_graph(SMALL)))
    timed = with_times(drawn, [Timing("a", 1), Timing("b", 0.5), Timing("nobody", 9)])
    times = {b.title: b.milliseconds for b in timed.boxes if b.milliseconds is not None}
    assert times == {"conv2d + relu": 1.5}
    fused = next(b for b in timed.boxes if b.milliseconds)
    assert "1.5 ms" in box_look(fused, "").svg


def test_reports_of_noise_are_read():
    layers = [{"origin": "a", "snr": 30.5, "op": "conv2d"}, {"origin": "b", "snr": None}]
    text = json.dumps({"model": "m", "layers": layers})
    assert read_noise(text) == [Ratio("a", 30.5), Ratio("b", math.inf)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"layers": [{"snr": 1}]}', '{"layers": [{"origin": "a", "snr": []}]}']
)
def test_what_is_no_report_of_noise(text):
    with pytest.raises(ParseError, match="a report of noise is"):
        read_noise(text)


def test_ratios_find_their_boxes():
    drawn = picture(run_passes(parse_graph(SMALL)))
    known = with_ratios(drawn, [Ratio("a", 31.26), Ratio("nobody", 9)])
    ratios = {b.title: b.decibels for b in known.boxes if b.decibels is not None}
    assert ratios == {"conv2d + relu": 31.26}
    fused = next(b for b in known.boxes if b.decibels)
    assert "31.3 dB" in box_look(fused, "").svg
    data = page([Stage("quantised", known)])
    assert str(10**-3.126)[:8] in data


def test_told_ratio():
    assert [told_ratio(r) for r in (31.26, math.inf, -math.inf)] == ["31.3 dB", "exact", "lost"]


def test_layouts_stand_with_types():
    drawn = with_layouts(picture(parse_graph(SMALL)), {"c": "NHWC"})
    assert [b.results for b in drawn.boxes if b.id == "c"] == [("f32[N,8,8,4] NHWC",)]
    assert short_type("f32[N,4,8,8] NHWC") == "N×4×8×8 NHWC"
    assert short_type("i64[]") == "i64 scalar"


def test_told_time():
    assert [told_time(t) for t in (12.3456, 0.5, 0.0123)] == ["12.3 ms", "0.5 ms", "12.3 us"]


def test_text_widths():
    assert text_width("iii", 10) < text_width("mmm", 10) < text_width("mmm", 10, bold=True)
    short = shortened("a" * 100, 10, 60)
    assert short.endswith("…")
    assert text_width(short, 10) <= 60
