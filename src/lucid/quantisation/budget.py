"""Budgets: how close to floats a quantised network has to stay, and the layers that stay floats so
that it does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lucid.errors import InputError
from lucid.ir.graph import Node
from lucid.quantisation.measure import Whole

FORMS = '"agreement>=0.99" (the share of classes that stay) or "snr>=25" (decibels)'


@dataclass(frozen=True)
class Budget:
    """The least of a measure of the whole network: `agreement`, a share, or `snr`, decibels."""

    measure: str
    least: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """`agreement>=0.99` or `snr>=25`. Raises InputError."""
        found = re.fullmatch(r"\s*(agreement|snr)\s*>=\s*([0-9.eE+-]+)\s*", str(text))
        try:
            least = float(found.group(2)) if found else math.nan
        except ValueError:
            least = math.nan
        if not found or not math.isfinite(least):
            raise InputError(f"budget is {FORMS}, not {text!r}")
        if found.group(1) == "agreement" and not 0 <= least <= 1:
            raise InputError(f"an agreement is a share from 0 to 1, such as 0.99, not {least:g}")
        return cls(found.group(1), least)

    def of(self, whole: Whole) -> float:
        """What the measure is of a network. Raises InputError for the classes of one that has
        none."""
        if self.measure == "snr":
            return whole.noise.decibels
        if not whole.classified:
            raise InputError(
                "the model has no output of scores (N, classes, ...), so no classes agree: give a "
                'budget of noise, such as "snr>=25"'
            )
        return whole.agreement

    def holds(self, whole: Whole) -> bool:
        return self.of(whole) >= self.least

    def __str__(self) -> str:
        return f"{self.measure}>={self.least:g}"


def least_floats(
    worst_first: Sequence[Node], holds: Callable[[Sequence[Node]], bool]
) -> list[Node]:
    """A least set of layers without which the budget holds.

    `worst_first`: the layers that may stay floats; `holds`: whether the budget does where these
    are floats. Finds by bisection how many of the worst ones are needed, then takes back, from the
    least bad on, each one that is not needed after all: none of those left can be taken back alone.
    """
    if holds([]):
        return []
    few, enough = 0, len(worst_first)
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if holds(worst_first[:middle]) else (middle, enough)
    chosen = list(worst_first[:enough])
    for layer in chosen[-2::-1]:  # without the last, fewer were too few
        without = [other for other in chosen if other is not layer]
        if holds(without):
            chosen = without
    return chosen
