"""docs/exceptions.md has all exceptions of `lucid.errors`, each with its bases and what to do."""

import builtins
import re
from pathlib import Path

from lucid import errors

PAGE = Path(__file__).parents[1] / "docs" / "exceptions.md"
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and kind.__module__ == errors.__name__
}


def test_the_tree_is_that_of_the_code() -> None:
    tree = re.findall(r"── (\w+)(?: +\((\w+)\))?$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert {name: base for name, base in tree if not hasattr(builtins, name)} == {
        name: kind.__bases__[1].__name__ if len(kind.__bases__) > 1 else ""
        for name, kind in KINDS.items()
    }


def test_every_exception_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted([*rows, "LucidError"]) == sorted(KINDS)
