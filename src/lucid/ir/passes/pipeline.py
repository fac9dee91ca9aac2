"""The pipeline: which passes run, in which order, and the function that runs them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

from lucid.errors import CompileError, UnknownNameError, VerifyError
from lucid.ir.graph import Graph
from lucid.ir.passes.rewrite_log import Firing, Miss
from lucid.ir.passes.rewriter import PASSES, Pass, apply_pass
from lucid.ir.verify import verify

PIPELINE = [
    "canonicalise",
    "simplify-shapes",
    "recognise-functions",
    "recognise-layers",  # once quotients by roots are products
    "sink-permutes",  # once layer norms and linears are found
    "fold-pads",
    "trim-taps",  # once pads are the convolutions' own
    "sink-concats",  # so that batch norms find the layers that make the parts
    "fold-batch-norm",  # before the attention: fc1 and its norm become one convolution there
    "pool-early",  # once no batch norm stands between
    "sink-dequantize",
    "quantise-layers",  # once layers read what is dequantised, and batch norms are in the weights
    "fold-quantize",  # once layers end in a multiplication
    "fold-shuffles",  # once depthwise convolutions are read by convolutions alone
    "cut-layers",  # once batch norms are in the weights
    "merge-branches",  # once batch norms are scales and shifts
    "fuse-split-attention",  # before the epilogues, which would hide fc1's activation in a fusion
    "spell-quantize",  # once what other passes look for is found
    "fold-scales",  # while convolutions stand alone, and split attentions do already
    "fuse-epilogue",
    "merge-shortcut",  # once the block's add is part of its last convolution
    "drop-dead-parameters",
]


def find_pass(name: str) -> Pass:
    """The pass of this name. Raises UnknownNameError, with the closest names."""
    if name not in PASSES:
        close = difflib.get_close_matches(name, PASSES) or sorted(PASSES)
        raise UnknownNameError(f"no pass is named {name!r}; did you mean {' or '.join(close)}?")
    return PASSES[name]


def run_passes(
    graph: Graph,
    names: Sequence[str] | None = None,
    disable: Iterable[str] = (),
    observe: Callable[[str, Graph], None] | None = None,
    log: list[Firing] | None = None,
    misses: list[Miss] | None = None,
) -> Graph:
    """A copy of `graph` after the passes `names` (by default PIPELINE) without those in `disable`.

    The graph is verified before the first pass and after each. `observe` is then called with the
    name of the pass and the graph as it stands, which later passes go on to change: clone it to
    keep it. Every rewrite that fires is added to `log`, what nearly did to `misses`. Raises
    VerifyError where the given graph is no legal one, CompileError where a pass fails or leaves an
    illegal one, UnknownNameError.
    """
    without = {find_pass(name).name for name in disable}
    passes = [find_pass(name) for name in (PIPELINE if names is None else names)]
    verify(graph, "before the passes")
    result = graph.clone()
    for owner in passes:
        if owner.name in without:
            continue
        apply_pass(owner, result, log, misses)
        _keep_output_names(graph, result)
        try:
            verify(result, f"after {owner.name}")
        except VerifyError as error:
            raise CompileError(
                f"{error}. This is a defect of the pass; disable it by name to go on"
            ) from error
        if observe is not None:
            observe(owner.name, result)
    return result


def _keep_output_names(given: Graph, graph: Graph) -> None:
    """Outputs are called as before, whatever makes them now; one that was, or is, an input, or that
    has another output's name, stays as it is."""
    names = {value.name for value in given.outputs}
    for old, new in zip(given.outputs, graph.outputs, strict=True):
        if old.producer is not None and new.producer is not None and new.name not in names:
            graph.rename(new, old.name)
