"""Panels that a file holds the taps of: the bits of packing, one copy for all processes, and no
trust in what the cache holds."""

from __future__ import annotations

import gc
import io
import logging
import os
import pickle
import stat
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.artifact import container
from lucid.artifact.container import Container, Writer
from lucid.artifact.contents import Artifact, ForTarget
from lucid.artifact.tensors import write_tensors
from lucid.codegen.kernels.filter_transform import FilterTransform
from lucid.codegen.kernels.packing import Winograd, WinogradPairPanels, WinogradPanels
from lucid.codegen.kernels.winograd_panels import filter_matrix
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.llvm import compile_object
from lucid.codegen.target import Target
from lucid.errors import ModelFileError, WeightsError
from lucid.runtime import taps
from lucid.runtime.cache import ObjectCache
from lucid.runtime.executable import CompiledModel
from lucid.runtime.memory import ALIGNMENT
from lucid.runtime.stored_panels import PackedWeights

RANDOM = np.random.default_rng(3)
LAYERS: dict[str, tuple[Winograd, tuple[int, ...]]] = {
    "wide": (WinogradPanels(4, 1, 16), (40, 70, 3, 3)),
    "groups": (WinogradPanels(2, 3, 8), (15, 3, 3, 3)),
    "pairs": (WinogradPairPanels(4, 1, 16), (17, 5, 3, 3)),
    "fewer": (WinogradPairPanels(2, 2, 8), (8, 4, 3, 3)),
}
FILTERS = {
    key: RANDOM.standard_normal(shape)
    if isinstance(packing, WinogradPanels)
    else RANDOM.integers(-255, 256, shape).astype(np.float64)
    for key, (packing, shape) in LAYERS.items()
}


def packed(key: str, taps: bool = False) -> np.ndarray:
    """What packing makes of a layer: its panels, or their taps."""
    winograd, shape = LAYERS[key]
    packing = winograd.taps if taps else winograd
    out = np.zeros(packing.elements(shape), dtype(winograd.dtype).storage)
    packing.pack(FILTERS[key], out)
    return out.reshape(-1, 9, winograd.columns(shape)) if taps else out


def file(
    change: Callable[[dict[str, np.ndarray], dict[str, str]], object] | None = None,
    kernels: Sequence[FilterTransform] = (),
) -> Artifact:
    """Stands for a file of these layers, some of it changed, with the code of these kernels."""
    taps = {key: packed(key, taps=True) for key in LAYERS}
    sizes = {key: str(packing.m) for key, (packing, _) in LAYERS.items()}
    sizes |= {spec.called().text: spec.key() for spec in kernels}
    codes = {k.key(): np.frombuffer(compile_object(k, HOST), np.uint8) for k in kernels}
    if change:
        change(taps, sizes)
    data = io.BytesIO()
    writer = Writer(data)
    with writer.section("taps") as sink:
        write_tensors(sink, taps, taps.values(), sizes)
    with writer.section("packed") as sink:
        bias = {"bias": np.arange(16, dtype=np.float32)}
        write_tensors(sink, bias, bias.values())
    with writer.section("objects") as sink:
        write_tensors(sink, codes, codes.values())
    writer.finish()
    artifact = Artifact.__new__(Artifact)
    artifact.container = Container(data.getvalue(), "a file")
    return artifact


HOST = Target.host()
FILE = file()
MADE = ForTarget(HOST.name, {}, [], "packed", "objects", None, "taps")


def weights(
    artifact: Artifact = FILE, folder: Path | None = None, target: Target | None = None
) -> PackedWeights:
    return PackedWeights(artifact, MADE, folder and ObjectCache(folder), target)


def assert_right(found: Mapping[str, np.ndarray]) -> None:
    assert set(found) == {*LAYERS, "bias"}
    assert len(found) == 1 + len(LAYERS)
    assert "another" not in found
    for key in LAYERS:
        wanted = packed(key)
        np.testing.assert_array_equal(found[key][: wanted.size], wanted)
        assert not found[key][wanted.size :].any()
        assert found[key].nbytes % ALIGNMENT == found[key].ctypes.data % ALIGNMENT == 0
    np.testing.assert_array_equal(found["bias"], np.arange(16))


@pytest.mark.parametrize("m", [2, 4])
def test_points_are_those_of_the_matrix(m: int) -> None:
    """Of rounded filters, to the last bits of float64, and then rounded once."""
    filters = RANDOM.standard_normal((8, 5, 3, 3)).astype(np.float32)
    out = np.zeros(WinogradPanels(m, 1, 8).elements(filters.shape), np.float32)
    WinogradPanels(m, 1, 8).pack(filters.astype(np.float64), out)
    g = filter_matrix(m)
    exact = np.einsum("ia,ocab,jb->ijco", g, filters.astype(np.float64), g)
    np.testing.assert_allclose(out, exact.reshape(-1), rtol=1e-6, atol=1e-12)


