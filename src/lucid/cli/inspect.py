"""`lucid inspect`: the contents of a compiled model's file, and whether its checksums match."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lucid.cli.app import ABOUT, Json, app
from lucid.cli.output import print_json, print_table


@app.command(rich_help_panel=ABOUT)
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE.lucid", show_default=False)],
    json: Json = False,
) -> None:
    """Show what the file of a compiled model holds, and check every part of it."""
    from lucid.artifact.contents import TENSORS, Artifact

    artifact = Artifact.open(file)
    container, manifest = artifact.container, artifact.manifest
    for name in container.sections:
        container.read(name)  # raises where it is damaged
    facts: dict[str, Any] = {
        "name": manifest.name,
        "input_shapes": list(map(list, manifest.input_shapes)),
        "dtypes": manifest.dtypes,
        "image_sizes": [[list(s[1:]) for s in size.shapes] for size in manifest.sizes],
        "other_sizes": manifest.any_size,
        "targets": [target.name for target in manifest.targets],
        "weights": manifest.weights,
        "precision": manifest.precision,
        "chosen_by": manifest.chosen_by,
        "made_by": manifest.made_by,
        "metadata": manifest.metadata,
    }
    sizes = {name: section.size for name, section in container.sections.items()}
    facts["weight_bytes"] = {
        name: size for name, size in sizes.items() if name.startswith(("packed.", "taps.", TENSORS))
    }
    facts["file_bytes"] = file.stat().st_size
    if json:
        print_json(facts | {"sections": sizes})
        return
    rows = [(name.replace("_", " "), _text(value)) for name, value in facts.items()]
    print_table(("", ""), rows)
    print_table(("section", "bytes"), [(n, f"{s:,}") for n, s in sizes.items()], right=["bytes"])
    typer.echo("every checksum is right")


def _text(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{k}={_text(v)}" for k, v in value.items()) or "none"
        case [[*_], *_]:
            return ", ".join(map(_text, value))
        case [int(), *_]:
            return "x".join(map(str, value))
        case [*_]:
            return ", ".join(map(str, value))
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case bool():
            return "yes" if value else "no"
    return str(value)
