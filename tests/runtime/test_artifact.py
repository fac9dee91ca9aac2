"""Saved models: what `lucid.load` gives is what was saved, bit by bit, whoever loads it where."""

import copy
import json
import os
import pickle
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.artifact import container
from lucid.artifact.container import Writer
from lucid.artifact.contents import WEIGHTS, Artifact
from lucid.codegen.language import llvm
from lucid.codegen.target import LEVELS, Target
from lucid.errors import InputError, ModelFileError, UnknownNameError, WeightsError
from lucid.ir.samples import sample_payload
from lucid.ir.text import parse_graph
from lucid.models import resnest_digits
from lucid.runtime import library
from lucid.runtime.cache import generator_hash
from lucid.runtime.processors import default_threads
from lucid.runtime.stored import StoredObjects
from lucid.runtime.tune import Tuner

HOST = Target.host()


class TwoHeads(nn.Module):
    """Two outputs, of different ranks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = nn.functional.relu(self.stem(x))
        return self.head(y.mean((2, 3))), y


class OfItsSize(nn.Module):
    """Its graph depends on the size of the image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return self.conv(x).reshape(-1, 8, x.shape[2] * x.shape[3])


def small():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def results(compiled, x):
    y = compiled(x)
    return y if isinstance(y, tuple) else (y,)


def assert_same(one, other, x):
    for a, b in zip(results(one, x), results(other, x), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


@pytest.fixture
def no_compiler(monkeypatch):
    """Nothing is compiled from here on, and what the process has loaded is forgotten."""

    def forbid():
        def refuse(kernel, target):
            raise AssertionError(f"{kernel} is compiled")

        monkeypatch.setattr(library, "_libraries", {})
        monkeypatch.setattr(llvm, "Compilation", refuse)

    return forbid


def packed_bytes(loaded):
    """Bytes of weights that were packed, as they were not found in the file."""
    return loaded._planner.weights.bytes if loaded._planner.weights else 0


# -- the same results ---------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_and_sizes(tmp_path, threads, no_compiler):
    compiled = lucid.compile(small(), (3, 3, 16, 20), threads=2)
    compiled.save(tmp_path / "m.lucid")
    no_compiler()
    loaded = lucid.load(tmp_path / "m.lucid", threads, cache=False)
    assert loaded.threads == threads
    assert loaded.input_shape == (3, 3, 16, 20)
    for shape in [(3, 3, 16, 20), (1, 3, 16, 20), (37, 3, 16, 20), (0, 3, 16, 20), (2, 3, 9, 33)]:
        assert_same(compiled, loaded, images(*shape))


def test_several_outputs(tmp_path):
    compiled = lucid.compile(TwoHeads(), (2, 3, 8, 8), threads=1).save(tmp_path / "m.lucid")
    assert_same(compiled, lucid.load(tmp_path / "m.lucid"), images(5, 3, 8, 8))


def test_images_of_uint8(tmp_path):
    compiled = lucid.compile(resnest_digits(), (1, 32, 32, 1), input="uint8_nhwc", threads=1)
    compiled.save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid", 1)
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
    assert_same(compiled, loaded, x)
    with pytest.raises(InputError, match="uint8"):
        loaded(images(1, 32, 32, 1))


def test_a_graph(tmp_path):
    graph = parse_graph(
        """graph g(%x: f32[N,4,6,6]) -> f32[N,8,6,6] {
             param @w: f32[8,4,1,1]
             %y = conv2d(%x, @w) : f32[N,8,6,6]
             return %y
           }"""
    )
    graph.payload = sample_payload(graph)
    compiled = lucid.compile(graph, threads=1).save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    assert_same(compiled, loaded, images(2, 4, 6, 6))
    with pytest.raises(InputError, match=r"for inputs of 4x6x6, not for 4x7x6"):
        loaded(images(1, 4, 7, 6))


def test_sizes_on_which_the_graph_depends(tmp_path):
    compiled = lucid.compile(OfItsSize(), (1, 3, 8, 8), threads=1)
    compiled.prepare((2, 3, 6, 10))
    compiled.save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    for shape in [(3, 3, 8, 8), (2, 3, 6, 10)]:
        assert_same(compiled, loaded, images(*shape))
    with pytest.raises(InputError, match=r"for inputs of 3x8x8, 3x6x10, not for 3x5x5: .*prepare"):
        loaded(images(1, 3, 5, 5))
    with pytest.raises(InputError, match="wants f32"):
        loaded(images(1, 4, 8, 8))


def test_choices_are_kept(tmp_path):
    options = lucid.CompileOptions(kernels={"3": "winograd2x2"}, disable=["fuse-epilogue"])
    compiled = lucid.compile(small(), (1, 3, 24, 24), threads=1, options=options)
    compiled.save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid", 1)
    assert loaded.schedule == compiled.schedule
    assert "winograd2x2" in loaded.schedule.to_json()
    assert str(loaded.graph()) == str(compiled.graph())
    assert loaded.stages() == compiled.stages()
    assert loaded.explain() == compiled.explain()
    assert_same(compiled, loaded, images(2, 3, 24, 24))
    assert_same(compiled, loaded, images(2, 3, 40, 24))


def test_tuned_choices_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LUCID_CACHE_DIR", str(tmp_path / "cache"))
    compiled = lucid.compile(small(), (1, 3, 24, 24), threads=1)
    tuned = Tuner(HOST, 1, 1).tune(compiled.graph(), budget=0.2).schedule
    options = lucid.CompileOptions(schedule=tuned)
    compiled = lucid.compile(small(), (1, 3, 24, 24), threads=1, options=options)
    compiled.save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid", 1)
    assert loaded.schedule == tuned
    assert_same(compiled, loaded, images(4, 3, 24, 24))


def test_a_model_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    ).eval()
    compiled = lucid.compile(model, (3, 3, 12, 12), threads=1).save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    for shape in [(3, 3, 12, 12), (2, 3, 17, 9)]:
        assert_same(compiled, loaded, images(*shape))
    other = {n: t * 2 for n, t in model.state_dict().items()}
    x = images(1, 3, 12, 12)
    assert_same(compiled.load_weights(other), loaded.load_weights(other), x)


