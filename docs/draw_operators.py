"""Write docs/operators.md: what Lucid's ops are, and what is read of ONNX and PyTorch.

python docs/draw_operators.py

Nothing is listed here. Ops come from the registry of ops, operators from the tables of what reads
them, what is refused of one from the messages in the function that reads it, and what there would
be besides from the packages onnx and torch.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("operators.md")
OPSET = 28
"""The version of ONNX's operators up to which those that are not read are listed."""

INTRODUCTION = """
# Operators

The operators that Lucid supports. `python docs/draw_operators.py` generates this page from the
code, and a test compares the two. Other operators of an ONNX file run in NumPy, and a
`HostOpsWarning` names them; other operators of a PyTorch module are refused, with a message that
lists all places. [CONTRIBUTING](../CONTRIBUTING.md) describes how to add ops, and operators of ONNX
and PyTorch.
"""

Readers = Mapping[str, Collection[Callable[..., Any]]]
"""The functions that read each operator."""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    escaped = ((cell.replace("|", r"\|") for cell in row) for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def listed(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(f"`{name}`" for name in names), 100, break_on_hyphens=False)


def paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_on_hyphens=False)


# -- Lucid's ops --------------------------------------------------------------------------------


def ops_section() -> str:
    from lucid.codegen.lowering.fusion import has_kernel
    from lucid.ir.ops import OPS

    def row(name: str) -> tuple[str, ...]:
        cls = OPS[name]
        formula = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
        fields = [f.name for f in dataclasses.fields(cls)]
        return f"`{name}`", ", ".join(fields), "yes" if has_kernel(cls) else "", formula

    told = """The ops that graphs consist of, from whatever source. Those without a kernel are
    rewritten by passes."""
    parts = [f"## Lucid's ops\n\n{paragraph(told)}\n"]
    families = groupby(sorted(OPS, key=lambda n: (OPS[n].family, n)), lambda n: OPS[n].family)
    for family, names in families:
        head = ("op", "attributes", "kernel", "what it computes")
        parts.append(f"### {family}\n\n{table(head, map(row, names))}\n")
    return "\n".join(parts)


# -- what a function refuses ----------------------------------------------------------------------


def refusals(function: Callable[..., Any], home: str) -> list[str]:
    """What a function that reads an operator refuses, in the words of its messages: its own, and
    those of the functions of package `home` that it calls by name."""
    seen, found = [function], []
    for one in seen:
        for node in _in_order(_tree(one)):
            if isinstance(node, ast.Call) and _name(node.func) in ("UnsupportedError", "refuse"):
                found += [_words(a) for a in node.args[:1]]
            called = one.__globals__.get(node.id) if isinstance(node, ast.Name) else None
            if inspect.isfunction(called) and called.__module__.startswith(home):
                seen += [called] if called not in seen else []
    return list(dict.fromkeys(filter(None, found)))


