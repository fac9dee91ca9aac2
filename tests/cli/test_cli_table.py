"""Tables: as wide as their content where they are piped, fitted to a terminal else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.cli.table import Table, shortened
from lucid.runtime import profile_report

LAYER = "stages.3.blocks.12.conv_dw.conv.depthwise"
ROW = (LAYER, "depthwise", "depthwise7x7", "0.345", "100%", "12.5%", "123.4", "120%", "14.31")


def profile_table():
    columns = profile_report.KERNEL_COLUMNS
    numbers = [name for name in columns if name in profile_report.NUMBERS]
    rows = [(*ROW, "bandwidth"), ("conv1", *ROW[1:], "compute")]
    return Table(columns, rows, numbers, spare=profile_report.SPARE)


def test_piped_tables_are_whole_and_have_no_trailing_blanks(lucid_command):
    lines = profile_table().lines(None)
    assert all(cell in lines[2] for cell in ROW)
    for command in (("ops",), ("models",), ("passes",), ("env",), ("memory", "resnest_digits")):
        result = lucid_command(*command)
        assert result.exit_code == 0
        assert all(line == line.rstrip() for line in result.stdout.splitlines()), command
        assert "\x1b" not in result.stdout


@pytest.mark.parametrize("width", [60, 80])
def test_layers_are_told_apart_on_a_narrow_terminal(width):
    lines = profile_table().lines(width)
    assert max(map(len, lines)) <= width
    assert "stages.3.b" in lines[2]
    assert ".depthwise" in lines[2]
    assert "0.345" in lines[2]
    assert "no room for the columns MB, busy" in lines[-1]


def test_a_terminal_is_asked_for_its_width(monkeypatch, capsys):
    from lucid.cli import output

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True, raising=False)
    output.print_table(("layer", "ms"), [(LAYER * 2, "1.5")], right=("ms",))
    assert max(map(len, capsys.readouterr().out.splitlines()[2:])) == 40


def test_descriptions_wrap():
    table = Table(("op", "description"), [("abs", "word " * 30)], prose=("description",))
    lines = table.lines(40)
    assert max(map(len, lines)) <= 40
    assert sum(line.count("word") for line in lines) == 30


def test_shortened_in_the_middle():
    assert shortened("layer1.0.conv2", 14) == "layer1.0.conv2"
    assert shortened("layer1.0.conv2", 9) == "laye…onv2"
    assert shortened("layer1.0.conv2", 1) == "…"


@given(
    st.integers(1, 120),
    st.lists(st.tuples(*[st.text("abc.", max_size=40)] * 3, st.text("12.", max_size=6))),
)
def test_any_table_fits_where_its_numbers_do(width, rows):
    table = Table(("layer", "a", "b", "ms"), rows, ("ms",), ("b",), ("a",))
    lines = table.lines(width)
    assert len(lines) >= len(rows)
    if width >= 26:  # three texts of four characters, a number of six, and the gaps
        assert all(len(line) <= width for line in lines if not line.startswith("(no room"))
