"""The fuzzer for a short time, and everything it has ever found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.ir.ops import OPS

from . import errors
from .networks import BLOCKS, network
from .op_cases import generator, op_case
from .oracles import Failure, check_metamorphic, check_network, check_op
from .shrink import FOLDER, replay

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


@pytest.mark.parametrize("name", sorted(OPS))
def test_an_op(name: str) -> None:
    passed(check_op(op_case(len(name), name)))


@examples(20)
@given(SEEDS)
def test_ops(seed: int) -> None:
    passed(check_op(op_case(seed)))


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


@examples(2)
@given(SEEDS)
def test_what_changes_no_bit(seed: int) -> None:
    passed(check_metamorphic(network(seed, 6, 20)))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.lir")), ids=lambda path: path.stem)
def test_what_was_found_is_mended(path) -> None:
    passed(replay(path))