def test_panels_of_the_process() -> None:
    assert_right(weights())


def test_panels_by_the_code_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is some for all of them, and it may be run, NumPy takes no part."""
    kernels = [FilterTransform(m, dtype) for m in (4, 2) for dtype in ("f32", "i16")]
    some, all_of_them = file(kernels=kernels[:1]), file(kernels=kernels)
    assert_right(weights(some, target=HOST))
    with monkeypatch.context() as patch:
        patch.delattr(taps, "transform")
        for folder in (None, tmp_path, tmp_path):
            assert_right(weights(all_of_them, folder, HOST))
        with pytest.raises(NameError, match="transform"):
            weights(all_of_them)["wide"]
    assert_right(weights(all_of_them, tmp_path))


def test_panels_of_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of which lie in two."""
    monkeypatch.setattr(container, "CHUNK", 1 << 16)
    for _ in range(2):
        assert_right(weights(file(), tmp_path))
    (entry,) = tmp_path.iterdir()
    assert entry.stat().st_size > 4 << 16


def test_what_was_just_written_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = Container.read

    def noted(opened: Container, name: str) -> memoryview:
        if name not in opened._checked:
            read.append(name)
        return whole(opened, name)

    monkeypatch.setattr(Container, "read", noted)
    for made in ("taps", "panels"):
        read.clear()
        assert_right(weights(file(), tmp_path))
        assert sorted(name.partition("-")[0] for name in read) == sorted(["packed", made])


def test_panels_are_made_once_for_all_processes(tmp_path: Path) -> None:
    first, cached = weights(folder=tmp_path), []
    assert_right(first)
    (entry,) = tmp_path.iterdir()
    cached.append((entry.stat().st_ino, entry.stat().st_mtime_ns))
    os.utime(entry, (1, 1))
    second = weights(folder=tmp_path)
    assert_right(second)
    assert [p.stat().st_ino for p in tmp_path.iterdir()] == [cached[0][0]]
    assert entry.stat().st_mtime > 1  # used just now
    assert entry.stat().st_mode & 0o077 == 0
    assert not second["wide"].flags.writeable
    assert_right(weights())
    assert [e.family for e in ObjectCache(tmp_path).entries()] == ["panels"]
    assert ObjectCache(tmp_path).clear() == 1
    assert_right(first)  # it is mapped still


