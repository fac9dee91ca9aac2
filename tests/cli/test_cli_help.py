"""Help that reads well: a sentence first, whole paragraphs, examples that fit, no bare option."""

import re

import pytest

from lucid.cli import command_line
from lucid.cli.app import flowing

COMMANDS = {c.callback.__name__: c for c in command_line().registered_commands}


def test_paragraphs_flow_and_examples_keep_their_lines():
    text = """First line.

    \b
    an example
    another

    A long
    paragraph.
    """
    assert flowing(text) == "First line.\n\nan example\nanother\n\nA long paragraph."


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_help_that_reads_well(lucid_command, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    doc = COMMANDS[name].callback.__doc__
    first = flowing(doc).splitlines()[0]
    assert re.fullmatch(r"[A-Z].*\.", first)
    kept = [part for part in doc.split("\n\n") if part.strip().startswith("\b")]
    for line in (line.strip() for part in kept for line in part.splitlines()):
        assert len(line) <= 78, line
    result = lucid_command(name, "--help")
    assert result.exit_code == 0
    assert "\b" not in result.stdout


def test_the_commands_in_the_readme_are_all_there_are(lucid_command):
    assert {"ir", "opt", "explain", "viz", "profile", "memory", "check"} < set(COMMANDS)
    overview = lucid_command("--help").stdout
    assert all(re.search(rf"│ {name} ", overview) for name in COMMANDS)
