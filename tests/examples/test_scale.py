"""The programs of examples/scale: on two worker processes, exactly what one process computes."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lucid

ROOT = Path(__file__).parents[2]
SCALE = ROOT / "examples" / "scale"
COUNT, BROKEN = 500, 123
BEAM = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
SPARK = {"PYSPARK_SUBMIT_ARGS": "--master local[2] pyspark-shell", "PYSPARK_PYTHON": sys.executable}
RAY = {"RAY_USAGE_STATS_ENABLED": "0"}

EXAMPLES = {
    "process_pool": ("numpy", "2", {}),
    "dask_distributed": ("distributed dask pandas pyarrow", "2", {}),
    "ray_data": ("ray pandas pyarrow", "2", RAY),
    "spark_udf": ("pyspark pandas pyarrow", "", SPARK),
    "spark_map": ("pyspark pandas pyarrow", "", SPARK),
    "beam_handler": ("apache_beam pyarrow", BEAM, {}),
}
"""Of each what it needs, its last arguments, and its environment."""
RUNS = [(example, source) for example in EXAMPLES for source in ("folder", "parquet")]
RUNS.remove(("dask_distributed", "parquet"))  # CI has Dask, and a run takes 8 s of two processors
SHOWN = re.compile(r"<!-- not run: part of (\S+) -->\n```python\n(.*?\n)```\n", re.DOTALL)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.lucid"
    runpy.run_path(str(SCALE / "save_model.py"))["main"](str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Digits with noise on them, and a file that is no image."""
    found = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    digits = [np.asarray(Image.open(p), int) for p in sorted(ROOT.glob("examples/digits/*.png"))]
    for i in range(COUNT):
        levels = digits[i % len(digits)] + noise.integers(-24, 25, (32, 32))
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(found / f"{i:04}.png")
    (found / f"{BROKEN:04}.png").write_bytes(b"\x89PNG and no more")
    return found


@pytest.fixture(scope="module")
def parquet(folder) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    files = sorted(folder.iterdir())
    paths, images = [str(f) for f in files], [f.read_bytes() for f in files]
    table = pyarrow.table({"path": paths, "bytes": images})
    write_table(table, folder.with_suffix(".parquet"), row_group_size=100)
    return folder.with_suffix(".parquet")


@pytest.fixture(scope="module")
def expected(model, folder) -> dict[str, np.ndarray]:
    classifier = lucid.vision.Classifier(lucid.load(model, threads=1))
    return classifier.predict(sorted(folder.iterdir()))


def results(out: Path) -> dict[str, np.ndarray]:
    """What a program wrote, in the order of the files' names."""
    if out.suffix == ".npz":
        columns = dict(np.load(out))
    else:
        from pyarrow.parquet import read_table

        parts = [read_table(part).to_pydict() for part in sorted(out.parent.rglob("*.parquet"))]
        columns = {name: np.array([v for p in parts for v in p[name]]) for name in parts[0]}
    order = np.argsort([Path(path).name for path in columns["path"]])
    return {name: column[order] for name, column in columns.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("example", "source"), RUNS)
def test_two_workers_give_the_bits_of_one_process(
    example, source, model, expected, tmp_path, request
):
    needs, arguments, environment = EXAMPLES[example]
    lacking = [name for name in needs.split() if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"examples/scale/{example}.py needs {', '.join(lacking)}")
    if environment is SPARK and shutil.which("java") is None:
        pytest.skip("Spark needs a JRE")
    source = request.getfixturevalue(source)
    out = tmp_path / "out" / ("out.npz" if example == "process_pool" else "part")
    out.parent.mkdir()
    done = subprocess.run(
        [sys.executable, SCALE / f"{example}.py", model, source, out, *arguments.split()],
        env={**os.environ, "PYTHONPATH": str(Path(lucid.__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = results(out)
    assert [Path(path).name for path in found["path"]] == [f"{i:04}.png" for i in range(COUNT)]
    assert np.flatnonzero(found["error"] != "").tolist() == [BROKEN]
    for name in ("label", "score", "embedding"):
        np.testing.assert_array_equal(found[name].astype(expected[name].dtype), expected[name])
    assert found["label"][BROKEN] == -1


def test_the_page_shows_the_programs_as_they_are():
    shown = SHOWN.findall((ROOT / "docs" / "scaling.md").read_text(encoding="utf-8"))
    for path, block in shown:
        assert block in (ROOT / path).read_text(encoding="utf-8"), f"{path} has changed"
    programs = {str(path.relative_to(ROOT)) for path in SCALE.glob("*.py")}
    assert {path for path, _ in shown} == programs


@pytest.mark.parametrize("path", sorted(SCALE.glob("*.py")), ids=lambda path: path.stem)
def test_a_program_is_short_enough_to_copy(path):
    assert 15 <= len(path.read_text(encoding="utf-8").splitlines()) <= 60


def test_beams_handler_counts_bytes_and_shares_by_mapping(model):
    pytest.importorskip("apache_beam")
    handler = runpy.run_path(str(SCALE / "beam_handler.py"))["LucidModelHandler"](str(model))
    digit = (ROOT / "examples" / "digits" / "7_0.png").read_bytes()
    rows = list(handler.run_inference([digit, b"broken"], handler.load_model()))
    assert [row["label"] for row in rows] == [7, -1]
    assert handler.get_num_bytes([digit, b"broken"]) == len(digit) + 6
    assert not handler.share_model_across_processes()
