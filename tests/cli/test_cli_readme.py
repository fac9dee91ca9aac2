"""What the README says works: its Python runs, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_python_runs(capsys, tmp_path, monkeypatch):
    first, _, third, fourth = BLOCKS
    exec(first, {})
    assert capsys.readouterr().out.startswith("(8, 1000)\ngraph resnest_50(")
    scope: dict = {}
    monkeypatch.chdir(tmp_path)
    exec(third, scope)
    assert scope["served"].input_shape == (1, 1, 32, 32)
    exec(fourth, scope)
    assert scope["build"]().name == "Sequential"


@pytest.mark.slow
def test_the_network_of_torchvision_runs(tmp_path, monkeypatch):
    """With generated weights, which are not downloaded."""
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (300, 260), "green").save("photo.jpg")
    scope: dict = {}
    exec(BLOCKS[1].replace("resnet50(weights=weights)", "resnet50(weights=None)"), scope)
    assert scope["logits"].shape == (1, 1000)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`lucid (\w+)", README))))
def test_the_commands_exist(lucid_command, name):
    assert lucid_command(name, "--help").exit_code == 0


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link
