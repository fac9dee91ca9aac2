"""The cache of object code: shared by processes, distrustful, limited, and never in the way."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language import llvm
from lucid.codegen.target import Target
from lucid.runtime import cache as cache_module
from lucid.runtime.cache import ObjectCache, default_folder, key_text
from lucid.runtime.library import KernelLibrary

HOST = Target.host()
KERNEL = Driver()

COMPILE = """
import lucid
from lucid.runtime.library import library
fast = lucid.compile(lucid.models.resnest_digits(), (1, 1, 32, 32), threads=1)
print(library(fast.target).emitted)
"""


def emitted_by_a_process(folder: Path) -> int:
    environment = {**os.environ, "LUCID_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return int(done.stdout)


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cache"

    assert emitted_by_a_process(folder) > 5
    assert emitted_by_a_process(folder) == 0
    assert folder.stat().st_mode & 0o777 == 0o700


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "deep" / "cache")
    assert cache.get(KERNEL, HOST) is None

    cache.put(KERNEL, HOST, b"code")

    assert ObjectCache(cache.folder).get(KERNEL, HOST) == b"code"
    assert cache.get(Driver(profiled=True), HOST) is None
    (entry,) = cache.entries()
    assert (entry.family, entry.size) == ("driver", cache.size())


def test_the_key_holds_all_that_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = [Target.named(name) for name in ("x86-64", "x86-64-v3", "aarch64")]
    keys = [key_text(kernel, t) for kernel in (KERNEL, Driver(profiled=True)) for t in targets]
    parts = (llvm, "versions"), (cache_module, "generator_hash"), (cache_module, "ir_hash")
    for module, changed in parts:
        with monkeypatch.context() as patch:
            patch.setattr(module, changed, lambda: "another one")
            keys.append(key_text(KERNEL, targets[0]))

    assert len(set(keys)) == 9


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "foreign"])
def test_a_damaged_entry_is_compiled_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = KernelLibrary(HOST)
    first.load([KERNEL], ObjectCache(tmp_path))
    (entry,) = ObjectCache(tmp_path).entries()
    whole = entry.path.read_bytes()
    other = Driver(profiled=True)
    ObjectCache(tmp_path).put(other, HOST, b"code of another kernel")
    (foreign,) = (e for e in ObjectCache(tmp_path).entries() if e.path != entry.path)
    entry.path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "flipped": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
            "emptied": b"",
            "foreign": foreign.path.read_bytes(),
        }[damage]
    )

    second = KernelLibrary(HOST)
    second.load([KERNEL], ObjectCache(tmp_path))

    assert (first.emitted, second.emitted) == (1, 1)
    assert entry.path.read_bytes() == whole
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert entry.path.name in caplog.text


def refused(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Kernels load without the cache in this folder, twice, with one warning: its text."""
    for _ in range(2):
        native = KernelLibrary(HOST)
        native.load([KERNEL], ObjectCache(folder))
        assert native.emitted == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    return record.getMessage()


def test_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert "file/cache" in refused(tmp_path / "file" / "cache", caplog)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written to" in refused(tmp_path, caplog)


def test_a_full_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(old: str, new: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left" in refused(tmp_path, caplog)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_can_write_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ObjectCache(tmp_path).put(KERNEL, HOST, b"planted")
    tmp_path.chmod(0o777)
    assert "can be written to by others" in refused(tmp_path, caplog)


def test_a_folder_of_another_user(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ObjectCache(tmp_path).put(KERNEL, HOST, b"planted")
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert f"belongs to user {tmp_path.stat().st_uid}" in refused(tmp_path, caplog)


def test_the_entries_unused_for_longest_go_first(tmp_path: Path) -> None:
    targets = [Target.named(n) for n in ("x86-64", "x86-64-v3", "x86-64-v4", "aarch64")]
    cache = ObjectCache(tmp_path, max_bytes=400)
    for age, target in enumerate(targets[:3]):
        cache.put(KERNEL, target, bytes(60))
        oldest = max(cache.entries(), key=lambda e: e.used)
        os.utime(oldest.path, (1000 + age, 1000 + age))
    assert cache.get(KERNEL, targets[0]) == bytes(60)  # used just now

    cache.put(KERNEL, targets[3], bytes(60))

    assert [cache.get(KERNEL, t) is not None for t in targets] == [True, False, True, True]
    assert cache.size() <= cache.max_bytes


def test_clear_deletes_entries_and_nothing_else(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    assert ObjectCache(tmp_path / "nothing").clear() == 0
    cache.put(KERNEL, HOST, b"code")
    (tmp_path / "notes.txt").touch()

    assert cache.clear() == 1
    assert cache.size() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCID_CACHE_DIR", "/a/b")
    assert default_folder() == Path("/a/b")
    monkeypatch.delenv("LUCID_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_folder() == Path("/x/lucid")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/u")
    assert default_folder() == Path("/home/u/.cache/lucid")