@pytest.mark.parametrize("height", [8, "h"])
def test_a_model_of_onnx(tmp_path, height):
    pytest.importorskip("onnx")
    from onnx_models import array, model, node

    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Add", "b c", "y")]
    proto = model(nodes, {"w": array(4, 3, 3, 3), "c": array(4, 1, 1)}, ("N", 3, height, 8))
    compiled = lucid.compile(proto, (1, 3, 8, 8), threads=1).save(tmp_path / "m.lucid")
    assert_same(compiled, lucid.load(tmp_path / "m.lucid"), images(3, 3, 8, 8))


def test_a_loaded_model_is_saved_again(tmp_path):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    compiled.metadata = {"labels": ["cat", "dog"]}
    compiled.save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    assert loaded.metadata == compiled.metadata
    loaded.save(tmp_path / "m.lucid")  # over the file that it has mapped
    again = lucid.load(tmp_path / "m.lucid")
    for shape in [(1, 3, 16, 16), (1, 3, 20, 11)]:
        assert_same(compiled, loaded, images(*shape))
        assert_same(compiled, again, images(*shape))
    loaded.metadata["labels"] = {1, 2}
    with pytest.raises(InputError, match="JSON"):
        loaded.save(tmp_path / "m.lucid")
    assert_same(compiled, lucid.load(tmp_path / "m.lucid"), images(1, 3, 16, 16))


@pytest.mark.parametrize("weights", [*WEIGHTS, None])
def test_a_model_of_bfloat16(tmp_path, weights):
    """Of a layer for each kernel that rounds, whether or not the machine has instructions for it:
    the files hold what the kernels read."""
    kernels = {"0": "direct_bf16", "1": "winograd2x2_bf16", "2": "pointwise_bf16"}
    network = nn.Sequential(nn.Conv2d(3, 20, 3), nn.Conv2d(20, 18, 3), nn.Conv2d(18, 5, 1))
    options = lucid.CompileOptions(kernels=kernels)
    compiled = lucid.compile(network, (2, 3, 9, 9), precision="bf16", threads=1, options=options)
    compiled.save(tmp_path / "m.lucid", weights=weights)
    loaded = lucid.load(tmp_path / "m.lucid")
    for batch in (2, 3):
        assert_same(compiled, loaded, images(batch, 3, 9, 9))
    assert "bf16" in str(loaded.explain())


