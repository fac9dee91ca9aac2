"""Passes: named rewrites from graph to graph, one file each, and the pipeline they form.

Each is legal on any graph, alone or in any order; the pipeline's order is the one in which each
finds what the ones before it have prepared.
"""

from lucid.ir.passes import (
    canonicalise,
    cut_layers,
    drop_dead_parameters,
    fold_batch_norm,
    fold_pads,
    fold_quantize,
    fold_scales,
    fold_shuffles,
    fuse_epilogue,
    fuse_split_attention,
    merge_branches,
    merge_shortcut,
    pool_early,
    quantise_layers,
    recognise_functions,
    recognise_group_norms,
    recognise_layers,
    simplify_shapes,
    sink_concats,
    sink_dequantize,
    sink_permutes,
    spell_quantize,
    trim_taps,
)
from lucid.ir.passes.pipeline import PIPELINE, find_pass, run_passes
from lucid.ir.passes.rewrite_log import Firing, Miss, RewriteLog
from lucid.ir.passes.rewriter import PASSES, Pass, Rewriter, rewrite, rewrite_graph

__all__ = [
    "PASSES",
    "PIPELINE",
    "Firing",
    "Miss",
    "Pass",
    "RewriteLog",
    "Rewriter",
    "canonicalise",
    "cut_layers",
    "drop_dead_parameters",
    "find_pass",
    "fold_batch_norm",
    "fold_pads",
    "fold_quantize",
    "fold_scales",
    "fold_shuffles",
    "fuse_epilogue",
    "fuse_split_attention",
    "merge_branches",
    "merge_shortcut",
    "pool_early",
    "quantise_layers",
    "recognise_functions",
    "recognise_group_norms",
    "recognise_layers",
    "rewrite",
    "rewrite_graph",
    "run_passes",
    "simplify_shapes",
    "sink_concats",
    "sink_dequantize",
    "sink_permutes",
    "spell_quantize",
    "trim_taps",
]
