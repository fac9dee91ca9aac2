"""The list of networks, their generated weights, the figures, and the page."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import zoo  # noqa: E402 (a script's folder, not a package)
from job import Job  # noqa: E402
from networks import NETWORKS, Network  # noqa: E402
from networks import table as zoo_table  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def record(lucid, onnxruntime, openvino, error=1e-6):
    times = {"lucid": lucid, "onnxruntime": onnxruntime, "openvino": openvino}
    engines = {name: {"min": t, "median": 2 * t} for name, t in times.items()}
    engines["lucid"] |= {"median": lucid, "compile_cold": 1.25}
    errors = {"errors": {"1": error / 2, "3": error, "8": error / 3}}
    return {
        "parameters": 1_500_000,
        "gflop": 2.0,
        "check": {"torch": errors, "onnx": errors},
        "time": {"engines": engines, "failures": {}, "load": 0.1},
    }


@pytest.fixture
def records():
    broken = {"stage": "import", "reason": "UnsupportedError:\n  no op", "where": "lucid/x.py:1"}
    return {
        "fast": record(1.0, 4.0, 5.0),
        "slow": record(2.0, 3.0, 2.0),
        "wrong": record(3.0, 3.5, 3.0, error=1e-4),
        "broken": {"check": {"torch": {"failure": broken}}},
    }


def test_the_list_is_the_55():
    assert len(NETWORKS) == 55
    assert {network.library for network in NETWORKS.values()} == {"timm", "torchvision"}
    assert NETWORKS["inception_v3"].size == 299


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_the_libraries_have_them(library):
    try:
        module = pytest.importorskip(library)
    except RuntimeError as error:  # a torchvision that does not fit the torch beside it
        pytest.skip(str(error))
    known = set(module.list_models() if library == "timm" else module.models.list_models())
    assert {n.name for n in NETWORKS.values() if n.library == library} <= known


def test_the_geometric_mean():
    assert zoo_table.geometric_mean([1, 4, 16]) == pytest.approx(4)
    assert math.isnan(zoo_table.geometric_mean([]))


def test_figures_over_all_networks(records):
    found = zoo_table.figures(records)
    assert found["networks"] == found["checked"] == 4
    assert found["agree"] == 2
    assert found["measured"] == 3
    assert found["geometric_mean"] == pytest.approx((4 * 1 * 1) ** (1 / 3))
    assert found["geometric_mean_of_medians"] == pytest.approx((8 * 2 * 2) ** (1 / 3))
    assert found["least"] == ("slow", 1.0)
    assert found["faster"] == 3


def test_figures_of_nothing():
    assert zoo_table.figures({})["least"] is None
    assert "Nothing was measured" in zoo_table.markdown({"AVX2": {"networks": {}}})


def test_failures_say_why(records):
    assert zoo_table.failures("fast", records["fast"]) == []
    assert [zoo_table.failures(name, records[name])[0] for name in ("wrong", "broken")] == [
        "wrong, from torch: error 1.0e-04",
        "broken, from torch: import: UnsupportedError: no op",
    ]
    late = {"time": {"failures": {"openvino": "died", "lucid": "late"}}}
    assert zoo_table.failures("m", late) == ["m, OpenVINO: died", "m, Lucid: late"]


def test_the_table(records):
    machine = {"cpu": "c", "features": ["avx2"], "cores": 2, "threads": 2, "load": 0.2}
    result = {"networks": records, "machine": machine, "versions": {"torch": "2"}}
    other = {"networks": {"slow": record(1.5, 3.0, 4.0), "more": record(1.0, 1.0, 1.0, error=1e-8)}}
    lines = zoo_table.markdown({"AVX2": result, "other": other}).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(records) + 1
    assert len({line.count("|") for line in table}) == 1
    first = "| fast | 1.5 | 2.00 | 1.00 | 4.00 | 5.00 | 4.00 | - | - | - | - | 1e-06 | 1e-06 |"
    assert table[2] == first
    both = "| slow | 1.5 | 2.00 | 2.00 | 3.00 | 2.00 | 1.00 | 1.50 | 3.00 | 4.00 | 2.00 |"
    assert table[3].startswith(both)
    assert set(table[-2].split("|")[2:-1]) == {" - "}
    assert "- AVX2: broken, from torch: import: UnsupportedError: no op" in lines


def test_avx512_by_amd_is_a_kind_of_its_own():
    for cpu, kind in (("AMD EPYC", "AVX-512-AMD"), ("Intel(R) Xeon(R) Processor", "AVX-512")):
        machine = {"cpu": cpu, "features": ["avx2", "avx512f"]}
        assert zoo_table.kind_of({"machine": machine}) == kind


def test_a_machine_whose_avx512_was_hidden_is_a_kind_of_its_own():
    """By what was measured, not by what was asked for: where nothing can hide it, it is there."""
    for hidden, kind in ((True, "AVX2-hiding"), (False, "AVX2")):
        times = {"load": 0.1, "avx512_hidden": hidden}
        facts = zoo.machine_facts(2, {"networks": {"alexnet": {"time": times}}})
        assert facts["avx512_hidden"] == hidden
        assert not hidden or not [f for f in facts["features"] if f.startswith("avx512")]
        assert zoo_table.kind_of({"machine": facts | {"features": ["avx2"]}}) == kind


def test_results_of_other_kinds_of_machines_stay_in_the_page(tmp_path, records):
    def when(name):
        return {"date": "2026-11-30", "commit": name}

    page = tmp_path / "page.md"
    page.write_text(f"{zoo_table.BEGIN}\n{zoo_table.END}\n")
    for feature in ("avx2", "avx512f"):
        machine = {"cpu": "c", "features": [feature], "cores": 2, "threads": 2, "load": 0.2}
        for name in ("alexnet", "resnet18"):
            record = records["fast"] | {"time": records["fast"]["time"] | when(name)}
            zoo.draw(page, {"networks": {name: record}, "machine": machine})
    assert [f.stem for f in sorted((tmp_path / "page").iterdir())] == ["AVX-512", "AVX2"]
    assert "AVX-512: ratio | AVX2: Lucid" in page.read_text()
    assert "; 2026-11-30, alexnet; 2026-11-30, resnet18." in page.read_text()
    assert page.read_text().count("| alexnet |") == page.read_text().count("| resnet18 |") == 1


def test_text_between_markers_is_replaced():
    page = f"before\n{zoo_table.BEGIN}\nold\n{zoo_table.END}\nafter\n"
    once = zoo_table.replaced(page, "new\n")
    assert once == page.replace("old", "new")
    assert zoo_table.replaced(once, "new\n") == once
    with pytest.raises(ValueError, match="zoo: begin"):
        zoo_table.replaced("a page", "new")


def test_the_page_has_markers():
    assert zoo_table.replaced(PAGE.read_text(encoding="utf-8"), "")


def chosen(**more):
    given = {"only": ["resnet18"], "check": True, "time": False, "skip_measured": False}
    given |= {"batches": [1, 3], "threads": 1, "isa": "native", "runs": 40}
    given |= {"workdir": None, "json": None} | more
    return SimpleNamespace(**given)


def test_a_run_goes_on_where_it_ended(tmp_path, monkeypatch, capsys):
    """A network that agrees is skipped, one that failed is checked again."""
    asked = []

    def child(do, network, job, **more):
        asked.append((do, network.name, *more.values()))
        assert more["batches"] == [1, 3]
        return {"parameters": 1} if do == "export" else {"seconds": 1, "errors": {"1": 1e-7}}

    monkeypatch.setattr(zoo, "child", child)
    result = {"networks": {"resnet50": record(1, 1, 1), "alexnet": {"failure": "export: died"}}}
    file = tmp_path / "zoo.json"
    options = chosen(only=["alexnet", "resnet50"], skip_measured=True, json=file)
    zoo.run(options, result, tmp_path)
    wanted = [("export", "alexnet", [1, 3])]
    wanted += [("check", "alexnet", [1, 3], source) for source in ("torch", "onnx")]
    assert asked == wanted
    assert list(result["networks"]) == ["alexnet", "resnet50"]
    kept = json.loads(file.read_text())["networks"]["alexnet"]
    assert kept["library"] == "torchvision"
    assert "failure" not in kept
    assert "alexnet" in capsys.readouterr().out


def test_a_process_that_dies_is_a_failure(tmp_path):
    job = Job("resnet18", 1, 1, 32, str(tmp_path), imported=True)
    found = zoo.child(
        "check", Network("nothing", "timm", 32, "none"), job, batches=[1], source="torch"
    )
    assert found["failure"]["stage"] == "check"
    assert "KeyError" in found["failure"]["reason"]


def test_the_error_is_of_the_worst_output():
    pytest.importorskip("torch", reason="torch is not installed")
    from reference import error

    a, b = np.array([1.0, -2.0]), np.array([[10.0]])
    assert error([a, b], [a, b]) == 0
    assert error([a + 0.5, b], [a, b]) == 0.25
    assert error([a], [a, b]) == math.inf
    assert error([a, b.ravel()], [a, b]) == math.inf
    assert error([a * np.nan, b], [a, b]) == math.inf


def test_weights_are_generated_and_statistics_fit_the_images():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from networks.build import calibrate, fill
    from reference import leaves

    def made():
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
        ).eval()
        fill(model)
        calibrate(model, images)
        return model

    images = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (4, 3, 9, 9)).astype("f4"))
    first, second = made(), made()
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    norm = first[1]
    with torch.no_grad():
        seen = (norm(first[0](images)) - norm.bias[:, None, None]) / norm.weight[:, None, None]
    assert seen.std().item() == pytest.approx(1, abs=0.2)
    assert abs(seen.mean().item()) < 0.3
    assert not norm._forward_pre_hooks
    assert leaves({"out": 1, "aux": (2, [3])}) == [1, 2, 3]


def test_files_older_than_the_weights_are_written_anew(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from networks import files

    made = []

    def build(network):
        made.append(network.name)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 5)).eval()

    def to_onnx(model, job):
        job.onnx.touch()
        return "no exporter"

    monkeypatch.setattr(files, "build", build)
    monkeypatch.setattr(files, "_to_onnx", to_onnx)
    network, job = Network("m", "timm", 4, "none"), Job("m", 1, 1, 4, str(tmp_path), imported=True)
    facts = files.export(network, job, [2])
    assert facts["parameters"] == 245
    assert facts["torch_float32_error"] < 1e-6
    assert files.export(network, job, [1, 2]) == facts
    assert len(made) == 1
    files.export(network, job, [3])
    assert len(made) == 2
    files.facts_file(job).write_text(json.dumps(facts | {"weights": 0}))
    assert files.export(network, job, [1])["weights"] == facts["weights"]
    assert not (tmp_path / "m-4-batch3.npz").exists()
