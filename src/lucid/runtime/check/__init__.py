"""Checking compiled models: against the interpreter, stage by stage, down to the smallest failure.

A `Case` is a captured graph with inputs and settings. `check` compares it compiled and interpreted,
`bisect` finds the stage at fault, `reduce` minimises the case, `save_case` and `load_case` store
it.
"""

from lucid.runtime.check.blame import Blame, bisect
from lucid.runtime.check.case import (
    Case,
    Settings,
    is_repro,
    load_case,
    read_inputs,
    save_case,
)
from lucid.runtime.check.reduce import cut, reduce, smallest
from lucid.runtime.check.report import CallCheck, CheckReport, Tools, check

__all__ = [
    "Blame",
    "CallCheck",
    "Case",
    "CheckReport",
    "Settings",
    "Tools",
    "bisect",
    "check",
    "cut",
    "is_repro",
    "load_case",
    "read_inputs",
    "reduce",
    "save_case",
    "smallest",
]
