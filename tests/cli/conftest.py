"""The command line in this process, with a cache of its own."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lucid.cli import command_line

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lucid-cache")


@pytest.fixture
def lucid_command(monkeypatch, cache_folder):
    """`lucid_command("run", ...)`: the result, with exit_code, stdout and stderr."""
    monkeypatch.setenv("LUCID_CACHE_DIR", str(cache_folder))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments, input=None):
        result = CliRunner().invoke(command_line(), list(map(str, arguments)), input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def digits():
    return sorted((ROOT / "examples" / "digits").glob("*.png"))


@pytest.fixture
def model_file(tmp_path):
    """A user's own file with a model, and with things that are none."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from lucid import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(8, 4))\n"
        "def dense():\n"
        "    return nn.Sequential(nn.Linear(5, 7), nn.ReLU())\n"
        "def features():\n"
        "    return nn.Conv2d(3, 8, 3)\n"
        "def number():\n"
        "    return 7\n"
        "def broken():\n"
        "    raise RuntimeError('no such luck')\n"
        "instance = build()\n"
    )
    return path
