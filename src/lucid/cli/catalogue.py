"""`lucid models`, `lucid ops`, `lucid passes`: lists of models, ops and passes."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated, Any

import typer

from lucid.cli.app import ABOUT, Json, app, complain
from lucid.cli.output import print_json, print_table


@app.command(rich_help_panel=ABOUT)
def models(
    pattern: Annotated[
        str, typer.Argument(help="Shell-style pattern, such as 'resnest_50*'.")
    ] = "*",
    json: Json = False,
) -> None:
    """List the registered models."""
    from lucid.models import list_models, model_info

    infos = [model_info(name) for name in list_models(pattern)]
    if json:
        print_json(
            [
                {
                    "name": i.name,
                    "input_shape": list(i.input_shape),
                    "weights": "included" if i.weights else None,
                    "description": i.description,
                }
                for i in infos
            ]
        )
        return
    if not infos:
        complain(f"no model's name matches {pattern!r}; `lucid models` lists all")
        raise typer.Exit(1)
    rows = [
        (i.name, "x".join(map(str, i.input_shape[1:])), "yes" if i.weights else "", i.description)
        for i in infos
    ]
    print_table(("model", "input", "trained", "description"), rows, prose=("description",))


@app.command(rich_help_panel=ABOUT)
def ops(json: Json = False) -> None:
    """List the ops of the graph: attributes, and whether they have a kernel.

    Those without one are rewritten by a pass before code is generated, or are not supported yet.
    """
    from lucid.codegen.lowering.fusion import has_kernel
    from lucid.ir.ops import OPS

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "attributes": _attributes(cls),
            "kernel": has_kernel(cls),
            "description": _first_line(cls),
        }
        for name, cls in sorted(OPS.items())
    ]
    if json:
        print_json(rows)
        return
    cells = [
        (r["name"], ", ".join(r["attributes"]), "yes" if r["kernel"] else "", r["description"])
        for r in rows
    ]
    print_table(("op", "attributes", "kernel", "description"), cells, prose=("description",))


def _attributes(cls: type[Any]) -> list[str]:
    """`stride=(1,1)` for fields with a default, `kernel` for those without."""
    from lucid.ir.printer import print_attribute

    return [
        f.name if f.default is dataclasses.MISSING else f"{f.name}={print_attribute(f.default)}"
        for f in dataclasses.fields(cls)
    ]


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]


@app.command(rich_help_panel=ABOUT)
def passes(
    rules: Annotated[
        bool, typer.Option("--rules", help="With the rules of each, and what they take for equal.")
    ] = False,
    json: Json = False,
) -> None:
    """List the passes, in the order in which the compiler runs them."""
    from lucid.ir.passes import PASSES, PIPELINE
    from lucid.ir.passes.rewriter import equation

    order = [*PIPELINE, *sorted(set(PASSES) - set(PIPELINE))]
    told = {n: {rule.__name__: equation(rule) for rule in PASSES[n].rules()} for n in order}
    if json:
        print_json(
            [
                {
                    "name": n,
                    "in_pipeline": n in PIPELINE,
                    "description": PASSES[n].summary,
                    "rules": told[n],
                }
                for n in order
            ]
        )
        return
    if rules:
        print_table(
            ("pass", "rule", "what it takes for equal"),
            [(n, rule, text) for n in order for rule, text in told[n].items()],
            prose=("what it takes for equal",),
        )
        return
    numbers = {name: str(i) for i, name in enumerate(PIPELINE, 1)}
    rows = [(numbers.get(n, ""), n, PASSES[n].summary) for n in order]
    print_table(("", "pass", "description"), rows, prose=("description",))