def test_an_artifact_is_a_model_to_compile(tmp_path):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    compiled.save(tmp_path / "m.lucid", weights="plain")
    again = lucid.compile(tmp_path / "m.lucid", threads=1, precision="strict")
    assert again.input_shape == (1, 3, 16, 16)
    x = images(1, 3, 16, 16)
    assert np.allclose(again(x), compiled(x), atol=1e-5)


# -- weights --------------------------------------------------------------------------------------


def held(path):
    """The names of the tensors that a file holds as the model has them, and of its sections."""
    artifact = Artifact.open(path)
    return set(artifact.payload), {s.partition(".")[0] for s in artifact.container.sections}


def test_each_way_to_hold_weights(tmp_path, no_compiler):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    names = set(compiled.graph().sources())
    for weights in WEIGHTS:
        compiled.save(tmp_path / f"{weights}.lucid", weights=weights)
    compiled.save(tmp_path / "default.lucid")
    no_compiler()
    for weights in (*WEIGHTS, "default"):
        path = tmp_path / f"{weights}.lucid"
        tensors, sections = held(path)
        assert tensors == (names if weights in ("plain", "both") else set())
        assert ("packed" in sections) == (weights != "plain")
        loaded = lucid.load(path, 1, cache=False)
        assert (packed_bytes(loaded) > 0) == (weights == "plain")
        for shape in [(1, 3, 16, 16), (37, 3, 16, 16), (2, 3, 21, 9)]:
            assert_same(compiled, loaded, images(*shape))
    sizes = {w: (tmp_path / f"{w}.lucid").stat().st_size for w in WEIGHTS}
    assert Artifact.open(tmp_path / "default.lucid").manifest.weights == "compact"
    assert max(sizes["packed"], sizes["plain"]) < sizes["both"]
    with pytest.raises(UnknownNameError, match="weights is one of compact, packed, plain, both"):
        compiled.save(tmp_path / "m.lucid", weights="none")


def test_a_model_with_packed_weights_alone(tmp_path):
    model = small()
    compiled = lucid.compile(model, (1, 3, 16, 16), threads=1).save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    x = images(2, 3, 16, 16)
    for copied in (
        pickle.loads(pickle.dumps(loaded)),
        copy.deepcopy(pickle.loads(pickle.dumps(loaded))),
        lucid.load(loaded.save(tmp_path / "m.lucid") and tmp_path / "m.lucid"),
    ):
        assert_same(compiled, copied, x)
    other = "x86-64" if HOST.is_x86 and HOST.level else "aarch64"
    for wanted in ({"weights": "plain"}, {"weights": "both"}, {"targets": [other]}):
        with pytest.raises(WeightsError, match=f"packed for {HOST.name}, .* weights='both'"):
            loaded.save(tmp_path / "none.lucid", **wanted)
    assert not (tmp_path / "none.lucid").exists()
    with pytest.raises(ModelFileError, match=rf"packed for {HOST.name} .*weights='both'"):
        lucid.compile(tmp_path / "m.lucid", precision="strict", threads=1)
    loaded.load_weights({name: p.numpy() for name, p in model.state_dict().items()})
    loaded.save(tmp_path / "both.lucid", weights="both")
    assert_same(compiled, lucid.load(tmp_path / "both.lucid"), x)


