"""What quantising cost each layer, and the network: rows for tables, text, and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Row = tuple[str, ...]

COLUMNS: Row = ("layer", "op", "alone dB", "network dB", "held as", "operand", "work")
NUMBERS: Row = ("alone dB", "network dB", "work")
"""The columns of numbers, which stand on the right."""
SPARE: Row = ("operand", "op", "work")
"""The columns that a narrow terminal goes without, the first of them first."""


@dataclass(frozen=True)
class LayerReport:
    """One layer, by its module's path.

    `snr`: the signal-to-noise ratio of its result in decibels where it alone multiplies integers,
    of an operand as floats give it; `network_snr` with all that the layers before it add. `dtype`:
    `int8`, or `float32` where it was left so (`snr` is then what int8 would have cost). `least`,
    `largest`: what the integers of its operand reach. `work`: the share of the network's
    multiply-adds.
    """

    origin: str
    op: str
    snr: float
    network_snr: float
    dtype: str
    least: float
    largest: float
    work: float


@dataclass(frozen=True)
class Report:
    """A quantised network beside the one of floats, on the calibration data.

    `snr`: of all outputs, in decibels. `agreement`: the share of classes that are the same; None
    where it classifies nothing. `layers`: the worst first, by their own `snr`. `float_work`: the
    share of multiply-adds that are left to floats.
    """

    model: str
    method: str
    budget: str | None
    snr: float
    agreement: float | None
    float_work: float
    layers: tuple[LayerReport, ...]

    def __str__(self) -> str:
        return text(self)


def worst_first(layers: Sequence[LayerReport]) -> tuple[LayerReport, ...]:
    """By signal-to-noise ratio alone; of equal ones in the order given."""
    return tuple(sorted(layers, key=lambda layer: layer.snr))


def rows(report: Report) -> list[Row]:
    """One for each layer."""
    return [
        (
            layer.origin,
            layer.op,
            _decibels(layer.snr),
            _decibels(layer.network_snr),
            layer.dtype,
            f"{layer.least:.4g} .. {layer.largest:.4g}",
            f"{layer.work:.1%}",
        )
        for layer in report.layers
    ]


def summary(report: Report) -> str:
    """The network as a whole, in a few lines."""
    left = [layer for layer in report.layers if layer.dtype == "float32"]
    lines = [
        f"{report.model}, ranges by {report.method}: outputs at {_decibels(report.snr)} dB"
        + _agreement(report.agreement),
        f"{len(report.layers) - len(left)} of {len(report.layers)} layers multiply int8; float32 "
        f"does {report.float_work:.1%} of the work",
    ]
    if report.budget is not None:
        lines.append(f"budget {report.budget}: {len(left)} layers stay float32")
    return "\n".join(lines)


def _agreement(share: float | None) -> str:
    return "" if share is None else f", {share:.1%} of the classes as before"


def text(report: Report) -> str:
    """The whole report for people."""
    lines = [COLUMNS, *rows(report)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join(
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for name, cell, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([summary(report), "", *table])


def to_json(report: Report) -> dict[str, Any]:
    """Everything as plain data; ratios that are infinite are null."""
    data = asdict(report)
    for row in (data, *data["layers"]):
        for key in ("snr", "network_snr"):
            if key in row and not math.isfinite(row[key]):
                row[key] = None
    data["layers"] = list(data["layers"])
    return data


def _decibels(ratio: float) -> str:
    return f"{ratio:.1f}" if math.isfinite(ratio) else "exact" if ratio > 0 else "lost"
