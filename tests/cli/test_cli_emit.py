"""`lucid compile --emit`: libraries in C."""

import pytest
from c_library import COMPILER

NET = """graph net(%x: f32[N,3,8,8]) -> f32[N,3,8,8] {
  param @w: f32[3,1,1]
  %y = mul(%x, @w) : f32[N,3,8,8]
  return %y
}
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "My net.lir"
    path.write_text(NET)
    return path


def test_a_folder_with_a_library(net, lucid_command, tmp_path) -> None:
    options = ["--emit", "c", "--embed", "--batches", "2", "--threads", 1]
    result = lucid_command("compile", net, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "CMakeLists.txt",
        "README.md",
        "main.c",
        *(f"my_net.{suffix}" for suffix in ("a", "c", "h", "hpp")),
    }
    assert "my_net.a (" in result.stderr
    source = (tmp_path / "out" / "my_net.c").read_text()
    assert "enum { PLANS = 2, FAMILIES = 1, LEVELS = 1 };" in source


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_a_shared_library(net, lucid_command, tmp_path) -> None:
    options = ["--emit", "so", "--name", "scaled", "--threads", 1]
    result = lucid_command("compile", net, "-o", tmp_path, *options)
    assert result.exit_code == 0
    assert (tmp_path / "scaled.so").stat().st_size > 1 << 12
    assert (tmp_path / "scaled.bin").exists()


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
def test_options_that_make_no_library(options, message, net, lucid_command, tmp_path) -> None:
    result = lucid_command("compile", net, "-o", tmp_path / "x.lucid", *options)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "x.lucid").exists()
