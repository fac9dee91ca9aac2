"""Post-training quantisation: from a network of floats to one of 8-bit integers.

`quantiser` goes through it: `places` says what becomes integers, `observers` and `ranges` with
which scales, `rewrite` makes the graph, `measure` says what it costs, `budget` what to leave in
floats, and `report` tells. Nothing here is imported before `lucid.quantize` is asked for.
"""
