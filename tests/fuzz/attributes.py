"""Attributes of ops as their declarations have them, drawn away from their defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from lucid.ir import Op, ops
from lucid.ir.ops.resize import COORDINATES, ROUNDING

from .draw import Draw

POOLS: dict[tuple[type[Op], str], Sequence[Any]] = {
    (ops.LocalResponseNorm, "beta"): [0.5, 1.0],
    (ops.LocalResponseNorm, "alpha"): [0.5, 0.01],
    (ops.Resize, "mode"): ["bilinear"],
    (ops.Resize, "coordinates"): COORDINATES,
    (ops.Resize, "rounding"): ROUNDING,
    (ops.Resize, "scale"): [(1.1, 0.9), (2.0, 0.5), (0.97, 1.3)],
    (ops.AvgPool2d, "divisor"): [3, 7],
    **{(cls, "direction"): ["reverse", "bidirectional"] for cls in ops.declared(ops.Recurrent)},
    **{(cls, "clip"): [0.3, 2.0] for cls in ops.declared(ops.Recurrent)},
    (ops.Rnn, "activations"): [(ops.Relu(),), (ops.Softsign(),)],
    (ops.Gru, "activations"): [(ops.Hardsigmoid(), ops.Elu(0.5))],
    (ops.Lstm, "activations"): [(ops.Sigmoid(), ops.Softsign(), ops.LeakyRelu(0.1))],
}
"""What else there is for attributes whose type does not say it."""


def drawn(draw: Draw, kind: type[Op], **given: Any) -> Op:
    """The op with these attributes; each other one that has a default has that, or as often another
    of its pool or its type. (Floats other than the defaults are positive: factors and epsilons.)
    """
    for field in dataclasses.fields(kind):
        default = field.default
        if field.name in given or default is dataclasses.MISSING or draw.chance(0.5):
            continue
        pool = POOLS.get((kind, field.name))
        if pool is not None:
            given[field.name] = draw.pick(pool)
        elif isinstance(default, bool):
            given[field.name] = not default
        elif isinstance(default, float):
            given[field.name] = draw.pick([0.3, 2.5, 10.0]) * (default or 1.0)
        else:
            raise TypeError(f"{kind.name}.{field.name}: what else than {default!r} may it be?")
    return kind(**given)
