"""Profiles: they add up, compare with measured rates, and are told in several ways."""

import json
from itertools import pairwise

import numpy as np
import pytest

import lucid
from lucid.codegen.program.estimate import bytes_moved
from lucid.errors import InputError
from lucid.runtime.bandwidth import measured_bandwidth
from lucid.runtime.profile import fastest, milliseconds_a_tick
from lucid.runtime.profile_report import Profile, module_totals, to_json, trace_events
from lucid.runtime.timing import Clocked, aligned

BATCH = 4
SHAPE = (BATCH, 3, 64, 64)


@pytest.fixture(scope="module", params=[1, 2])
def compiled(request: pytest.FixtureRequest) -> lucid.CompiledModel:
    return lucid.compile(lucid.models.create_model("resnest_14"), SHAPE, threads=request.param)


def profiled(fast: lucid.CompiledModel) -> Profile:
    return fast.profile(np.ones(SHAPE, np.float32), runs=6)


@pytest.fixture(scope="module")
def measured(compiled: lucid.CompiledModel) -> Profile:
    return profiled(compiled)


def test_every_thread_adds_up_to_the_latency(compiled: lucid.CompiledModel) -> None:
    """Medians add up where no run was disturbed: on a busy machine some profile of several."""

    def adds_up(profile: Profile) -> bool:
        latency = pytest.approx(profile.latency_ms, rel=0.05)
        return (
            all(thread.total == latency for thread in profile.threads)
            and sum(c.ms for c in profile.calls) == latency
            and sum(c.share for c in profile.calls) == pytest.approx(1, rel=0.05)
        )

    profiles = [profiled(compiled)]
    while not adds_up(profiles[-1]) and len(profiles) < 20:
        profiles.append(profiled(compiled))
    assert adds_up(profiles[-1])
    for thread in (t for p in profiles for t in p.threads):
        assert min(thread.kernels, thread.barriers, thread.ends) >= 0


def test_calls_are_compared_with_what_was_measured(measured: Profile) -> None:
    fc = measured.calls[-1]
    assert (fc.origin, fc.algorithm, fc.work) == ("fc", "linear", 2 * BATCH * 2048 * 1000)
    weights, x, y = 2048 * 1008 + 1008, BATCH * 2048, BATCH * 1000
    assert fc.moved == pytest.approx(4 * (weights + x + y), rel=0.02)
    for call in measured.calls:
        assert call.busy_ms <= call.ms * 1.001
        assert call.bound in ("compute", "memory")
        assert call.share_of_peak == pytest.approx(call.gflops / measured.peak_gflops)
    winograd = next(c for c in measured.calls if c.algorithm == "winograd4x4")
    assert winograd.done == winograd.work / 4


def test_modules_hold_what_is_below_them(measured: Profile) -> None:
    totals = {t["module"]: t for t in module_totals(measured)}
    assert totals[""]["calls"] == len(measured.calls)
    below = [totals[f"layer1.0.{name}"]["ms"] for name in ("conv1", "conv2", "conv3")]
    assert totals["layer1.0"]["ms"] == pytest.approx(sum(below))
    names = list(totals)
    assert names[0] == ""
    assert names.index("layer1.0.conv2.fc1") == names.index("layer1.0.conv2") + 2


def test_a_trace_has_a_track_a_thread_without_overlaps(measured: Profile) -> None:
    events = json.loads(json.dumps(trace_events(measured)))["traceEvents"]
    for thread in range(len(measured.threads)):
        own = [e for e in events if e["tid"] == thread and e["ph"] == "X"]
        assert sum(e["cat"] != "wait" for e in own) <= len(measured.calls)
        for one, other in pairwise(own):
            assert one["ts"] + one["dur"] <= other["ts"] + 1e-6


def test_text_and_json(measured: Profile) -> None:
    text = str(measured)
    assert "layer4.0.conv2.conv" in text
    assert "measured peak" in text
    data = json.loads(json.dumps(to_json(measured)))
    assert data["calls"][0]["origin"] == "conv1.0"
    assert len(data["threads"]) == len(measured.threads)


def test_what_cannot_be_profiled() -> None:
    fast = lucid.compile(lucid.models.create_model("resnest_14"), SHAPE, threads=1)
    with pytest.raises(InputError, match="one run at least"):
        fast.profile(np.ones(SHAPE, np.float32), runs=0)
    with pytest.raises(InputError, match="empty batch"):
        fast.profile(np.ones((0, *SHAPE[1:]), np.float32))
    with pytest.raises(InputError, match="x wants"):
        fast.profile(np.ones(SHAPE))


def clocked(came: int, left: int, start: float, end: float) -> Clocked:
    """A run of one thread, whose caller came and left then."""
    marks = np.array([[[came, left - came, left], [came, 0, left]]])
    return Clocked.of(marks, [0], start, end)


def test_ticks_are_calibrated_over_all_runs() -> None:
    runs = [
        clocked(s, s + 10, seconds, seconds + 1e-6)
        for s, seconds in ((1000, 1.0), (3000, 1.002), (9000, 1.008))
    ]
    assert milliseconds_a_tick(runs) == pytest.approx(1e-3)
    assert milliseconds_a_tick(runs[:1]) == pytest.approx(1e-4)
    assert fastest([*runs, clocked(1, 2, 0.0, 1.0)]) == runs[:2]


def test_clocks_that_disagree_are_shifted() -> None:
    first = [(100, 10, 110), (120, 10, 130), (100, 0, 130)]
    second = [(100, 18, 118), (120, 10, 130), (0, 0, 0)]
    same = Clocked.of(np.array([first, second]), [0, 1], 0.0, 1.0)
    np.testing.assert_array_equal(aligned(same, [0, 1]), same.stamps)
    late = [tuple(t and t + 500 for t in row) for row in second]
    late = [(start, busy and busy - 500, end) for start, busy, end in late]
    shifted = aligned(Clocked.of(np.array([first, late]), [0, 1], 0.0, 1.0), [0, 1])
    np.testing.assert_array_equal(shifted, same.stamps)


def test_a_clock_that_goes_back_is_noticed() -> None:
    assert clocked(100, 110, 0.0, 1.0).forwards
    assert not clocked(110, 100, 0.0, 1.0).forwards
    back = [(100, 10, 110), (105, 10, 115), (100, 0, 120)]
    assert not Clocked.of(np.array([back]), [0, 1], 0.0, 1.0).forwards


def test_bytes_count_places_once() -> None:
    fast = lucid.compile(lucid.models.create_model("resnest_14"), SHAPE, threads=1)
    program = fast.program()
    pool = next(c for c in program.calls() if c.algorithm == "max_pool")
    assert bytes_moved(program, pool) == 4 * BATCH * 64 * (32 * 32 + 16 * 16)


def test_smaller_sets_move_faster() -> None:
    assert measured_bandwidth(1 << 20) > 0
    assert measured_bandwidth((1 << 20) - 1) == measured_bandwidth(1 << 20)  # measured once
