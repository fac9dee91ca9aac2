"""`lucid compile --emit`: libraries in C."""

import pytest
from c_library import COMPILER


def test_a_folder_with_a_library(lucid_command, tmp_path) -> None:
    options = ["--emit", "c", "--embed", "--batches", "2", "--threads", 1]
    result = lucid_command("compile", "resnest_digits", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "CMakeLists.txt",
        "README.md",
        "main.c",
        *(f"resnest_digits.{suffix}" for suffix in ("a", "c", "h", "hpp")),
    }
    assert "resnest_digits.a (" in result.stderr
    source = (tmp_path / "out" / "resnest_digits.c").read_text()
    assert "enum { PLANS = 2, LEVELS = 1 };" in source
    assert "lucid.vision" not in (tmp_path / "out" / "main.c").read_text()


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_a_shared_library(lucid_command, tmp_path) -> None:
    options = ["--emit", "so", "--name", "digits", "--threads", 1]
    result = lucid_command("compile", "resnest_digits", "-o", tmp_path, *options)
    assert result.exit_code == 0
    assert (tmp_path / "digits.so").stat().st_size > 1 << 16
    assert (tmp_path / "digits.bin").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--emit", "d"], "--emit is c or so, not 'd'"),
        (["--embed"], "go with --emit"),
        (["--emit", "c", "--batches", "1,x"], "list of numbers"),
        (["--emit", "c", "--name", "My Net"], "'my_net', not 'My Net'"),
        (["--emit", "c", "--targets", "x86-64,aarch64"], "for one architecture"),
    ],
)
def test_options_that_make_no_library(options, message, lucid_command, tmp_path) -> None:
    result = lucid_command("compile", "resnest_digits", "-o", tmp_path / "x.lucid", *options)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "x.lucid").exists()
