"""A benchmark's result, for people: a table on the terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lucid.cli.output import print_table

FIGURES = {
    "min": ("min ms", ".1f"),
    "median": ("median", ".1f"),
    "p90": ("p90", ".1f"),
    "images_s": ("images/s", ".1f"),
    "min_ratio": ("min x", ".2f"),
    "median_ratio": ("med x", ".2f"),
    "memory": ("MiB", ".0f"),
    "load": ("load s", ".2f"),
    "error": ("error", ".1e"),
}
"""Each column: its head, and the form of its numbers."""


def numbers(job: dict[str, Any]) -> str:
    if job.get("quantised"):
        return "int8"
    return "bfloat16" if job.get("precision") == "bf16" else "float32"


def title(result: dict[str, Any]) -> str:
    """What was run, and where."""
    job, machine = result["job"], result["machine"]
    callers = job.get("callers", 1)
    who = (
        f"{callers} callers of {job['threads']} thread(s) each"
        if callers > 1
        else (f"{job['threads']} thread(s)")
    )
    size = "x".join(map(str, job.get("lengths", ()))) or job["size"]
    return (
        f"{job['model']} at {size}, {numbers(job)}, batch {job['batch']}, {who}, "
        f"{result['runs']} runs each, on {machine['cpu']}, {machine['cores']} core(s), "
        f"load {machine['load']:.1f} before"
    )


def notes(result: dict[str, Any]) -> list[str]:
    """What the table does not say: the peak, the fastest peer, Lucid's compilation."""
    job, machine, lines = result["job"], result["machine"], []
    if job.get("isa") == "avx2":
        hidden = result["avx512_hidden"]
        how = "AVX-512 is hidden from all engines"
        lines.append(how if hidden else "AVX2 only where an engine has a setting for it")
    if "peak_ms" in machine:
        lines.append(
            f"FMA peak {machine['peak_gflops']:.0f} GFLOP/s: {result['gflop']:.2f} GFLOP "
            f"of direct convolution in {machine['peak_ms']:.1f} ms"
        )
    if "core_ns" in machine:
        least, most = machine["core_ns"]
        lines.append(f"From one core to the other: {least} to {most} ns")
    best = result.get("fastest")
    if best is not None:
        ratio = f", {best['ratio']:.2f} times Lucid's time" if best["ratio"] else ""
        lines.append(f"Fastest peer: {best['engine']}{ratio}")
    lucid = result["engines"].get("lucid", {})
    if "compile_cold" in lucid:
        lines.append(
            f"Lucid compiles in {lucid['compile_cold']:.2f} s, in {lucid['compile_cached']:.2f} s "
            "with its kernels cached"
        )
    return lines


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The table, its head first, the fastest engine next."""
    engines = sorted(result["engines"].items(), key=lambda item: item[1]["min"])
    body = [
        [name, engine["version"]]
        + [f"{engine[key]:{form}}" if key in engine else "" for key, (_, form) in FIGURES.items()]
        for name, engine in engines
    ]
    return [["engine", "version", *(head for head, _ in FIGURES.values())], *body]


def show(result: dict[str, Any]) -> None:
    """Print a result of `peers.compare` as a table."""
    head, *body = rows(result)
    print(title(result))
    print_table(head, body, right=head[2:])
    for line in notes(result):
        print(line)
    for failure in result["failures"].values():
        print(f"failed: {failure}")


def markdown(result: dict[str, Any]) -> str:
    """The same for a page: a heading, the table, the notes."""
    head, *body = rows(result)
    align = ["---", "---", *("---:" for _ in head[2:])]
    table = ["| " + " | ".join(row) + " |" for row in (head, align, *body)]
    failures = [f"Failed: {failure}" for failure in result["failures"].values()]
    points = [f"- {line}" for line in (*notes(result), *failures)]
    return "\n".join([f"### {title(result)}", "", *table, "", *points, "", ""])


# ---- several networks ---------------------------------------------------------------------------


def files_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row a network: each engine's fastest run (its median), and the ratio of the fastest peer;
    the head first."""
    engines = list(dict.fromkeys(name for result in results for name in result["engines"]))
    body = []
    for result in results:
        found, best = result["engines"], result["fastest"] or {"ratio": None}
        times = [
            f"{found[name]['min']:.2f} ({found[name]['median']:.2f})" if name in found else ""
            for name in engines
        ]
        error = max((engine["error"] for engine in found.values()), default=float("nan"))
        ratio = f"{best['ratio']:.2f}" if best["ratio"] else ""
        body.append([result["job"]["model"], *times, ratio, f"{error:.1e}"])
    return [["network", *engines, "fastest peer", "largest error"], *body]


def conditions(results: Sequence[dict[str, Any]]) -> str:
    """Where and how several networks were measured."""
    job, machine = results[0]["job"], results[0]["machine"]
    loads = [result["machine"]["load"] for result in results]
    peaks = [result["machine"].get("peak_gflops", float("nan")) for result in results]
    return (
        f"ms, fastest (median) of {results[0]['runs']} runs, {numbers(job)}, "
        f"{job['threads']} thread(s), {machine['cpu']}, {machine['cores']} core(s), "
        f"load {min(loads):.1f} to {max(loads):.1f}, "
        f"FMA peak {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s"
    )


def show_files(results: Sequence[dict[str, Any]]) -> None:
    """Print several networks as one table."""
    head, *body = files_rows(results)
    print(conditions(results))
    print_table(head, body, right=head[1:])


def files_markdown(results: Sequence[dict[str, Any]]) -> str:
    """The same for a page."""
    head, *body = files_rows(results)
    align = ["---", *("---:" for _ in head[1:])]
    table = ["| " + " | ".join(row) + " |" for row in (head, align, *body)]
    failures = [f"Failed: {f}" for result in results for f in result["failures"].values()]
    return "\n".join([*table, "", conditions(results), *failures, "", ""])