def test_processes_that_make_them_at_once_share_one(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    for content in (b"first", b"second"):
        cache.write("panels-x", 5, lambda file, content=content: file.write(content))
    opened = cache.open("panels-x")
    assert opened is not None
    with opened:
        assert opened.read() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert_right(weights(folder=tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


def flipped(entry: Path) -> None:
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(data)


def foreign(entry: Path) -> None:
    """That of another file, which is whole."""
    entry.unlink()
    taps = file(lambda taps, sizes: taps["wide"].__imul__(2))
    weights(taps, entry.parent)["wide"]
    (other,) = entry.parent.iterdir()
    other.rename(entry)


def linked(entry: Path) -> None:
    entry.rename(entry.with_suffix(".aside"))
    entry.symlink_to(entry.with_suffix(".aside"))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flipped,
    "truncated": lambda entry: os.truncate(entry, entry.stat().st_size // 2),
    "emptied": lambda entry: os.truncate(entry, 0),
    "no container": lambda entry: entry.write_bytes(bytes(9999)),
    "foreign": foreign,
    "a link": linked,
    "a pipe": lambda entry: (entry.unlink(), os.mkfifo(entry)),
    "a folder": lambda entry: (entry.unlink(), entry.mkdir()),
    "of others": lambda entry: entry.chmod(0o666),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_in_the_cache(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights(folder=tmp_path)["wide"]
    (entry,) = tmp_path.iterdir()
    DAMAGE[damage](entry)
    assert_right(weights(folder=tmp_path))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(tmp_path) in record.getMessage()
    assert not list(tmp_path.glob("*.tmp"))
    if damage != "a folder":
        assert stat.S_ISREG(entry.lstat().st_mode)
        assert not entry.lstat().st_mode & 0o022
        with caplog.at_level(logging.CRITICAL):
            assert_right(weights(folder=tmp_path))


def full(*names: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "trouble", ["not a folder", "of others", "too small", "full disk", "nearly full", "no links"]
)
def test_a_cache_that_cannot_hold_them(
    trouble: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, most = tmp_path / "cache", 1 << 20
    match trouble:
        case "not a folder":
            folder.touch()
        case "of others":
            folder.mkdir()
            folder.chmod(0o777)
        case "too small":
            most = 1000
        case "full disk":
            monkeypatch.setattr(os, "pwrite", full)
        case "nearly full":
            left = os.statvfs_result((4096, 4096, 9, 1, 1, 9, 9, 9, 0, 255))
            monkeypatch.setattr(os, "statvfs", lambda folder: left)
        case "no links":
            monkeypatch.setattr(os, "link", full)
            monkeypatch.setattr(os, "replace", full)
    assert_right(PackedWeights(FILE, MADE, ObjectCache(folder, most)))
    assert len(caplog.records) == 1
    assert not list(tmp_path.glob("cache/*"))


def without(taps: dict[str, np.ndarray], sizes: dict[str, str]) -> None:
    sizes.clear()


BROKEN: dict[str, Callable[[dict[str, np.ndarray], dict[str, str]], object]] = {
    "no sizes": without,
    "another size": lambda taps, sizes: sizes.update(wide="6"),
    "no taps of 3x3": lambda taps, sizes: taps.update(wide=np.zeros((1, 25, 4), np.float32)),
    "flat": lambda taps, sizes: taps.update(wide=np.zeros(9, np.float32)),
    "too deep": lambda taps, sizes: taps.update(wide=np.zeros((1, 9, 1, 1), np.float32)),
    "of bytes": lambda taps, sizes: taps.update(wide=np.zeros((1, 9, 4), np.uint8)),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_file_that_makes_no_panels(broken: str, tmp_path: Path) -> None:
    for folder in (tmp_path, None):
        with pytest.raises(ModelFileError, match="'wide' of its section 'taps' are no filters"):
            weights(file(BROKEN[broken]), folder)["wide"]
    assert not list(tmp_path.iterdir())


def test_a_file_without_its_section(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no section 'none'"):
        PackedWeights(FILE, ForTarget(HOST.name, {}, [], "packed", None, None, "none"), None)


# -- whole models ---------------------------------------------------------------------------------

SHAPE = (1, 3, 16, 16)
NET = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of this module."""
    with pytest.MonkeyPatch.context() as patch:
        made = tmp_path_factory.mktemp("cache")
        patch.setenv("LUCID_CACHE_DIR", str(made))
        yield made


@pytest.fixture(scope="module")
def compiled(folder: Path) -> CompiledModel:
    assert folder.is_dir()
    options = lucid.CompileOptions(kernels={"0": "winograd4x4", "2": "winograd2x2"})
    return lucid.compile(NET, SHAPE, threads=1, options=options)


X = RANDOM.standard_normal((3, *SHAPE[1:])).astype(np.float32)


def test_a_compact_file(
    compiled: CompiledModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = compiled(X)
    compiled.save(tmp_path / "compact.lucid")
    for cache in (True, False, True):
        with monkeypatch.context() as patch:
            patch.delattr(taps, "transform")  # it has the code
            loaded = lucid.load(tmp_path / "compact.lucid", threads=1, cache=cache)
        assert loaded._planner.ready
        (panels,) = folder.glob("panels-*")
        np.testing.assert_array_equal(loaded(X), wanted)
    panels.unlink()
    untrusted = lucid.load(tmp_path / "compact.lucid", threads=1, code=False)
    np.testing.assert_array_equal(untrusted(X), wanted)
    assert panels.exists()


def sections(path: Path) -> dict[str, bytes]:
    opened = Artifact.open(path).container
    kinds = ("packed", "taps", "manifest")
    return {n: bytes(opened.read(n)) for n in opened.sections if n.startswith(kinds)}


def test_saving_what_was_loaded(compiled: CompiledModel, tmp_path: Path) -> None:
    """As it was, or as panels; nothing else can be made of it."""
    paths = {name: tmp_path / f"{name}.lucid" for name in ("packed", "compact")}
    for name, path in paths.items():
        compiled.save(path, weights=name)
    loaded = {name: lucid.load(path, threads=1) for name, path in paths.items()}
    for name, model in loaded.items():
        model.save(tmp_path / "again.lucid")
        assert sections(tmp_path / "again.lucid") == sections(paths[name])
        model.save(tmp_path / "again.lucid", weights="packed")
        assert sections(tmp_path / "again.lucid") == sections(paths["packed"])
        with pytest.raises(WeightsError, match="holds its weights only as packed"):
            model.save(tmp_path / "no.lucid", weights="both")
    with pytest.raises(WeightsError, match="holds its weights only as packed"):
        loaded["packed"].save(tmp_path / "no.lucid", weights="compact")
    copied = pickle.loads(pickle.dumps(loaded["compact"]))
    copied.save(tmp_path / "again.lucid")
    own = f"taps.{copied.target.name}"
    assert sections(tmp_path / "again.lucid")[own] == sections(paths["compact"])[own]
    stored = weakref.ref(loaded["compact"]._planner._saved.weights)
    loaded["compact"].load_weights(NET.state_dict())
    gc.collect()
    assert stored() is None  # its panels may be memory of the process
    loaded["compact"].save(tmp_path / "again.lucid")
    assert sections(tmp_path / "again.lucid") == sections(paths["compact"])