def _tree(function: Callable[..., Any]) -> ast.AST:
    if function.__name__ == "<lambda>":
        return ast.Module([], [])
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _in_order(tree: ast.AST) -> list[ast.expr]:
    """The expressions of a function, as they stand in its source."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.expr))
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _name(called: ast.expr) -> str:
    return called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")


def _words(message: ast.expr) -> str:
    """The text of a message, with the names of what it tells in their places."""
    match message:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values):
            return "".join(
                f"*{_name(v.value) or '...'}*" if isinstance(v, ast.FormattedValue) else _words(v)
                for v in values
            )
    return ""


def operators_read(readers: Readers, home: str, otherwise: str) -> str:
    """The operators that are read in full, and those of which something is not; `otherwise`: what
    becomes of these."""
    by_reasons: dict[str, list[str]] = {"": []}
    for name, functions in sorted(readers.items()):
        reasons = dict.fromkeys(r for function in functions for r in refusals(function, home))
        by_reasons.setdefault("; ".join(reasons), []).append(name)
    full = listed(by_reasons.pop(""))
    rows = ((", ".join(f"`{n}`" for n in names), told) for told, names in by_reasons.items())
    partly = table(("operators", f"{otherwise}, as their readers say it"), rows)
    return f"### In full\n\n{full}\n\n### In part\n\n{partly}\n"


# -- ONNX -----------------------------------------------------------------------------------------


def onnx_section() -> str:
    from onnx import defs

    from lucid.frontend.onnx import OLDEST
    from lucid.onnx.reader import reader_of
    from lucid.onnx.table import operators

    standard: dict[str, bool] = {}  # and whether the newest version still has it
    for schema in sorted(defs.get_all_schemas_with_history(), key=lambda s: s.since_version):
        if schema.domain == "" and schema.since_version <= OPSET:
            standard[schema.name] = not schema.deprecated
    readers = {name: [r] for name in operators() if (r := reader_of(name)) and name in standard}
    missing = sorted(name for name, lives in standard.items() if lives and name not in readers)
    told = f"""Of the standard's {len(readers) + len(missing)} operators {len(readers)} are read, in
    all their versions from {OLDEST} to {OPSET}. Where sizes, axes and the like are computed from
    the numbers of an input, a model is read on once they are known, as a further stage. Every op of
    Lucid's is written."""
    others = """Those that ONNX defines as functions of other operators are written out in these,
    and the rest run in NumPy, by the references of the package onnx. Random ones are refused."""
    read = operators_read(readers, "lucid.onnx.", "in NumPy instead")
    return (
        f"## ONNX\n\n{paragraph(told)}\n\n{read}"
        f"\n### Without a reader\n\n{paragraph(others)}\n\n{listed(missing)}\n"
    )


# -- PyTorch --------------------------------------------------------------------------------------


def version() -> str:
    """Of torch, the part that its operators depend on."""
    import torch

    return ".".join(torch.__version__.split(".")[:2])


def torch_section() -> str:
    import torch

    from lucid.frontend.torch import importer  # noqa: F401  # registers the emitters
    from lucid.frontend.torch.writer import emitter_name, emitter_of

    readers: dict[str, list[Callable[..., Any]]] = {}
    missing = []
    for name, overload in _overloads().items():
        packet = name.split(".")[1]
        emitter = emitter_of(emitter_name(name))
        if emitter is not None and name == emitter_name(name):
            readers.setdefault(packet, []).append(emitter)
        elif torch.Tag.core in overload.tags and _concerns_models(overload):
            missing.append(packet)
    told = f"""A module is exported by `torch.export` (here torch {version()}), and these are the
    operators that may be in what comes out, those that work in place (`relu_`) too. What is not
    here, torch takes apart into operators of its core, where it can. Tensors that depend on no
    input are computed by torch itself while the module is imported; so is what decides a size, when
    the model runs."""
    read = operators_read(readers, "lucid.frontend.torch.", "refused")
    others = listed(sorted(set(missing)))
    return (
        f"## PyTorch\n\n{paragraph(told)}\n\n{read}"
        f"\n### Of torch's core, not imported in all overloads\n\n{others}\n"
    )


@cache
def _overloads() -> dict[str, Any]:
    """Every overload of ATen's operators on tensors, by name."""
    import torch

    found = {}
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, packet = schema.name.partition("::")
        if namespace != "aten" or not hasattr(torch.ops.aten, packet):
            continue
        overload = schema.overload_name or "default"
        tensors = any("Tensor" in str(a.type) for a in schema.arguments)
        if tensors and overload in getattr(torch.ops.aten, packet).overloads():
            found[f"aten.{packet}.{overload}"] = getattr(getattr(torch.ops.aten, packet), overload)
    return dict(sorted(found.items()))


def _concerns_models(overload: Any) -> bool:
    """Whether an operator computes a new tensor of the elements of others, forwards."""
    schema, name = overload._schema, overload._opname
    given = any("Tensor" in str(a.type) and not a.is_out for a in schema.arguments)
    made = any("Tensor" in str(result.type) for result in schema.returns)
    other = name.endswith(("_backward", "_like")) or overload._overloadname == "out"
    return given and made and not other


SECTIONS: dict[str, Callable[[], str]] = {
    "lucid": ops_section,
    "onnx": onnx_section,
    "torch": torch_section,
}
"""The parts of the page, each by what it needs besides Lucid."""


def page() -> str:
    return "\n".join([INTRODUCTION.lstrip(), *(make() for make in SECTIONS.values())])


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
