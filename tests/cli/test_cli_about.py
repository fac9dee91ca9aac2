"""`lucid models`, `ops`, `passes`, `env`, `cache`, the help and the version."""

import json
import runpy
import subprocess
import sys
import time

import pytest

import lucid
from lucid.ir.ops import OPS
from lucid.ir.passes import PIPELINE
from lucid.models import list_models


def test_python_runs_the_package(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lucid", "-V"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lucid", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lucid {lucid.__version__}\n"


def test_shells_complete_commands_and_options(lucid_command, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lucid"])
    for words, found in (("lucid ru", "run"), ("lucid compile --targ", "--targets")):
        monkeypatch.setenv("_LUCID_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert found in lucid_command().stdout.split()
    monkeypatch.delenv("_LUCID_COMPLETE")
    assert "COMP_WORDS" in lucid_command("--show-completion", "bash").stdout


def test_version_and_help(lucid_command):
    assert lucid_command("--version").stdout == f"lucid {lucid.__version__}\n"
    assert lucid_command("-V").stdout == f"lucid {lucid.__version__}\n"
    result = lucid_command("--help")
    assert result.exit_code == 0
    for command in ("run", "bench", "ir", "opt", "viz", "models", "ops", "passes", "env", "cache"):
        assert command in result.stdout
        assert lucid_command(command, "--help").exit_code == 0


def test_help_is_quick():
    """Well under a second: neither LLVM nor networkx is loaded for it."""
    code = (
        "import sys; from lucid.cli import command_line; command_line();"
        "sys.exit(any(m in sys.modules for m in ('llvmlite', 'networkx', 'PIL')))"
    )
    start = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert time.perf_counter() - start < 5


def test_models(lucid_command):
    listed = json.loads(lucid_command("models", "--json").stdout)
    assert [m["name"] for m in listed] == list_models()
    assert "resnest_digits" in lucid_command("models", "*digits").stdout
    result = lucid_command("models", "nothing*")
    assert result.exit_code == 1
    assert "nothing*" in result.stderr


def test_ops(lucid_command):
    listed = {o["name"]: o for o in json.loads(lucid_command("ops", "--json").stdout)}
    assert set(listed) <= set(OPS)
    assert "stride=(1,1)" in listed["conv2d"]["attributes"]
    assert listed["conv2d"]["kernel"]
    assert not listed["batch_norm"]["kernel"]
    assert "split_attention" in lucid_command("ops").stdout


def test_passes(lucid_command):
    listed = json.loads(lucid_command("passes", "--json").stdout)
    assert [p["name"] for p in listed if p["in_pipeline"]] == PIPELINE
    assert "fold-batch-norm" in lucid_command("passes").stdout
    equation = "batch_norm(conv2d(x, w, b)) == conv2d(x, w * s, b * s + t)"
    assert equation in lucid_command("passes", "--rules").stdout
    (fold,) = [p for p in listed if p["name"] == "fold-batch-norm"]
    assert fold["rules"]["into_weights"] == equation


def test_env(lucid_command, cache_folder):
    facts = json.loads(lucid_command("env", "--json").stdout)
    assert facts["lucid"] == lucid.__version__
    assert facts["cache_folder"] == str(cache_folder)
    assert facts["peak_gflops_1_thread"] > 0
    assert "LUCID_CACHE_DIR" in lucid_command("env").stdout


def test_cache(lucid_command, monkeypatch, tmp_path, digits):
    folder = tmp_path / "kernels"
    monkeypatch.setenv("LUCID_CACHE_DIR", str(folder))
    assert lucid_command("cache", "path").stdout.strip() == str(folder)
    assert "0 entries" in lucid_command("cache", "ls").stdout
    from lucid.codegen.kernels.peak import Peak
    from lucid.codegen.target import Target
    from lucid.runtime.cache import ObjectCache

    ObjectCache().put(Peak(), Target.host(), b"code")
    listed = json.loads(lucid_command("cache", "ls", "--json").stdout)
    assert [(f["family"], f["entries"]) for f in listed["families"]] == [("peak", 1)]
    assert "peak" in lucid_command("cache", "ls").stdout
    assert "deleted 1 entries" in lucid_command("cache", "clear").stdout
    assert "0 entries" in lucid_command("cache", "ls").stdout
