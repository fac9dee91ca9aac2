"""Files of quantised models hold each integer once, as packed; what asks for the tables of the
model takes them from there."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.artifact.container import Container, Writer
from lucid.artifact.contents import Artifact
from lucid.artifact.tensors import Tensors
from lucid.codegen.target import Target
from lucid.errors import LucidError, ModelFileError, WeightsError
from lucid.frontend.weights import load_weights
from lucid.runtime.executable import CompiledModel
from lucid.runtime.saving import write

SHAPE = (1, 3, 12, 12)
IMAGES = np.random.default_rng(2).standard_normal((3, *SHAPE[1:])).astype(np.float32)
NET = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1, stride=2),
    nn.ReLU(),
    nn.Conv2d(16, 16, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(16, 16, 3, padding=1, groups=16),
    nn.ReLU(),
    nn.Conv2d(16, 24, 1),
    nn.ReLU(),
    nn.Conv2d(24, 16, 3, padding=1),
    nn.Flatten(),
    nn.Linear(576, 5),
)
WAYS = ("compact", "packed", "both", "plain")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompiledModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUCID_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        quantised = lucid.quantize(NET, [IMAGES], threads=1).graph
        kernels = {"2": "winograd4x4", "8": "winograd2x2"}
        options = lucid.CompileOptions(kernels=kernels)
        return lucid.compile(quantised, SHAPE, threads=1, options=options)


@pytest.fixture(scope="module")
def files(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    for weights in WAYS:
        compiled.save(folder / f"{weights}.lucid", weights=weights)
    return {weights: folder / f"{weights}.lucid" for weights in WAYS}


def kept(path: Path) -> dict[str, bytes]:
    """The sections of a file with its weights."""
    container = Artifact.open(path).container
    kinds = ("tensors", "places", "packed", "taps")
    return {n: bytes(container.read(n)) for n in container.sections if n.startswith(kinds)}


def large(path: Path) -> set[str]:
    """The tables of the model that are weights."""
    artifact = Artifact.open(path)
    return {n for n in artifact.manifest.tables if artifact.payload[n].dtype == np.int8}


def test_tables_are_in_packed_weights_alone(files: dict[str, Path]) -> None:
    wanted, tables = Artifact.open(files["plain"]).payload, large(files["plain"])
    assert len(tables) == 6
    for way, path in files.items():
        container = Artifact.open(path).container
        written = set(Tensors(container, "tensors"))
        taken = {} if way in ("plain", "both") else json.loads(bytes(container.read("places")))
        assert set(taken).isdisjoint(written)
        assert tables <= set(taken) | written
        kinds = {name: place["section"].partition(".")[0] for name, place in taken.items()}
        by_kind = [list(kinds.values()).count(kind) for kind in ("packed", "taps")]
        assert by_kind == {"compact": [3, 2], "packed": [3, 0]}.get(way, [0, 0])
        payload = Artifact.open(path).payload
        for name in tables:
            assert name in payload
            assert payload[name].dtype == np.int8
            np.testing.assert_array_equal(payload[name], wanted[name])
    target = Artifact.open(files["compact"]).manifest.targets[0]
    taps = Tensors(Artifact.open(files["compact"]).container, str(target.taps))
    assert [array.dtype for array in taps.values()] == [np.dtype(np.int8)] * 2


@pytest.mark.parametrize("way", ["compact", "packed"])
@pytest.mark.parametrize("options", [{}, {"code": False}, {"cache": False}])
def test_the_same_bits(
    way: str, options: dict[str, bool], compiled: CompiledModel, files: dict[str, Path]
) -> None:
    loaded = lucid.load(files[way], 1, **options)
    np.testing.assert_array_equal(loaded(IMAGES), compiled(IMAGES))


@pytest.mark.parametrize("way", ["compact", "packed"])
def test_other_weights(way: str, files: dict[str, Path], tmp_path: Path) -> None:
    """Scales alone, or with the tables, which must be the model's own."""
    given = load_weights(files["plain"])
    tables = large(files["plain"])
    scaled = {n: a * 1.25 if a.dtype == np.float32 else a for n, a in given.items()}
    wanted = lucid.load(files["both"], 1).load_weights(scaled)(IMAGES)
    assert not np.array_equal(wanted, lucid.load(files["both"], 1)(IMAGES))
    scales = {name: array for name, array in scaled.items() if name not in tables}
    for weights in (scaled, scales):
        loaded = lucid.load(files[way], 1).load_weights(weights)
        np.testing.assert_array_equal(loaded(IMAGES), wanted)
    loaded.save(tmp_path / "plain.lucid", weights="plain")
    payload = Artifact.open(tmp_path / "plain.lucid").payload
    assert all(np.array_equal(payload[name], array) for name, array in scaled.items())
    name = min(tables)
    scaled[name] = scaled[name] + np.int8(1)
    with pytest.raises(WeightsError, match=f"{name}, a table of integers, differs"):
        lucid.load(files[way], 1).load_weights(scaled)


