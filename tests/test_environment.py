"""docs/environment.md: the table of environment variables is that of the code."""

import re
from pathlib import Path

import lucid

TABLE = Path(__file__).parents[1] / "docs" / "environment.md"
VARIABLE = re.compile(r"\b(?:LUCID|OMP)_[A-Z_]*[A-Z]")


def test_the_table_and_the_code_agree() -> None:
    sources = Path(lucid.__file__).parent.rglob("*.py")
    read = {name for path in sources for name in VARIABLE.findall(path.read_text("utf-8"))}
    rows = re.findall(r"^\| `([A-Z_]+)` \| .+ \| .+ \|$", TABLE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == read
