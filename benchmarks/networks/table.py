"""The result for people: figures over all networks, and the table in docs/models.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

BEGIN, END = "<!-- zoo: begin -->", "<!-- zoo: end -->"
"""What lies between these lines of a page is written by `zoo.py --markdown`."""
TOLERANCE = 5e-6
"""The largest error, relative to the largest output, with which a network agrees."""
SOURCES = ("torch", "onnx")
"""What a network is compiled from."""
PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}

Record = Mapping[str, Any]

HEAD = (
    "Network",
    "Parameters, M",
    "GFLOP",
    "Lucid, ms",
    *(f"{name}, ms" for name in PEERS.values()),
    "Ratio",
    "Error (torch)",
    "Error (ONNX)",
    "Compile, s",
)


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers; NaN of none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def worst_error(record: Record, source: str) -> float | None:
    """The largest error of any batch, None where it was not checked or failed."""
    errors = record.get("check", {}).get(source, {}).get("errors")
    return max(errors.values()) if errors else None


def agrees(record: Record, source: str) -> bool:
    worst = worst_error(record, source)
    return worst is not None and worst <= TOLERANCE


def checked(record: Record) -> bool:
    """Whether the network agrees from every source."""
    return all(agrees(record, source) for source in SOURCES)


def ratio(record: Record, figure: str = "min") -> float | None:
    """The time of the faster peer divided by Lucid's, None where either is missing."""
    engines = record.get("time", {}).get("engines", {})
    peers = [engines[name][figure] for name in PEERS if name in engines]
    return min(peers) / engines["lucid"][figure] if peers and "lucid" in engines else None


def failures(name: str, record: Record) -> list[str]:
    """Why a network does not count: what failed, or how large its error is."""
    found = []
    if "failure" in record:
        found.append(f"{name}: {record['failure']}")
    for source, result in record.get("check", {}).items():
        if "failure" in result:
            problem = result["failure"]
            found.append(f"{name}, from {source}: {problem['stage']}: {problem['reason']}")
        elif not agrees(record, source):
            found.append(f"{name}, from {source}: error {worst_error(record, source):.1e}")
    for engine, reason in record.get("time", {}).get("failures", {}).items():
        found.append(f"{name}, {PEERS.get(engine, 'Lucid')}: {reason}")
    return [" ".join(line.split()) for line in found]


def figures(records: Mapping[str, Record]) -> dict[str, Any]:
    """Over all networks: how many agree, and the ratios' geometric means, least and slow ones."""
    ratios = {name: r for name, record in records.items() if (r := ratio(record)) is not None}
    medians = [r for record in records.values() if (r := ratio(record, "median")) is not None]
    return {
        "networks": len(records),
        "agree": sum(map(checked, records.values())),
        "measured": len(ratios),
        "geometric_mean": geometric_mean(ratios.values()),
        "geometric_mean_of_medians": geometric_mean(medians),
        "least": min(ratios.items(), key=lambda item: item[1], default=None),
        "faster": sum(bool(r >= 1) for r in ratios.values()),
    }


def row(name: str, record: Record) -> list[str]:
    """A network's cells; a dash where there is no figure."""
    engines = record.get("time", {}).get("engines", {})

    def show(value: float | None, form: str) -> str:
        return "-" if value is None else f"{value:{form}}"

    def engine(key: str, figure: str) -> float | None:
        return engines.get(key, {}).get(figure)

    count = record.get("parameters")
    return [
        name,
        show(None if count is None else count / 1e6, ".1f"),
        show(record.get("gflop"), ".2f"),
        *(show(engine(key, "min"), ".2f") for key in ("lucid", *PEERS)),
        show(ratio(record), ".2f"),
        *(show(worst_error(record, source), ".0e") for source in SOURCES),
        show(engine("lucid", "compile_cold"), ".1f"),
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """Figures, table and failures."""
    records = result["networks"]
    lines = [_sentence(figures(records)), "", *_facts(result), ""]
    body = [row(name, record) for name, record in records.items()]
    lines += [_cells(HEAD), _cells("-" if i == 0 else "-:" for i in range(len(HEAD)))]
    lines += [_cells(cells) for cells in body]
    broken = [line for name, record in records.items() for line in failures(name, record)]
    lines += ["", *(f"- {line}" for line in broken)] if broken else []
    return "\n".join(lines) + "\n"


def _sentence(found: Mapping[str, Any]) -> str:
    text = f"{found['agree']} of {found['networks']} networks agree from PyTorch and from ONNX."
    if not found["measured"]:
        return text
    name, least = found["least"]
    return (
        f"{text} Geometric mean of the ratios of {found['measured']}: "
        f"**{found['geometric_mean']:.2f}** ({found['geometric_mean_of_medians']:.2f} by medians); "
        f"the least is {least:.2f} ({name}); Lucid is the fastest on {found['faster']}."
    )


def _facts(result: Mapping[str, Any]) -> list[str]:
    machine, versions = result.get("machine", {}), result.get("versions", {})
    lines = []
    if machine:
        lines.append(
            f"{machine['cpu']}, {', '.join(machine['features'])}; {machine['cores']} cores, "
            f"{machine['threads']} threads; load before a network at most {machine['load']:.1f}."
        )
    if versions:
        lines.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return lines


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replaced(page: str, text: str) -> str:
    """The page with `text` between its markers. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{before}{begin}\n{text}{end}{after}"
