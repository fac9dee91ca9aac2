"""Models from files are called without the compiler, and with the same bits as with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from python_process import run_python

import lucid
from lucid import nn
from lucid.codegen.kernels.admission import Admission
from lucid.codegen.kernels.admission_tables import ADMISSION
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.driver_tables import DRIVER, PROFILED_DRIVER
from lucid.runtime import planner, saving, stored_programs

SHAPE = (2, 3, 12, 12)
X = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)
NET = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1)
)

ALONE = """
import sys

class NumPyAlone:
    "Stands for an environment with the standard library, NumPy and Lucid."

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {*sys.stdlib_module_names, "numpy", "lucid"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NumPyAlone())
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ready")
    model = lucid.compile(NET, SHAPE, threads=2)
    np.savez(folder / "arrays.npz", x=X, y=model(X))
    model.save(folder / "net.lucid")
    return folder / "net.lucid"


def expected(file: Path) -> np.ndarray:
    with np.load(file.with_name("arrays.npz")) as arrays:
        return arrays["y"]


def calling(file: Path) -> str:
    return (
        "import numpy as np, lucid\n"
        f"arrays = np.load({str(file.with_name('arrays.npz'))!r})\n"
        f"model = lucid.load({str(file)!r}, threads=2)\n"
        "assert np.array_equal(model(arrays['x']), arrays['y'])\n"
    )


def test_a_call_imports_no_compiler(file: Path) -> None:
    """Nor much else: what is imported beyond NumPy's own is what a worker waits for."""
    heavy = "llvmlite networkx typer rich PIL safetensors torch onnx lucid.ir.ops lucid.frontend "
    heavy += "lucid.compiler lucid.codegen.lowering asyncio tempfile shutil subprocess random"
    code = (
        "import sys, numpy, zipfile  # which np.load imports\nbefore = set(sys.modules)\n"
        + calling(file)
        + f"found = set(sys.modules) - before\nassert not found & {{*{heavy!r}.split()}}, found\n"
        "own = sorted(name for name in found if name.startswith('lucid'))\n"
        "assert len(own) < 70, own\n"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


BATCHES = 2, 5
"""Of the plans in a file."""


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A file with plans for some batches; images, and their results."""
    path = tmp_path_factory.mktemp("batches") / "net.lucid"
    model = lucid.compile(NET, (BATCHES[0], *SHAPE[1:]), threads=1)
    model.prepare((BATCHES[1], *SHAPE[1:]))
    x = np.random.default_rng(6).standard_normal((23, *SHAPE[1:])).astype(np.float32)
    y = model(x)
    model = lucid.compile(NET, (BATCHES[0], *SHAPE[1:]), threads=1)
    model.prepare((BATCHES[1], *SHAPE[1:]))
    model.save(path)
    return path, x, y


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where llvmlite is missing."""

    def missing(what: str) -> None:
        raise lucid.MissingPackageError(f"{what}: no llvmlite")

    monkeypatch.setattr(planner, "has_compiler", lambda: False)
    monkeypatch.setattr(planner, "require_compiler", missing)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 6, 7, 9, 23])
def test_other_batches_are_put_together(
    rows: int, batches: tuple[Path, np.ndarray, np.ndarray], no_compiler: None
) -> None:
    """Of those in the file, and where none is small enough of copies of rows, whose results are
    nobody's."""
    path, x, y = batches
    model = lucid.load(path, threads=1)
    np.testing.assert_array_equal(model(x[:rows]), y[:rows])
    out = np.full((rows, *y.shape[1:]), np.nan, np.float32)
    assert model(x[:rows], out=out) is out
    np.testing.assert_array_equal(out, y[:rows])
    assert not model._planner.plans


def test_the_calls_of_a_batch(
    batches: tuple[Path, np.ndarray, np.ndarray], no_compiler: None
) -> None:
    found = lucid.load(batches[0], threads=1)._planner
    for rows, sizes in {0: [2], 1: [2], 4: [2, 2], 8: [5, 2, 2], 12: [5, 5, 2]}.items():
        plans = found.for_call(((rows, *SHAPE[1:]),))
        assert ([size for _, size in plans.parts], plans.batch) == (sizes, rows)
        assert [plan.batch for plan, _ in plans.parts] == sizes


def test_slices_that_are_stored_need_no_plan(tmp_path: Path) -> None:
    """A batch is in the slices that planning makes of it, where the file has all of these."""
    path, size = tmp_path / "net.lucid", planner.MAX_BATCH
    model = lucid.compile(NET, (size, *SHAPE[1:]), threads=1)
    model.prepare((3, *SHAPE[1:]))
    model.save(path)
    x = np.random.default_rng(6).standard_normal((2 * size + 4, *SHAPE[1:])).astype(np.float32)
    stored = lucid.load(path, threads=1)
    for rows, planned in {2 * size: 0, 2 * size + 3: 0, 2 * size + 4: 2}.items():
        np.testing.assert_array_equal(stored(x[:rows]), model(x[:rows]))
        assert len(stored._planner.plans) == planned


