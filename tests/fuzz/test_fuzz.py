"""The fuzzer for a short time, and everything it has ever found."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pytest
from graph_builder import Builder
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.ir import BATCH, f32, ops
from lucid.ir.ops import OPS

from . import errors
from .campaign import KINDS
from .draw import Draw
from .guarded import between_pages, guard_mode
from .networks import BLOCKS, network
from .op_cases import generator, op_case
from .oracles import Failure, Tally, check_metamorphic, check_network, check_op
from .shrink import FOLDER, replay
from .signatures import check_signature, with_signature
from .views import WAYS

SEEDS = st.integers(0, 2**40)


def examples(count: int) -> settings:
    """So many; as often as the profile asks for more than its usual 40."""
    return settings(max_examples=max(2, count * settings.default.max_examples // 40))


def passed(failure: Failure | None) -> None:
    assert failure is None, f"seed {failure.seed}: {failure.detail}"


def test_every_op_is_generated_and_has_a_bound() -> None:
    for name, cls in OPS.items():
        assert generator(name)
        assert name == "fusion" or errors.rule_of(cls)


@pytest.mark.parametrize("op", [ops.GroupNorm(1), ops.LayerNorm((1,))], ids=lambda op: op.name)
def test_anything_may_come_of_a_mean_whose_sum_overflows(op) -> None:
    """Equal numbers: nothing overflows about the mean, but its sum does."""
    operands = [np.full((1, 64), 2.0**122), np.ones(64), np.zeros(64)]
    _, error = errors.rule_of(type(op))(op, [errors.Known.exactly(a) for a in operands])
    assert np.isinf(error).all()
    operands[0] /= 64
    _, error = errors.rule_of(type(op))(op, [errors.Known.exactly(a) for a in operands])
    assert np.isfinite(error).all()


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_attribute_is_drawn_away_from_its_default(name: str) -> None:
    """By their declarations, so that one that is added is drawn, or missed here."""
    kind = OPS[name]
    missing = {
        f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING
    }
    for seed in range(100):
        for node in op_case(seed, name).graph.nodes if missing else ():
            if type(node.op) is kind:
                own = {n: getattr(node.op, n) for n in missing}
                missing = {n: d for n, d in missing.items() if own[n] == d}
    assert not missing


def test_every_way_of_lying_is_drawn() -> None:
    """Each leads to the shape that is wanted, for some shape at least."""
    draw, shapes = Draw(1), [(BATCH, 4, 6, 1), (BATCH, 1, 3), (BATCH, 5), (2, 3)]
    for name, way in WAYS.items():
        reached = 0
        for shape in shapes * 4:
            found = way(draw, shape)
            if found is not None:
                build = Builder()
                x = build.graph.add_input(f32(*found[0]))
                assert found[1](build.apply, x).type.shape == shape, name
                reached += 1
        assert reached, name


def test_a_case_between_unreadable_pages_tells_what_it_found() -> None:
    tally = Tally()
    assert between_pages("end", "ops", 5, KINDS["ops"], tally) is None
    assert (tally.cases, tally.guarded) == (1, 1)
    failure = between_pages("start", "ops", 6, _stray, tally)
    assert failure is not None
    assert "SIGSEGV between unreadable pages (start)" in failure.detail


def _stray(seed: int, tally: Tally) -> Failure | None:
    ctypes.string_at(0)
    return None


def test_guarded_cases_are_spread_evenly() -> None:
    modes = [guard_mode(n, 0.1) for n in range(40)]
    assert [n for n, mode in enumerate(modes) if mode] == [9, 19, 29, 39]
    assert set(filter(None, modes)) == {"end", "start"}
    assert not any(guard_mode(n, 0.0) for n in range(9))


@pytest.mark.parametrize("name", sorted(OPS))
def test_an_op(name: str) -> None:
    passed(check_op(op_case(len(name), name)))


@examples(20)
@given(SEEDS)
def test_ops(seed: int) -> None:
    passed(check_op(op_case(seed)))


@examples(10)
@given(SEEDS)
def test_quantised_ops(seed: int) -> None:
    passed(KINDS["quantised"](seed, Tally()))


def test_every_kernel_of_integer_convolutions_is_forced() -> None:
    cases = [op_case(seed, "integer_conv2d") for seed in range(60)]
    forced = {kernel for case in cases for kernel in case.kernels.values()}
    assert forced == {"direct", "pointwise", "depthwise", "winograd2x2", "winograd4x4"}


def test_networks_are_of_every_block() -> None:
    blocks = set()
    for seed in range(60):
        case = network(seed)
        blocks.update(case.blocks)
        assert 10 <= len(case.graph.nodes) <= 80
    assert blocks == set(BLOCKS)


@examples(3)
@given(SEEDS)
def test_networks(seed: int) -> None:
    passed(check_network(network(seed)))


@examples(3)
@given(SEEDS)
def test_networks_of_any_signature(seed: int) -> None:
    passed(check_network(with_signature(network(seed))))
    passed(check_signature(with_signature(network(seed, 6, 20))))


def test_signatures_are_of_every_kind() -> None:
    cases = [with_signature(network(seed)) for seed in range(60)]
    assert any(not case.graph.inputs[0].type.batch_axes() for case in cases)
    assert {len(case.graph.inputs) for case in cases} >= {1, 2, 3}
    assert {len(case.graph.outputs) for case in cases} >= {1, 2, 3}
    assert {v.type.rank for case in cases for v in case.graph.inputs} >= {0, 1, 3, 4}
    assert any(len(set(case.graph.outputs)) < len(case.graph.outputs) for case in cases)


@examples(2)
@given(SEEDS)
def test_what_changes_no_bit(seed: int) -> None:
    passed(check_metamorphic(network(seed, 6, 20)))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.lir")), ids=lambda path: path.stem)
def test_what_was_found_is_mended(path) -> None:
    passed(replay(path))
