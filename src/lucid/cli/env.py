"""`lucid env`: machine and versions, for bug reports."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from lucid.cli.app import ABOUT, Json, app
from lucid.cli.output import print_json, print_table


@app.command(rich_help_panel=ABOUT)
def env(json: Json = False) -> None:
    """Show versions, processor, instruction set, measured peak, threads and cache folder."""
    facts = _facts()
    if json:
        print_json(facts)
        return
    rows = [(name.replace("_", " "), _text(value)) for name, value in facts.items()]
    print_table(("", ""), rows)


def _facts() -> dict[str, Any]:
    import lucid
    from lucid.codegen.language.llvm import versions
    from lucid.codegen.target import Target
    from lucid.runtime.cache import default_folder
    from lucid.runtime.peak import measured_peak
    from lucid.runtime.processors import default_threads, processor_name

    target, threads = Target.host(), default_threads()
    return {
        "lucid": lucid.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "numpy": importlib.metadata.version("numpy"),
        "llvm": versions(),
        "processor": processor_name(),
        "target": target.name,
        "vector_floats": target.vector,
        "l1_bytes_assumed": target.l1,
        "l2_bytes_assumed": target.l2,
        "threads": threads,
        "peak_gflops_1_thread": round(measured_peak(target, 1), 1),
        f"peak_gflops_{threads}_threads": round(measured_peak(target, threads), 1),
        "cache_folder": str(default_folder()),
        "variables": {
            k: v
            for k, v in sorted(os.environ.items())
            if k.startswith("LUCID_") or k == "OMP_NUM_THREADS"
        },
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
    return str(value)
