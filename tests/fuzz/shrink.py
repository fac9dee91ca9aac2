"""Small cases of what failed, as IR text, and back.

A failing graph is cut down by `lucid.runtime.check` (delta debugging over its nodes), each part
being judged by the oracle that the whole failed. What is left is kept as a `.lir` file: graph
text under a line of JSON, which has what else the case needs. Its arrays are made from a seed where
the case fails with those as well, else they are in an `.npz` file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lucid.errors import LucidError
from lucid.ir import Graph
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.types import Dim
from lucid.runtime.check import Blame, Case, smallest

from .draw import Draw
from .networks import NetworkCase
from .op_cases import OpCase
from .oracles import Failure, check_metamorphic, check_network, check_op
from .signatures import check_signature
from .values import Array, fill

FOLDER = Path(__file__).parent / "regressions"
HEADER = "# fuzz: "
KINDS: dict[str, Callable[..., Failure | None]] = {
    "op": check_op,
    "network": check_network,
    "metamorphic": check_metamorphic,
    "signature": check_signature,
}


def judge(
    kind: str, graph: Graph, inputs: list[Array], batch: int, settings: Mapping[str, Any]
) -> Failure | None:
    """What the oracle of this kind finds wrong with a graph."""
    seed = int(settings.get("seed", 0))
    if kind == "op":
        return check_op(OpCase(graph.name, seed, graph, inputs, batch, settings["kernels"]))
    known = {k: v for k, v in settings.items() if k in ("precision", "threads", "forced")}
    disable = tuple(settings.get("disable", ()))
    return KINDS[kind](NetworkCase(seed, graph, inputs, batch, disable, **known))


def batch_of(graph: Graph, inputs: list[Array]) -> int:
    """The size of the batch that inputs have."""
    for value, array in zip(graph.inputs, inputs, strict=True):
        first = value.type.shape[0] if value.type.rank else 1
        if isinstance(first, Dim):
            return len(array) // first.coefficient
    return 1


def shrunk(failure: Failure) -> Failure:
    """The smallest failure found that shows the same, in the first words of what it says."""
    if failure.graph is None:
        return failure
    settings = failure.settings | {"seed": failure.seed}
    found = failure

    def failing(case: Case) -> Blame | None:
        nonlocal found
        try:
            again = judge(failure.kind, case.graph, list(case.inputs), case.batch, settings)
        except LucidError:  # a part that is no legal case
            return None
        if again is None or _sort(again) != _sort(failure):
            return None
        found = replace(again, settings=settings)
        return Blame(failure.kind, "", "", again.detail)

    inputs = list(failure.inputs)
    case = Case(failure.graph, tuple(inputs), batch_of(failure.graph, inputs))
    try:
        if failing(case) is not None:
            smallest(case, Blame(failure.kind, "", "", failure.detail), failing)
    except LucidError as problem:
        return replace(found, detail=f"{found.detail} (shrinking stopped: {problem})")
    return found


def _sort(failure: Failure) -> str:
    """What kind of failure it is: what a part of the case must share with the whole."""
    text = failure.detail
    for word in ("Error", "NaN", "threads change", "beyond any", "times the", "off by", "shape"):
        if word in text:
            return text.split(":")[0] if word == "Error" else word
    return text[:20]


# -- files ----------------------------------------------------------------------------------------


def generated(graph: Graph, batch: int, seed: int) -> tuple[dict[str, Array], list[Array]]:
    """Weights and inputs for a graph that follow from a seed."""
    draw = Draw(seed)
    payload = {
        name: fill(draw, source.type.concrete(1), "positive")
        for name, source in sorted(graph.sources().items())
    }
    return payload, [fill(draw, v.type.concrete(batch)) for v in graph.inputs]


def save(failure: Failure, name: str, folder: Path = FOLDER) -> Path:
    """Write a failure as a `.lir` file, with arrays beside it where they matter."""
    graph, inputs = failure.graph, list(failure.inputs)
    assert graph is not None
    batch = batch_of(graph, inputs)
    about = {
        "kind": failure.kind,
        "batch": batch,
        "settings": failure.settings | {"seed": failure.seed},
        "detail": failure.detail.splitlines()[0][:300],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lir"
    text = print_graph(graph)
    path.write_text(f"{HEADER}{json.dumps(about)}\n{text}\n")
    kept = graph.payload
    graph.payload, own = generated(graph, batch, failure.seed)
    if judge(failure.kind, graph, own, batch, about["settings"]) is None:
        arrays = {f"weight:{n}": np.asarray(kept[n]) for n in graph.sources()}
        arrays |= {f"input:{i}": a for i, a in enumerate(inputs)}
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
    graph.payload = kept
    return path


def replay(path: Path) -> Failure | None:
    """What is wrong with a kept case now; None where it has been mended."""
    text = path.read_text()
    first, _, rest = text.partition("\n")
    about = json.loads(first.removeprefix(HEADER))
    graph = parse_graph(rest)
    batch, settings = about["batch"], about["settings"]
    beside = path.with_suffix(".npz")
    if beside.exists():
        with np.load(beside, allow_pickle=False) as arrays:
            graph.payload = {n[7:]: arrays[n] for n in arrays if n.startswith("weight:")}
            inputs = [arrays[f"input:{i}"] for i in range(len(graph.inputs))]
    else:
        graph.payload, inputs = generated(graph, batch, settings["seed"])
    return judge(about["kind"], graph, inputs, batch, settings)
