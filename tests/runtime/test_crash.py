"""Crash bundles: what fails inside Lucid is written down, what the user got wrong is not."""

import importlib
from pathlib import Path

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.codegen.language import vector_math
from lucid.errors import CompileError, InputError
from lucid.ir.ops import Relu
from lucid.ir.passes import fold_batch_norm
from lucid.ir.text import parse_graph
from lucid.runtime import library
from lucid.runtime.check import bisect, load_case
from lucid.runtime.crash import crash_folder

lowering = importlib.import_module("lucid.codegen.lowering.lower")

SHAPE = (2, 3, 12, 12)


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


@pytest.fixture
def crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUCID_CRASH_DIR", str(tmp_path / "crashes"))
    monkeypatch.setattr(library, "_libraries", {})
    return tmp_path / "crashes"


def fail(*_: object) -> None:
    raise ZeroDivisionError("no such luck")


def bundle(error: CompileError, crashes: Path) -> Path:
    """The folder that the error names, complete."""
    (folder,) = crashes.iterdir()
    assert error.bundle == folder
    assert str(folder) in str(error)
    assert "no such luck" in str(error)
    assert "no such luck" in (folder / "traceback.txt").read_text()
    assert "conv2d" in (folder / "graph.lir").read_text()
    told = (folder / "README.txt").read_text()
    assert f"lucid check {folder} --bisect" in told
    assert "llvmlite" in told
    return folder


def compiled(**options: object) -> lucid.CompiledModel:
    return lucid.compile(model(), SHAPE, threads=1, cache=False, **options)


def test_a_pass_that_fails(crashes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(fold_batch_norm.__name__)
    monkeypatch.setattr(module, "scale_and_shift", fail)
    with pytest.raises(CompileError, match="pass fold-batch-norm") as caught:
        compiled(precision="strict")
    folder = bundle(caught.value, crashes)
    before = (folder / "before.lir").read_text()
    assert before.startswith("# before fold-batch-norm\n")
    parse_graph(before)
    case = load_case(folder)
    assert (case.settings.precision, case.batch) == ("strict", 2)
    blame = bisect(case)
    assert blame is not None
    assert (blame.stage, blame.name) == ("pass", "fold-batch-norm")


def test_a_lowering_that_fails(crashes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "plan", fail)
    with pytest.raises(CompileError, match="ZeroDivisionError") as caught:
        compiled()
    folder = bundle(caught.value, crashes)
    assert "fusion(" in (folder / "before.lir").read_text()
    with pytest.raises(CompileError):  # the same failure again is the same bundle
        compiled()
    assert list(crashes.iterdir()) == [folder]


def test_a_kernel_that_fails(crashes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vector_math.LOWERINGS, Relu, fail)
    with pytest.raises(
        CompileError, match=r"kernel (window_)?tile\(.* cannot be emitted"
    ) as caught:
        compiled()
    bundle(caught.value, crashes)


def test_native_code_that_refuses(crashes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = compiled()
    monkeypatch.setattr(fast._runner, "enter", lambda call: 7)
    with pytest.raises(CompileError, match="status 7") as caught:
        fast(np.zeros(SHAPE, np.float32))
    assert caught.value.bundle is not None
    assert "status 7" in (caught.value.bundle / "traceback.txt").read_text()


def test_what_cannot_be_written_does_not_hide_the_failure(
    crashes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes.write_text("a file")
    monkeypatch.setattr(lowering, "plan", fail)
    with pytest.raises(CompileError, match=r"no such luck\n\(no crash bundle: ") as caught:
        compiled()
    assert caught.value.bundle is None


def test_the_users_mistakes_are_not_crashes(crashes: Path) -> None:
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        lucid.compile(Broken(), SHAPE)
    with pytest.raises(InputError):
        compiled()(np.zeros((2, 5, 12, 12), np.float32))
    illegal = parse_graph(
        "graph g(%x: f32[N,4]) -> f32[N,4] {\n  %y = relu(%x) : f32[N,4]\n  return %y\n}\n"
    )
    illegal.nodes.clear()
    with pytest.raises(lucid.errors.VerifyError):
        lucid.compile(illegal, (1, 4))
    assert not crashes.exists()


def test_where_bundles_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUCID_CRASH_DIR", raising=False)
    monkeypatch.setenv("LUCID_CACHE_DIR", "/some/where")
    assert crash_folder() == Path("/some/where/crashes")


def test_what_the_caller_raises_while_told_of_progress_is_no_failure_of_lucid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCID_CRASH_DIR", str(tmp_path))

    def stop(what: str, done: int, total: int) -> None:
        raise ZeroDivisionError(what)

    model = lucid.nn.Sequential(lucid.nn.Conv2d(3, 4, 1))
    with pytest.raises(ZeroDivisionError):
        lucid.compile(model, (1, 3, 4, 4), cache=False, progress=stop)
    assert not list(tmp_path.iterdir())
