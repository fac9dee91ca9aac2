"""`lucid cache`: what is cached on disk, kernels and the panels of compact files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from lucid.cli.app import ABOUT, Json, app
from lucid.cli.output import print_json, print_table

if TYPE_CHECKING:
    from lucid.runtime.cache import Entry

cache = typer.Typer(
    no_args_is_help=True,
    help="What is kept on disk, kernels and panels of compact files: list it, clear it, say where.",
)
app.add_typer(cache, name="cache", rich_help_panel=ABOUT)


@cache.command()
def ls(json: Json = False) -> None:
    """List the entries of the cache by family, and how much room they take."""
    from lucid.runtime.cache import ObjectCache

    kept = ObjectCache()
    families: dict[str, list[Entry]] = {}
    for entry in kept.entries():
        families.setdefault(entry.family, []).append(entry)
    summary: list[dict[str, Any]] = [
        {
            "family": name,
            "entries": len(entries),
            "bytes": sum(e.size for e in entries),
            "last_used": max(e.used for e in entries),
        }
        for name, entries in sorted(families.items())
    ]
    total = sum(row["bytes"] for row in summary)
    if json:
        print_json({"folder": str(kept.folder), "bytes": total, "families": summary})
        return
    rows = [
        (r["family"], str(r["entries"]), f"{r['bytes'] / 1024:.0f}", _moment(r["last_used"]))
        for r in summary
    ]
    if rows:
        print_table(("family", "entries", "KiB", "last used"), rows, right=("entries", "KiB"))
    count = sum(row["entries"] for row in summary)
    typer.echo(f"{count} entries, {total / 1024:.0f} KiB in {kept.folder}")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


@cache.command()
def clear() -> None:
    """Delete every entry of the cache; the next compilation makes the kernels that it needs anew,
    and the next load of a compact file its panels."""
    from lucid.runtime.cache import ObjectCache

    kept = ObjectCache()
    typer.echo(f"deleted {kept.clear()} entries from {kept.folder}")


@cache.command()
def path() -> None:
    """Print the folder of the cache: $LUCID_CACHE_DIR, else lucid in the XDG cache folder."""
    from lucid.runtime.cache import default_folder

    typer.echo(str(default_folder()))