def test_saving_what_was_loaded(
    compiled: CompiledModel, files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "again.lucid"
    for way in ("compact", "packed"):
        loaded = lucid.load(files[way], 1)
        loaded.save(path)
        assert kept(path) == kept(files[way])
        copied = pickle.loads(pickle.dumps(loaded))
        np.testing.assert_array_equal(copied(IMAGES), compiled(IMAGES))
        copied.save(path)
        assert kept(path) == kept(files[way])
    lucid.load(files["compact"], 1).save(path, weights="packed")
    assert kept(path)["tensors"] != kept(files["compact"])["tensors"]  # of Winograd's layers
    np.testing.assert_array_equal(lucid.load(path, 1)(IMAGES), compiled(IMAGES))


def test_tables_of_several_targets(
    compiled: CompiledModel, files: dict[str, Path], tmp_path: Path
) -> None:
    """They are taken from what one of them has."""
    path, own = tmp_path / "several.lucid", compiled.target
    other = Target.named("aarch64" if own.is_x86 else "x86-64")
    with path.open("wb+") as file:
        write(compiled.snapshot(), file, [other, own], "compact", code=False)
    assert kept(path)["tensors"] == kept(files["compact"])["tensors"]
    loaded = lucid.load(path, 1, target=own.name)
    loaded.load_weights(load_weights(files["plain"]))
    np.testing.assert_array_equal(loaded(IMAGES), compiled(IMAGES))


BROKEN: dict[str, Callable[[dict[str, dict[str, object]]], object]] = {
    "no text": lambda places: None,
    "a list": lambda places: [1],
    "no place": lambda places: {name: {} for name in places},
    "nested": lambda places: {name: [[]] for name in places},
    "no section": lambda places: {n: p | {"section": "none"} for n, p in places.items()},
    "no weights": lambda places: {n: p | {"section": "fused.0"} for n, p in places.items()},
    "no weight": lambda places: {n: p | {"weight": "none"} for n, p in places.items()},
    "another shape": lambda places: {
        n: p | {"shape": p["shape"][::-1], "axes": p["axes"][::-1]} for n, p in places.items()
    },
    "too far": lambda places: {n: p | {"first": 1 << 40} for n, p in places.items()},
    "none": lambda places: {},
}


def with_places(source: Path, path: Path, data: bytes) -> Path:
    """A file like another one, with this section."""
    whole = Artifact.open(source).container
    with path.open("wb+") as file:
        writer = Writer(file)
        for name in dict.fromkeys([*whole.sections, "places"]):
            writer.add(name, data if name == "places" else bytes(whole.read(name)))
        writer.finish()
    return path


def places_in(path: Path) -> dict[str, dict[str, object]]:
    return json.loads(bytes(Artifact.open(path).container.read("places")))


@pytest.mark.parametrize("broken", BROKEN)
def test_places_that_make_no_sense(broken: str, files: dict[str, Path], tmp_path: Path) -> None:
    """Calls do not need them; what does is refused."""
    places = BROKEN[broken](places_in(files["compact"]))
    data = b"\xff" if places is None else json.dumps(places).encode()
    path = with_places(files["compact"], tmp_path / "broken.lucid", data)
    loaded = lucid.load(path, 1)
    wanted = lucid.load(files["compact"], 1)(IMAGES)
    np.testing.assert_array_equal(loaded(IMAGES), wanted)
    with pytest.raises(ModelFileError, match=str(path)):
        loaded.load_weights(load_weights(files["plain"]))
    np.testing.assert_array_equal(loaded(IMAGES), wanted)


@pytest.mark.parametrize("way", ["compact", "plain"])
def test_tensors_that_are_there_have_no_place(
    way: str, files: dict[str, Path], tmp_path: Path
) -> None:
    """Else the one would hide the other."""
    held = next(iter(Tensors(Artifact.open(files[way]).container, "tensors")))
    places = places_in(files["compact"])
    data = json.dumps(places | {held: next(iter(places.values()))}).encode()
    payload = Artifact.open(with_places(files[way], tmp_path / "twice.lucid", data)).payload
    with pytest.raises(ModelFileError, match=" and, in 'places', where they lie"):
        payload[held]


@pytest.mark.parametrize("section", ["places", "packed", "taps"])
def test_damage_is_detected(section: str, files: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(files["compact"].read_bytes())
    sections = Container(bytes(data), "it").sections
    (place,) = (s for name, s in sections.items() if name.partition(".")[0] == section)
    data[place.offset + place.size - 70] ^= 1
    path = tmp_path / "damaged.lucid"
    path.write_bytes(data)
    with pytest.raises(LucidError, match=r"is damaged \(its checksum differs\)"):
        lucid.load(path, 1, cache=False).load_weights(load_weights(files["plain"]))
