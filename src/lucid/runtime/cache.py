"""The cache on disk, shared by all models and processes: one entry of object code per kernel, and
files of panels, which processes map.

An entry's name is a hash of all that it depends on, so entries are never stale. What goes wrong
with the cache is logged once, and costs only time and memory: what it would hold is made anew.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import lucid.codegen
from lucid.artifact.contents import ir_hash
from lucid.sources_hash import sources_hash

if TYPE_CHECKING:
    from lucid.codegen.language.kernel import KernelSpec
    from lucid.codegen.target import Target

T = TypeVar("T")

MAX_BYTES = 2 << 30
"""Size above which the entries unused for longest are deleted: the panels of some twenty networks
like ResNet-50; ten thousand kernels would take a quarter of it."""
MAGIC = b"lucid object 1\n"
ENTRY, MAPPED, UNFINISHED = ".kernel", ".mapped", ".tmp"

log = logging.getLogger("lucid.cache")
_reported: set[Path] = set()
"""The folders whose trouble has been logged."""


def default_folder() -> Path:
    """$LUCID_CACHE_DIR, else `lucid` in the XDG cache folder; for who has no home, a folder of the
    user's own where temporary files are."""
    forced = os.environ.get("LUCID_CACHE_DIR")
    if forced:
        return Path(forced)
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):  # anything else is to be ignored, says the standard
        return Path(chosen) / "lucid"
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        return Path(home) / ".cache" / "lucid"
    import tempfile

    return Path(tempfile.gettempdir()) / f"lucid-{os.geteuid()}"


@functools.cache
def generator_hash() -> str:
    """A hash of the code generator's own sources: another generator writes other code."""
    return sources_hash(lucid.codegen.__path__[0])


generator_hash()  # now, while the sources are those that were imported: they may be edited later


def key_text(kernel: KernelSpec, target: Target) -> str:
    """All that a kernel's object code depends on. Of the IR, generators read constants of ops."""
    from lucid.codegen.language.llvm import versions

    parts = [str(kernel), *kernel.exports, repr(target), versions(), generator_hash(), ir_hash()]
    return "\n".join(parts)


@dataclass(frozen=True)
class Entry:
    """One file of the cache. `used`: when it was last read or written, in seconds of the epoch."""

    path: Path
    size: int
    used: float

    @property
    def family(self) -> str:
        """The kernel family that the entry is of."""
        return self.path.name.partition("-")[0]


