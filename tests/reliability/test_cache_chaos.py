"""Whatever becomes of the cache, results are right and there is one warning at most."""

import ast
import errno
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

import lucid
from lucid import nn
from lucid.codegen import target as target_module
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language import llvm
from lucid.codegen.target import LEVELS, Target
from lucid.errors import CompileError, UnknownNameError
from lucid.runtime import cache as cache_module
from lucid.runtime import library
from lucid.runtime.cache import ENTRY, ObjectCache, default_folder
from lucid.runtime.library import KernelLibrary

HOST = Target.host()
KERNEL = Driver()


class Tiny(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return nn.functional.relu(self.conv(x))


IMAGE = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
MODEL = Tiny()
WANTED = lucid.compile(MODEL, IMAGE.shape, threads=1, cache=False)(IMAGE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache folder that holds what the model needs."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    for kernel in lucid.compile(MODEL, IMAGE.shape, threads=1).program().kernels():
        ObjectCache(folder).put(kernel, HOST, llvm.compile_object(kernel, HOST))
    ObjectCache(folder).put(KERNEL, HOST, llvm.compile_object(KERNEL, HOST))
    return folder


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{ENTRY}"))


def each(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        for entry in entries(folder):
            change(entry)

    return changed


def swapped(folder: Path) -> None:
    first, second, *_ = entries(folder)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def linked(entry: Path) -> None:
    aside = entry.with_suffix(".aside")
    entry.rename(aside)
    entry.symlink_to(aside)


def folder_behind_a_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def replaced_by_a_pipe(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


def replaced_by_a_folder(entry: Path) -> None:
    entry.unlink()
    entry.mkdir()


class Planted:
    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


def flipped(entry: Path, place: float) -> None:
    data = bytearray(entry.read_bytes())
    data[min(len(data) - 1, int(place * len(data)))] ^= 1 << int(10 * place) % 8
    entry.write_bytes(data)


SABOTAGE: dict[str, Callable[[Path], None]] = {
    "nothing": lambda folder: None,
    "cut in half": each(lambda e: os.truncate(e, e.stat().st_size // 2)),
    "cut to the header": each(lambda e: os.truncate(e, 47)),
    "empty": each(lambda e: os.truncate(e, 0)),
    "longer": each(lambda e: e.write_bytes(e.read_bytes() + b"\0")),
    **{f"flipped at {p}": each(lambda e, p=p: flipped(e, p)) for p in (0, 0.01, 0.1, 0.5, 0.9, 1)},
    "older format": each(lambda e: e.write_bytes(e.read_bytes().replace(b"t 1\n", b"t 0\n", 1))),
    "swapped": swapped,
    "pickles": each(lambda e: e.write_bytes(pickle.dumps(Planted()))),
    "links": each(linked),
    "links to nothing": each(lambda e: (e.unlink(), e.symlink_to("nowhere"))),
    "links to themselves": each(lambda e: (e.unlink(), e.symlink_to(e))),
    "pipes": each(replaced_by_a_pipe),
    "folders": each(replaced_by_a_folder),
    "entries others can write": each(lambda e: e.chmod(0o666)),
    "folder others can write": lambda folder: folder.chmod(0o777),
    "folder behind a link": folder_behind_a_link,
    "read-only folder": lambda folder: folder.chmod(0o500),
    "unreadable entries": each(lambda e: e.chmod(0)),
}


@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_sabotage(
    folder: Path,
    sabotage: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    SABOTAGE[sabotage](folder)
    monkeypatch.setenv("LUCID_CACHE_DIR", str(folder))
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(library, "_libraries", {})
    for _ in range(2):
        np.testing.assert_array_equal(lucid.compile(MODEL, IMAGE.shape, threads=1)(IMAGE), WANTED)
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) <= 1
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("failing", ["mkdir", "stat", "open", "write", "replace", "utime", "fstat"])
@pytest.mark.parametrize(
    "error", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT]
)
def test_system_calls_that_fail(
    tmp_path: Path,
    failing: str,
    error: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*arguments: object, **named: object) -> None:
        raise OSError(error, os.strerror(error))

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        write, close = fails, fails

    def opened(path: object, mode: str, **how: object) -> object:
        file = open(path, mode, **how)  # noqa: SIM115 - the cache closes it
        return Full(file) if mode.startswith("x") else file

    cache = ObjectCache(tmp_path / "cache")
    if failing not in ("mkdir", "stat"):
        cache.put(Driver(profiled=True), HOST, b"an older one")
    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(cache_module, "open", opened, raising=False)
        else:
            patch.setattr(os, failing, fails)
        for _ in range(2):
            cache.put(KERNEL, HOST, b"code")
            assert cache.get(KERNEL, HOST) in ((None,) if failing == "write" else (None, b"code"))
            assert cache.get(Driver(profiled=True), HOST) in (None, b"an older one")
    assert sum(r.levelno >= logging.WARNING for r in caplog.records) <= 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_entries_that_cannot_be_touched_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    cache = ObjectCache(tmp_path)
    cache.put(KERNEL, HOST, b"code")
    monkeypatch.setattr(os, "utime", read_only)
    assert cache.get(KERNEL, HOST) == b"code"
    assert not caplog.records


def test_clear_leaves_what_cannot_be_deleted(folder: Path) -> None:
    number = len(entries(folder))
    replaced_by_a_folder(entries(folder)[0])
    assert ObjectCache(folder).clear() == number - 1


# -- whose code, for which processor --------------------------------------------------------------


def test_an_entry_for_another_processor_or_version_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ObjectCache(tmp_path)
    cache.put(KERNEL, LEVELS["x86-64-v4"], b"code for a better processor")
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "generator_hash", lambda: "another version")
        cache.put(KERNEL, HOST, b"code of another version")
    better, older = entries(tmp_path)
    cache.put(KERNEL, LEVELS["x86-64"], b"code")
    (own,) = set(entries(tmp_path)) - {better, older}
    for other in (better, older):
        own.write_bytes(other.read_bytes())
        assert ObjectCache(tmp_path).get(KERNEL, LEVELS["x86-64"]) is None


V3, V4 = target_module.NEEDS["x86-64-v3"], target_module.NEEDS["x86-64-v4"]
AMX = target_module.NEEDS["x86-64-v4-amx"]


@pytest.mark.parametrize(
    ("machine", "features", "level"),
    [
        ("x86_64", ["sse2"], "x86-64"),
        ("x86_64", V3, "x86-64-v3"),
        ("AMD64", V4, "x86-64-v4"),
        ("x86_64", [*V3, "avxvnni"], "x86-64-v3-vnni"),
        ("x86_64", [*V4, "avx512vnni", "avxvnni"], "x86-64-v4-vnni"),
        ("x86_64", [f for f in AMX if f != "amx-bf16"], "x86-64-v4-bf16"),
        *(("x86_64", [f for f in V4 if f != lost], "x86-64") for lost in ("bmi2", "lzcnt", "fma")),
        ("x86_64", [f for f in V4 if f != "avx512cd"], "x86-64-v3"),
        ("aarch64", ["neon", "lse"], "aarch64"),
        ("aarch64", ["neon", "lse", "dotprod"], "aarch64-dotprod"),
        ("arm64", [], "aarch64"),
    ],
)
def test_the_level_is_one_whose_every_feature_is_there(
    machine: str, features: list[str], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(target_module, "processor_features", lambda: frozenset(features))
    assert Target._host_level().name == level


def test_the_features_are_those_that_llvm_finds() -> None:
    found = binding.get_host_cpu_features()
    known = {feature for needs in target_module.NEEDS.values() for feature in needs}
    assert target_module.processor_features() == {name for name in known if found.get(name)}


def test_a_processor_without_what_the_lowest_level_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(target_module, "processor_features", lambda: frozenset({"neon"}))
    with pytest.raises(UnknownNameError, match="needs lse, which this processor has not"):
        Target._host_level()


def test_code_that_this_machine_cannot_run_is_refused_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stranger = LEVELS["aarch64" if HOST.is_x86 else "x86-64"]
    with pytest.raises(CompileError, match="cannot be loaded: this machine runs"):
        KernelLibrary(stranger)
    monkeypatch.setenv("LUCID_TARGET", stranger.name)
    with pytest.raises(UnknownNameError, match=r"LUCID_TARGET is .* cannot run"):
        Target.host.__wrapped__()


def test_nothing_is_unpickled() -> None:
    """No module of the runtime or of code generation can read pickles or Python's own code."""
    root = Path(lucid.__file__).parent
    for source in [p for d in ("runtime", "codegen", "artifact") for p in (root / d).rglob("*.py")]:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "marshal", "shelve", "dill"} & {n.split(".")[0] for n in names}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), source


# -- processes ------------------------------------------------------------------------------------

HAMMER = """
import sys, threading
import numpy as np
import lucid
model = lucid.models.resnest_digits()
x = np.linspace(-1, 1, 4 * 32 * 32, dtype=np.float32).reshape(4, 1, 32, 32)
results, errors = [], []
def work():
    try:
        fast = lucid.compile(model, x.shape, threads=1 + len(results) % 2)
        results.extend(fast(x[:n]).tobytes() for n in (4, 4))
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert not errors, errors
assert len(results) == 16 and len(set(results)) == 1
print(hash(int.from_bytes(results[0])))
"""


def python(code: str, **environment: str | None) -> subprocess.Popen[str]:
    """A process; variables that are None are unset."""
    merged = {**os.environ, **environment}
    given = {name: value for name, value in merged.items() if value is not None}
    command = [sys.executable, "-W", "error", "-c", code]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=given, stdout=pipe, stderr=pipe, text=True)


def test_two_processes_and_eight_threads_hammer_one_cold_cache(tmp_path: Path) -> None:
    weights = {"PYTHONHASHSEED": "0", "LUCID_CACHE_DIR": str(tmp_path / "cache")}
    processes = [python(HAMMER, **weights) for _ in range(2)]
    outputs = [p.communicate(timeout=120) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert [error for _, error in outputs] == ["", ""]
    assert outputs[0] == outputs[1]
    assert not list(tmp_path.rglob("*.tmp"))


CALL = """
import numpy as np
import lucid
class Net(lucid.nn.Module):
    def forward(self, x):
        return lucid.nn.functional.relu(x)
x = np.array([[-1, 2]], np.float32)
assert (lucid.compile(Net(), x.shape, threads=1)(x) == [[0, 2]]).all()
"""


@pytest.mark.parametrize("home", [None, "", "relative", "/proc/nowhere", "/dev/null"])
def test_any_home_will_do(home: str | None, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    unset = {"LUCID_CACHE_DIR": None, "XDG_CACHE_HOME": None if home else "relative"}
    child = python(CALL, HOME=home, TMPDIR=str(tmp_path / "t"), **unset)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 0, error
    assert len(error.splitlines()) <= 1
    assert "Traceback" not in error


def test_the_folder_of_who_has_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LUCID_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for unknown users
    assert default_folder() == tmp_path / f"lucid-{os.geteuid()}"
