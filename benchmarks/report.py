"""A benchmark's result, for people."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def show(result: dict[str, Any]) -> None:
    """Print a result of `peers.compare` as a table."""
    job, machine = result["job"], result["machine"]
    console = Console()
    console.print(
        f"{job['model']} at {job['size']}, float32, batch {job['batch']}, "
        f"{job['threads']} thread(s), {result['runs']} runs each, on {machine['cpu']}, "
        f"{machine['cores']} core(s), load {machine['load']:.1f} before"
    )
    if "peak_ms" in machine:
        console.print(
            f"FMA peak {machine['peak_gflops']:.0f} GFLOP/s: {result['gflop']:.2f} GFLOP "
            f"of direct convolution in {machine['peak_ms']:.1f} ms"
        )
    table = Table("engine", "", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    heads = ("min ms", "median", "p90", "min x", "med x", "MiB", "load", "error")
    for head in heads:
        table.add_column(head, justify="right")
    figures = {"min": ".1f", "median": ".1f", "p90": ".1f", "min_ratio": ".2f"}
    figures |= {"median_ratio": ".2f", "memory": ".0f", "load": ".2f", "error": ".1e"}
    for name, engine in result["engines"].items():
        cells = [f"{engine[key]:{form}}" if key in engine else "" for key, form in figures.items()]
        table.add_row(name, engine["version"], *cells)
    console.print(table)
    for failure in result["failures"].values():
        console.print(f"failed: {failure}", style="red", markup=False)