class ObjectCache:
    """Object code in a folder that only its owner can write to; `max_bytes` limits its size."""

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder or default_folder()
        self.max_bytes = max_bytes
        self._usable: bool | None = None
        self._bytes: int | None = None

    # -- kernels ----------------------------------------------------------------------------

    def get(self, kernel: KernelSpec, target: Target) -> bytes | None:
        """The kernel's object code, or None where there is none that can be trusted."""
        key = key_text(kernel, target)
        path = self._path(kernel, key)
        stored = self._found(path, _read)
        if stored is None:
            return None
        start = len(MAGIC) + hashlib.sha256().digest_size
        code = stored[start:]
        if stored[:start] != _header(key, code):
            self._report(f"holds a damaged entry, {path.name}, which is made anew")
            return None
        with suppress(OSError):  # on a disk that is read only, entries have no age
            os.utime(path)
        return code

    def put(self, kernel: KernelSpec, target: Target, code: bytes) -> None:
        """Keep the kernel's object code. Another process sees the whole entry or none."""
        try:
            if not self._is_usable():
                return
            key = key_text(kernel, target)
            data = _header(key, code) + code
            with self._unfinished() as (path, file):
                file.write(data)
                file.close()
                os.replace(path, self._path(kernel, key))
            self._grow(len(data))
        except OSError as problem:
            self._report(f"cannot be written to: {problem}")

    @contextmanager
    def _unfinished(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """A file in the folder, to write and to read, which is deleted where anything fails."""
        path = self.folder / f"{os.getpid()}-{os.urandom(8).hex()}{UNFINISHED}"
        with open(path, "x+b", opener=_own) as file:
            try:
                yield path, file
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise

    def _path(self, kernel: KernelSpec, key: str) -> Path:
        return self.folder / f"{kernel.family}-{hashlib.sha256(key.encode()).hexdigest()}{ENTRY}"

    def _found(self, path: Path, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of a file of the folder; None where there is none that it takes."""
        try:
            return read(path) if self._is_usable() else None
        except FileNotFoundError:
            return None
        except OSError as problem:
            self._report(f"cannot be read: {problem}")
            return None

    def _is_usable(self) -> bool:
        """Whether the folder is there (made if need be) and nobody else can write to it."""
        if self._usable is None:
            self._usable = False
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.stat()
            if status.st_uid != os.geteuid():
                self._report(f"belongs to user {status.st_uid}, not to this one")
            elif status.st_mode & 0o022:
                self._report("can be written to by others; `chmod 700` it")
            else:
                self._usable = True
        return self._usable

    def _report(self, trouble: str) -> None:
        if self.folder not in _reported:
            _reported.add(self.folder)
            log.warning("the cache %s %s; what it would hold is made instead", self.folder, trouble)

    # -- files to map -----------------------------------------------------------------------

    def open(self, name: str) -> IO[bytes] | None:
        """A file to map, which nobody else can write to; None where there is none."""
        path = self.folder / f"{name}{MAPPED}"
        file = self._found(path, _opened)
        if file is not None:
            with suppress(OSError):
                os.utime(path)
        return file

    def write(self, name: str, size: int, fill: Callable[[IO[bytes]], T]) -> T | None:
        """Keep a file to map, of about `size` bytes, and give what `fill` gives, which writes it.
        Of processes that write it at once, the first one's stays, which the others then find: None
        for them, and where nothing is kept."""
        path = self.folder / f"{name}{MAPPED}"
        try:
            if not self._is_usable():
                return None
            if size > self.max_bytes // 2:
                self._report(f"is too small for {size:,} bytes")
                return None
            if size > _free(self.folder):  # others want what is left of the disk
                self._report(f"has no room for {size:,} bytes")
                return None
            with self._unfinished() as (unfinished, file):
                filled = fill(file)
                file.close()
                is_kept = _link(unfinished, path)
            self._grow(size if is_kept else 0)
        except OSError as problem:
            self._report(f"cannot be written to: {problem}")
            return None
        return filled if is_kept else None

    def discard(self, name: str) -> None:
        """Delete a file to map that is not what it should be."""
        self._report(f"holds a damaged file, {name}{MAPPED}, which is made anew")
        with suppress(OSError):
            (self.folder / f"{name}{MAPPED}").unlink()

    # -- size -------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """What the folder holds, the entries unused for longest first."""
        return sorted(self._scan(), key=lambda entry: entry.used)

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(entry.size for entry in self._scan())

    def clear(self) -> int:
        """Delete every entry; gives how many there were."""
        return sum(_delete(entry) for entry in self.entries())

    def _scan(self) -> Iterator[Entry]:
        if not self.folder.is_dir():
            return
        with os.scandir(self.folder) as files:
            for file in files:
                if file.name.endswith((ENTRY, MAPPED, UNFINISHED)):
                    try:
                        status = file.stat(follow_symlinks=False)
                    except FileNotFoundError:  # another process deleted it
                        continue
                    yield Entry(Path(file.path), status.st_size, status.st_mtime)

    def _grow(self, added: int) -> None:
        """Count what was written; above the limit, delete down to nine tenths of it."""
        self._bytes = self.size() if self._bytes is None else self._bytes + added
        if self._bytes <= self.max_bytes:
            return
        entries = self.entries()
        self._bytes = sum(entry.size for entry in entries)
        for entry in entries:
            if self._bytes <= 0.9 * self.max_bytes:
                break
            _delete(entry)
            self._bytes -= entry.size


def _free(folder: Path) -> int:
    """Bytes that are free where a folder is. Raises OSError."""
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize


def _header(key: str, code: bytes) -> bytes:
    """What an entry starts with: a checksum of the code and of what it was made for."""
    return MAGIC + hashlib.sha256(key.encode() + code).digest()


def _read(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read()


def _opened(path: Path) -> IO[bytes]:
    """A file that is this user's own and nobody else's to write. Raises OSError, also for links,
    devices and pipes, which are not followed, opened or waited for."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise OSError(errno.EPERM, "can be written to by others", str(path))
        return open(file, "rb")
    except BaseException:
        os.close(file)
        raise


def _own(path: str, flags: int) -> int:
    """Open a file that is this user's alone."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _link(unfinished: Path, path: Path) -> bool:
    """Give a file its name, unless there is one of this name that `_opened` takes; whether it has
    it. Raises OSError."""
    try:
        os.link(unfinished, path)
    except OSError:  # there is one, or these are files without links
        with suppress(OSError):
            _opened(path).close()
            os.unlink(unfinished)
            return False
        os.replace(unfinished, path)
    else:
        os.unlink(unfinished)
    return True


def _delete(entry: Entry) -> bool:
    """Whether the entry was still there to delete, and could be."""
    try:
        entry.path.unlink()
    except OSError:
        return False
    return True
