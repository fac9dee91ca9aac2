"""What the README says works: its Python runs, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_python_runs(capsys):
    first, second = BLOCKS
    exec(first, {})
    assert capsys.readouterr().out.startswith("(8, 1000)\ngraph resnest_50(")
    scope: dict = {}
    exec(second, scope)
    assert scope["build"]().name == "Sequential"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`lucid (\w+)", README))))
def test_the_commands_exist(lucid_command, name):
    assert lucid_command(name, "--help").exit_code == 0


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link
