"""Budgets: what is written, what is measured, and the least set of layers."""

import pytest

from lucid.errors import InputError
from lucid.ir.graph import Node
from lucid.ir.ops import Relu
from lucid.quantisation.budget import Budget, least_floats
from lucid.quantisation.measure import Noise, Whole


@pytest.mark.parametrize(
    ("text", "measure", "least"),
    [
        ("agreement>=0.99", "agreement", 0.99),
        (" snr >= 25 ", "snr", 25),
        ("snr>=-3.5e0", "snr", -3.5),
    ],
)
def test_budgets_are_read(text: str, measure: str, least: float) -> None:
    assert Budget.parse(text) == Budget(measure, least)


@pytest.mark.parametrize(
    "text", ["", "snr", "snr>25", "snr>=", "snr>=many", "psnr>=3", "snr>=1-2", "agreement>=nan", 25]
)
def test_malformed_budgets_are_refused(text: object) -> None:
    with pytest.raises(InputError, match=r'budget is "agreement>=0\.99"'):
        Budget.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["agreement>=99", "agreement>=-0.1"])
def test_an_agreement_is_a_share(text: str) -> None:
    with pytest.raises(InputError, match="a share from 0 to 1"):
        Budget.parse(text)


def test_what_is_measured() -> None:
    whole = Whole(Noise(1000.0, 1.0), 9, 10, {})
    assert Budget.parse("snr>=29").holds(whole)
    assert not Budget.parse("snr>=31").holds(whole)
    assert Budget.parse("agreement>=0.9").holds(whole)
    assert not Budget.parse("agreement>=0.95").holds(whole)
    with pytest.raises(InputError, match="no output of scores"):
        Budget.parse("agreement>=0.9").holds(Whole(Noise(1.0, 0.0), 0, 0, {}))


@pytest.mark.parametrize("needed", [[], [0], [6], [0, 1, 2], [2, 5], [0, 6], list(range(7))])
def test_the_least_set(needed: list[int]) -> None:
    layers = [Node(Relu(), []) for _ in range(7)]
    tried: list[list[int]] = []

    def holds(floats: list[Node]) -> bool:
        tried.append([layers.index(n) for n in floats])
        return all(layers[i] in floats for i in needed)

    chosen = least_floats(layers, holds)  # type: ignore[arg-type]
    assert [layers.index(n) for n in chosen] == needed
    assert len(tried) <= 1 + 3 + 7


def test_no_budget_that_all_floats_do_not_keep() -> None:
    layers = [Node(Relu(), []) for _ in range(3)]
    assert least_floats(layers, lambda floats: False) == layers
    assert least_floats([], lambda floats: False) == []
