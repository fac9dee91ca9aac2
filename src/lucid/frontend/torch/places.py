"""The origin of an operator in the user's code: its module and source line."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

import torch
from torch.fx import Node

INSTALLED = Path(torch.__file__).parents[1]
OTHERS = (
    *(str(INSTALLED / name) for name in ("torch", "sympy", "numpy")),
    str(Path(__file__).parents[2]),
)
"""The folders of code that is not the user's: torch, what it computes with, and Lucid."""
STANDARD = sysconfig.get_path("stdlib")


def place_of(node: Node) -> tuple[str, str | None]:
    """The path of the module that a node comes from, and the user's source line."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    path = re.sub(r"@\d+", "", list(stack.values())[-1][0])
    lines = re.findall(r'File "(.+?)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [f"{file}:{line}" for file, line in lines if _is_users(file)]
    return path.removeprefix("L['self']").lstrip("."), own[-1] if own else None


def line_of(error: BaseException) -> str | None:
    """The user's source line that an exception comes from, by way of what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        frames = traceback.extract_tb(seen.__traceback__)
        own = [f"{f.filename}:{f.lineno}" for f in frames if _is_users(f.filename)]
        if own:
            return own[-1]
        seen = seen.__cause__ or seen.__context__
    return None


def _is_users(file: str) -> bool:
    standard = file.startswith(STANDARD) and "-packages" not in file
    return not standard and not file.startswith((*OTHERS, "<"))