def test_tables_stay_with_packed_weights(tmp_path):
    """What no checkpoint brings is there for `load_weights`."""
    torch = pytest.importorskip("torch")

    class Positions(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(4, 4)
            self.register_buffer("order", torch.tensor([2, 0, 1, 3]))

        def forward(self, x):
            return self.last(x[:, self.order] + torch.linspace(0, 1, 4))

    model = Positions().eval()
    compiled = lucid.compile(model, (1, 4), threads=1).save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    other = {n: t * 3 if t.is_floating_point() else t for n, t in model.state_dict().items()}
    assert_same(compiled.load_weights(other), loaded.load_weights(other), images(3, 4))


def of_one_input(manifest):
    """The fields of a manifest as they were before format 3."""
    dtypes, shapes = manifest.pop("dtypes"), manifest.pop("input_shapes")
    manifest |= {"dtype": dtypes[0], "input_shape": shapes[0]}
    for size in manifest["sizes"]:
        size["image"] = size.pop("shapes")[0][1:]
    for target in manifest["targets"]:
        target["schedules"] = [(shapes[0], text) for shapes, text in target["schedules"]]


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_version(tmp_path, version):
    """It has one input; the first version has all weights and says nothing of it."""
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    compiled.save(tmp_path / "m.lucid", weights="both")
    new, path = Artifact.open(tmp_path / "m.lucid").container, tmp_path / "old.lucid"
    with mock.patch.object(container, "VERSION", version), open(path, "wb") as file:
        writer = Writer(file)
        for name in new.sections:
            data = bytes(new.read(name))
            if name == "manifest":
                manifest = json.loads(data)
                of_one_input(manifest)
                if version == 1:
                    del manifest["weights"]
                data = json.dumps(manifest).encode()
            writer.add(name, data)
        writer.finish()
    assert path.read_bytes()[8:12] == bytes([version, 0, 0, 0])
    assert Artifact.open(path).manifest == Artifact.open(tmp_path / "m.lucid").manifest
    assert_same(compiled, lucid.load(path, 1), images(2, 3, 16, 16))
    assert_same(compiled, lucid.load(path, 1), images(1, 3, 20, 9))


def test_other_weights(tmp_path):
    model = small()
    compiled = lucid.compile(model, (1, 3, 16, 16), threads=1).save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    other = {name: 2 * p.numpy() for name, p in model.state_dict().items()}
    x = images(2, 3, 16, 16)
    before = loaded(x)
    with pytest.raises(WeightsError, match="missing"):
        loaded.load_weights({})
    assert np.array_equal(loaded(x), before)
    assert_same(compiled.load_weights(other), loaded.load_weights(other), x)
    assert_same(compiled, loaded, images(2, 3, 19, 23))
    assert not np.array_equal(loaded(x), before)
    loaded.save(tmp_path / "other.lucid")
    assert_same(compiled, lucid.load(tmp_path / "other.lucid"), x)


def test_tensors_that_no_graph_reads(tmp_path):
    class WithSpare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Conv2d(3, 4, 1), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    model = WithSpare()
    compiled = lucid.compile(model, (1, 3, 4, 4), threads=1).save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    other = {name: 3 * p.numpy() for name, p in model.state_dict().items()}
    assert_same(compiled.load_weights(other), loaded.load_weights(other), images(1, 3, 4, 4))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="Linux tells of its mappings")
def test_packed_weights_are_mapped_and_go_with_the_model(tmp_path):
    lucid.compile(small(), (1, 3, 16, 16), threads=1).save(tmp_path / "m.lucid")
    descriptors = len(os.listdir("/proc/self/fd"))
    loaded = lucid.load(tmp_path / "m.lucid", threads=1)
    loaded(images(1, 3, 16, 16))
    assert packed_bytes(loaded) == 0
    (first, *facts) = next(mappings(tmp_path / "m.lucid"))
    assert first.split()[1] == "r--s"
    assert "Private_Dirty:         0 kB" in facts
    del loaded
    assert not list(mappings(tmp_path / "m.lucid"))
    assert len(os.listdir("/proc/self/fd")) == descriptors


def mappings(path):
    """The lines of /proc/self/smaps about a file, mapping by mapping."""
    with open("/proc/self/smaps") as file:
        lines = file.read().splitlines()
    for at, line in enumerate(lines):
        if line.endswith(str(path)):
            yield lines[at : at + 24]


# -- other machines, other versions -------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """`machine("x86-64")`: what this process takes its CPU for from then on."""

    def pretend(name):
        monkeypatch.setenv("LUCID_TARGET", name)
        Target.host.cache_clear()

    yield pretend
    monkeypatch.undo()
    Target.host.cache_clear()


