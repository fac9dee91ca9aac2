"""The result for people: figures over all networks, and the table in docs/models.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BEGIN, END = "<!-- zoo: begin -->", "<!-- zoo: end -->"
"""What lies between these lines of a page is written by `zoo.py --markdown`."""
TOLERANCE = 5e-6
"""The largest error, relative to the largest output, with which a network agrees."""
SOURCES = ("torch", "onnx")
"""What a network is compiled from."""
PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}

Record = Mapping[str, Any]

NAMES = {"lucid": "Lucid"} | PEERS

KINDS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
"""Kinds of machines, by the first of these features that they have."""
OF_AMD = "-AMD"
"""Those of AVX-512 by AMD are a kind of their own: Zen 4 does its vectors in halves."""
HIDING = "-hiding"
"""Those from which AVX-512 was hidden are too: they are not what has none."""


def kind_of(result: Record) -> str:
    """The kind of machine that a result is of."""
    machine = result.get("machine", {})
    features = machine.get("features", ())
    kind = next((kind for feature, kind in KINDS.items() if feature in features), "other")
    if machine.get("avx512_hidden"):
        return kind + HIDING
    halves = kind == "AVX-512" and machine.get("cpu", "").startswith("AMD")
    return kind + OF_AMD if halves else kind


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
    times = {name: facts[figure] for name, facts in engines.items() if figure in facts}
    peers = [times[name] for name in PEERS if name in times]
    return min(peers) / times["lucid"] if peers and "lucid" in times else None


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
        "checked": sum("check" in record for record in records.values()),
        "agree": sum(map(checked, records.values())),
        "measured": len(ratios),
        "geometric_mean": geometric_mean(ratios.values()),
        "geometric_mean_of_medians": geometric_mean(medians),
        "least": min(ratios.items(), key=lambda item: item[1], default=None),
        "faster": sum(bool(r >= 1) for r in ratios.values()),
    }


def head(kinds: Iterable[str]) -> list[str]:
    """The titles of the table's columns, for these kinds of machines."""
    times = [f"{kind}: {title}" for kind in kinds for title in (*NAMES.values(), "ratio")]
    return ["Network", "Parameters, M", "GFLOP", *times, "Error (torch)", "Error (ONNX)"]


def row(name: str, records: Sequence[Record]) -> list[str]:
    """A network's cells, of its record on each kind of machine; a dash where there is no figure."""

    def show(values: Iterable[float | None], form: str) -> str:
        known = [value for value in values if value is not None]
        return f"{max(known):{form}}" if known else "-"

    count = [record.get("parameters") for record in records]
    cells = [name, show((c and c / 1e6 for c in count), ".1f")]
    cells.append(show((record.get("gflop") for record in records), ".2f"))
    for record in records:
        engines = record.get("time", {}).get("engines", {})
        cells += [show([engines.get(key, {}).get("min")], ".2f") for key in NAMES]
        cells.append(show([ratio(record)], ".2f"))
    return [*cells, *(show((worst_error(r, source) for r in records), ".0e") for source in SOURCES)]


def markdown(results: Mapping[str, Record]) -> str:
    """Figures of each kind of machine, one table of all, and failures."""
    networks = {kind: result["networks"] for kind, result in results.items()}
    lines = [line for kind, result in results.items() for line in _about(kind, result)]
    titles = head(results)
    lines += [_cells(titles), _cells("-" if i == 0 else "-:" for i in range(len(titles)))]
    for name in dict.fromkeys(name for records in networks.values() for name in records):
        lines.append(_cells(row(name, [records.get(name, {}) for records in networks.values()])))
    broken = [
        f"- {kind}: {line}"
        for kind, records in networks.items()
        for name, record in records.items()
        for line in failures(name, record)
    ]
    return "\n".join([*lines, *([""] if broken else []), *broken]) + "\n"


def _about(kind: str, result: Record) -> list[str]:
    """What was found on a kind of machine, and what that was."""
    found, machine = figures(result["networks"]), result.get("machine", {})
    lines = [f"**{kind}.** {_sentence(found)}"]
    if machine:
        times = [record["time"] for record in result["networks"].values() if "time" in record]
        commits = sorted({(time["date"], time["commit"]) for time in times if "date" in time})
        when = "".join(f"; {date}, {commit}" for date, commit in commits)
        lines.append(
            f"{machine['cpu']}, {', '.join(machine['features'])}; {machine['cores']} cores, "
            f"{machine['threads']} threads; load before a network at most {machine['load']:.1f}"
            f"{when}."
        )
    if versions := result.get("versions", {}):
        lines.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return [*lines, ""]


def _sentence(found: Mapping[str, Any]) -> str:
    parts = []
    if found["checked"]:
        agree = f"{found['agree']} of {found['checked']} networks agree from PyTorch and from ONNX."
        parts.append(agree)
    if found["measured"]:
        medians = found["geometric_mean_of_medians"]
        of_medians = "" if math.isnan(medians) else f" ({medians:.2f} by medians)"
        name, least = found["least"]
        parts.append(
            f"Geometric mean of the ratios of {found['measured']}: "
            f"**{found['geometric_mean']:.2f}**{of_medians}; the least is {least:.2f} ({name}); "
            f"Lucid is the fastest on {found['faster']}."
        )
    return " ".join(parts) or "Nothing was measured."


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replaced(page: str, text: str) -> str:
    """The page with `text` between its markers. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{before}{begin}\n{text}{end}{after}"