def test_rows_that_depend_on_one_another_are_not_put_together(
    batches: tuple[Path, np.ndarray, np.ndarray], no_compiler: None
) -> None:
    path, x, y = batches
    model = lucid.load(path, threads=1)
    ready = model._planner.ready
    for shapes, plan in ready.items():
        ready[shapes] = dataclasses.replace(plan, graph=plan.graph._replace(apart=False))
    np.testing.assert_array_equal(model(x[:5]), y[:5])
    with pytest.raises(lucid.MissingPackageError, match="inputs of 4x3x12x12"):
        model(x[:4])


def test_a_batcher_needs_no_compiler(
    batches: tuple[Path, np.ndarray, np.ndarray], no_compiler: None
) -> None:
    path, x, y = batches
    model = lucid.load(path, threads=1)
    with lucid.Batcher(model, max_delay_ms=50) as batcher:
        futures = [batcher.submit(x[n : n + 1]) for n in range(7)]
        for n, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(), y[n : n + 1])
    assert "_model" not in vars(model._source)  # whose graphs were not read


def test_numpy_alone_is_enough_for_calls(file: Path) -> None:
    code = (
        ALONE
        + calling(file)
        + (
            "def refused(attempt):\n"
            "    try:\n"
            "        attempt()\n"
            "    except lucid.MissingPackageError as problem:\n"
            "        assert 'llvmlite' in str(problem), problem\n"
            "    else:\n"
            "        raise AssertionError\n"
            "assert np.array_equal(model(arrays['x'][:1]), arrays['y'][:1])\n"
            "refused(lambda: model(arrays['x'][:, :, :-1]))\n"
            "refused(lambda: model.explain())\n"
            "refused(lambda: model.profile(arrays['x']))\n"
            "refused(lambda: model.ir())\n"
            "refused(lambda: model.stages())\n"
            "refused(lambda: lucid.compile)\n"
            "assert np.array_equal(model(arrays['x']), arrays['y'])\n"
            "assert 'float32[N,3,12,12]' in repr(model) and model.input_shape == (2, 3, 12, 12)\n"
        )
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_the_command_says_what_it_lacks() -> None:
    done = run_python(ALONE + "from lucid.cli import main\nmain()\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "lucid: the command takes the package typer, which is not installed: pip install "
        "lucid-compiler brings all that it needs\n"
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 11])
def test_the_number_of_threads(file: Path, threads: int) -> None:
    """More than any program was made for, too."""
    model = lucid.load(file, threads=threads)
    assert model._planner.ready
    assert not model._planner.plans
    np.testing.assert_array_equal(model(X), expected(file))


def test_a_file_of_another_lucid_is_compiled(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_programs, "generator_hash", lambda: "another")
    model = lucid.load(file)
    assert not model._planner.ready
    np.testing.assert_array_equal(model(X), expected(file))


def test_no_code_is_taken_where_none_is_wanted(file: Path) -> None:
    model = lucid.load(file, code=False)
    assert not model._planner.ready
    np.testing.assert_array_equal(model(X), expected(file))


def test_what_is_asked_besides_calls(file: Path, tmp_path: Path) -> None:
    """It is planned then, and calls have the same bits before and after."""
    model = lucid.load(file, threads=1)
    np.testing.assert_array_equal(model(X[:1]), model(X)[:1])
    assert list(model._planner.plans) == [(SHAPE,), ((1, *SHAPE[1:]),)]
    assert model._planner.ready  # for the shape in the file
    assert "conv2d" in model.explain()
    assert not model._planner.ready
    np.testing.assert_array_equal(model(X), expected(file))
    model.save(tmp_path / "again.lucid")
    again = lucid.load(tmp_path / "again.lucid", threads=1)
    assert set(again._planner.ready) == {(SHAPE,), ((1, *SHAPE[1:]),)}
    np.testing.assert_array_equal(again(X[:1]), expected(file)[:1])
    assert again.schedule.to_json() == model.schedule.to_json()


def test_swapped_weights(tmp_path: Path) -> None:
    model = lucid.compile(NET, SHAPE, threads=1)
    model.save(tmp_path / "net.lucid", weights="both")
    loaded = lucid.load(tmp_path / "net.lucid", threads=1)
    before = loaded(X)
    state = {name: 2 * np.asarray(value) for name, value in NET.state_dict().items()}
    loaded.load_weights(state)
    np.testing.assert_array_equal(loaded(X), model.load_weights(state)(X))
    assert not np.array_equal(loaded(X), before)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"kernels":[],"weights":[],"programs":[{}]}',
        '{"kernels":[],"weights":[],"programs":[{"threads":9,"shapes":[[1]],"steps":[[7,0,1]]}]}',
        '{"kernels":[["x()"]],"weights":[],"programs":[]}',
        '{"kernels":[],"weights":[],"programs":[{"threads":9,"shapes":[[1]],"steps":[],"codes":[],'
        '"weights":[],"words":[18446744073709551616]}]}',
    ],
)
def test_a_section_that_cannot_be_read(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "to_json", lambda programs, kernels: text)
    lucid.compile(NET, SHAPE, threads=1).save(tmp_path / "net.lucid")
    with pytest.raises(lucid.ModelFileError, match=r"its section 'programs\..*' cannot be read"):
        lucid.load(tmp_path / "net.lucid", threads=1)


def test_names_of_the_runtimes_own_kernels() -> None:
    named = [DRIVER, PROFILED_DRIVER, ADMISSION]
    assert [kernel.called() for kernel in (Driver(), Driver(True), Admission())] == named