X86 = pytest.mark.skipif(not HOST.is_x86 or HOST.level < 1, reason="for an x86 with AVX2")


@X86
def test_the_best_target_that_the_machine_runs(tmp_path, machine, no_compiler):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    compiled.save(tmp_path / "m.lucid", targets=["x86-64", "host", "x86-64-v3", "aarch64"])
    no_compiler()
    x = images(2, 3, 16, 16)
    assert lucid.load(tmp_path / "m.lucid", cache=False).target == HOST
    assert_same(compiled, lucid.load(tmp_path / "m.lucid", cache=False), x)
    for name in ("x86-64-v3", "x86-64"):
        machine(name)
        loaded = lucid.load(tmp_path / "m.lucid", 1, cache=False)
        assert loaded.target.name == name
        assert np.allclose(loaded(x), compiled(x), atol=1e-5)


@X86
def test_code_that_the_machine_cannot_run(tmp_path, machine, caplog):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    compiled.save(tmp_path / "m.lucid", targets=["x86-64-v4", "aarch64"], weights="both")
    compiled.save(tmp_path / "packed.lucid", targets=["x86-64-v4", "aarch64"])
    machine("x86-64")
    loaded = lucid.load(tmp_path / "m.lucid", 1)
    (told,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "m.lucid has code for x86-64-v4, aarch64, which this machine (x86-64) cannot run" in told
    with pytest.raises(ModelFileError) as refused:
        lucid.load(tmp_path / "packed.lucid", 1)
    for part in ("packed for x86-64-v4, aarch64", "run on x86-64", "weights='both'"):
        assert part in str(refused.value)
    assert loaded.target.name == "x86-64"
    x = images(2, 3, 16, 16)
    own = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    assert_same(own, loaded, x)
    with pytest.raises(UnknownNameError, match="cannot run x86-64-v4"):
        lucid.load(tmp_path / "m.lucid", target="x86-64-v4")


def test_a_target_that_is_asked_for(tmp_path):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    compiled.save(tmp_path / "m.lucid", weights="both")
    plain = lucid.load(tmp_path / "m.lucid", 1, target="x86-64" if HOST.is_x86 else "aarch64")
    assert plain.target.level == min(t.level for t in LEVELS.values() if t.triple == HOST.triple)
    assert np.allclose(plain(images(1, 3, 16, 16)), compiled(images(1, 3, 16, 16)), atol=1e-5)
    assert lucid.load(tmp_path / "m.lucid", target="host").target == HOST


@pytest.mark.parametrize("bad", [[], "x86-64", ["x86-64-v9"]])
def test_targets_that_make_no_sense(tmp_path, bad):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    with pytest.raises((InputError, UnknownNameError)):
        compiled.save(tmp_path / "m.lucid", targets=bad)
    assert not list(tmp_path.iterdir())


def test_no_code_from_the_file(tmp_path):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1).save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid", 1, code=False)
    assert_same(compiled, loaded, images(2, 3, 16, 16))
    assert loaded._cache is None or not isinstance(loaded._cache, StoredObjects)


@pytest.mark.parametrize("others", [["ir_hash"], ["generator_hash"], ["ir_hash", "generator_hash"]])
def test_another_version(tmp_path, monkeypatch, others):
    """Its graphs and weights are read; what passes and generator have made is made anew."""
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    compiled.save(tmp_path / "m.lucid", weights="both").save(tmp_path / "packed.lucid")
    for name in others:
        for module in (
            *("artifact.contents", "runtime.stored", "runtime.stored_programs", "runtime.cache"),
            "loading",
        ):
            if hasattr(sys.modules[f"lucid.{module}"], name):
                monkeypatch.setattr(f"lucid.{module}.{name}", lambda: "another")
    loaded = lucid.load(tmp_path / "m.lucid", 1, cache=False)
    assert_same(compiled, loaded, images(2, 3, 16, 16))
    assert packed_bytes(loaded) > 0
    with pytest.raises(ModelFileError, match=r"another version of Lucid: .*weights='both'"):
        lucid.load(tmp_path / "packed.lucid", 1, cache=False)


def test_a_process_of_its_own(tmp_path):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=2).save(tmp_path / "m.lucid")
    x = images(3, 3, 16, 16)
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys, numpy as np, lucid\n"
        "loaded = lucid.load('m.lucid', 2, cache=False)\n"
        "np.save('y.npy', loaded(np.load('x.npy')))\n"
        "print(sorted({'torch', 'onnx', 'networkx', 'PIL'} & set(sys.modules)))\n"
        "from lucid.runtime.cache import generator_hash\n"
        "from lucid.runtime.library import library\n"
        "print(library(loaded.target).emitted, generator_hash())\n"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported, made = done.stdout.splitlines()
    assert imported == "[]"
    emitted, generator = made.split()
    assert emitted == "0" or generator != generator_hash()  # somebody edits the sources
    assert np.array_equal(np.load(tmp_path / "y.npy"), compiled(x))


# -- pickles ----------------------------------------------------------------------------------


def test_pickles_and_copies():
    compiled = lucid.compile(small(), (2, 3, 16, 16), threads=2)
    compiled.metadata = {"a": 1}
    x = images(3, 3, 16, 16)
    for other in (
        pickle.loads(pickle.dumps(compiled)),
        copy.copy(compiled),
        copy.deepcopy(compiled),
        pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(compiled)))),
    ):
        assert other.threads == min(2, default_threads())
        assert other.metadata == {"a": 1}
        assert_same(compiled, other, x)
        assert_same(compiled, other, images(1, 3, 11, 17))


@pytest.mark.parametrize(
    ("asked", "here", "threads"), [(None, "3", 3), (2, "3", 2), (4, "3", 3), (4, "1", 1)]
)
def test_threads_of_a_pickle(monkeypatch, asked, here, threads):
    """What was asked for goes with it, and is never above what the process may use."""
    monkeypatch.setenv("LUCID_NUM_THREADS", "2")
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=asked)
    assert compiled.threads == (asked or 2)
    data = pickle.dumps(compiled)
    monkeypatch.setenv("LUCID_NUM_THREADS", here)
    other = pickle.loads(data)
    assert other.threads == threads
    monkeypatch.setenv("LUCID_NUM_THREADS", "8")
    assert pickle.loads(pickle.dumps(other)).threads == (asked or 8)
    assert_same(compiled, other, images(1, 3, 16, 16))


def test_threads_of_a_file(monkeypatch, tmp_path):
    lucid.compile(small(), (1, 3, 16, 16), threads=4).save(tmp_path / "m.lucid")
    monkeypatch.setenv("LUCID_NUM_THREADS", "3")
    loaded = lucid.load(tmp_path / "m.lucid")
    assert loaded.threads == 3
    assert lucid.load(tmp_path / "m.lucid", 2).threads == 2
    monkeypatch.setenv("LUCID_NUM_THREADS", "1")
    assert pickle.loads(pickle.dumps(loaded)).threads == 1


def test_what_is_not_compiled_yet():
    with pytest.raises(InputError, match="give a shape"):
        pickle.dumps(lucid.compile(small()))
    with pytest.raises(InputError, match="give a shape"):
        lucid.compile(small()).save("nowhere.lucid")


# -- files --------------------------------------------------------------------------------------


def test_a_failure_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "m.lucid"
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1).save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        compiled.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.lucid"]
    assert path.read_bytes() == before


def test_links_and_folders(tmp_path):
    compiled = lucid.compile(small(), (1, 3, 16, 16), threads=1)
    (tmp_path / "real").mkdir()
    (tmp_path / "m.lucid").symlink_to(tmp_path / "real" / "there.lucid")
    compiled.save(tmp_path / "m.lucid")
    assert (tmp_path / "m.lucid").is_symlink()
    assert_same(compiled, lucid.load(tmp_path / "m.lucid"), images(1, 3, 16, 16))
    with pytest.raises(IsADirectoryError):
        compiled.save(tmp_path / "real")
    with pytest.raises(ModelFileError, match="not a file"):
        lucid.load(tmp_path / "real")
    with pytest.raises(FileNotFoundError):
        lucid.load(tmp_path / "none.lucid")
