"""The container: a header, sections of bytes with checksums, and a table of contents.

    header    magic, version, length of the file, place and checksum of the table, own checksum
    sections  each begins at a multiple of ALIGNMENT
    table     JSON: name, offset, size and checksum of each section

Sections are verified when they are first read; sections that are never read cost nothing. A
checksum is the SHA-256 of the SHA-256 sums of each CHUNK of the section, so that threads can share
the work.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from lucid.errors import ModelFileError
from lucid.os_threads import Lock, mapped

MAGIC = b"\x93LUCID\r\n"
VERSION = 4
READABLE = (1, 2, 3, VERSION)
"""Versions that are read: the first had the weights as the model has them in every file."""
HEADER = struct.Struct("<8sIIQQQ32s")
"""Magic, version, bytes of the header, bytes of the file, offset and bytes of the table, and its
checksum. The checksum of all that follows it."""
HEADER_BYTES = 4096
ALIGNMENT = 4096
CHUNK = 4 << 20
CHECKERS = 4
"""Threads that check a section at most; hashlib lets go of the interpreter."""
NO_MODEL = "not a compiled model of Lucid's"
DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Section:
    """A part of the file, and the checksum of its bytes in hexadecimal digits."""

    offset: int
    size: int
    checksum: str


class Container:
    """A container that is open: a mapped file, or bytes. Sections are checked when first read.

    `origin`: what messages call it. Raises ModelFileError for what is no whole container.
    """

    def __init__(self, data: bytes | mmap.mmap, origin: str) -> None:
        self.origin = origin
        self._bytes = memoryview(data).toreadonly()
        self._checked: set[str] = set()
        self.sections = self._table()

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Container:
        """Map a file, for reading only and shared with all processes that do. Raises
        ModelFileError, OSError."""
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ModelFileError(f"{path}: not a file")
        with open(path, "rb") as file:
            return Container.of(file, str(path))

    @staticmethod
    def of(file: IO[bytes], origin: str, checked: Iterable[str] = ()) -> Container:
        """Map a file that is open, which may be closed then. `checked`: sections that the caller
        has just written. Raises ModelFileError, OSError."""
        length = os.fstat(file.fileno()).st_size
        if length < HEADER_BYTES:
            what = "truncated" if file.read(len(MAGIC)) == MAGIC else NO_MODEL
            raise ModelFileError(f"{origin}: {what} ({length} bytes)")
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
        container = Container(mapped, origin)
        container._checked.update(checked)
        return container

    def read(self, name: str) -> memoryview:
        """The bytes of a section, checked. Raises ModelFileError where it is missing or damaged."""
        section = self.sections.get(name)
        if section is None:
            self.fail(f"it has no section {name!r}")
        data = self._bytes[section.offset : section.offset + section.size]
        if name not in self._checked:
            if checksum(data) != section.checksum:
                self.fail(f"its section {name!r} is damaged (its checksum differs)")
            self._checked.add(name)
        return data

    def fail(self, what: str) -> NoReturn:
        """Raises ModelFileError."""
        raise ModelFileError(f"{self.origin}: {what}; save the model again, or fetch the file anew")

    # -- opening ----------------------------------------------------------------------------

    def _table(self) -> dict[str, Section]:
        data = self._bytes
        if bytes(data[: len(MAGIC)]) != MAGIC:
            raise ModelFileError(f"{self.origin}: {NO_MODEL}")
        if len(data) < HEADER_BYTES:
            self.fail(f"it is truncated to {len(data)} bytes")
        header = data[: HEADER.size]
        _, version, size, length, offset, table_bytes, digest = HEADER.unpack(header)
        if bytes(data[HEADER.size : HEADER.size + DIGEST]) != hashlib.sha256(header).digest():
            self.fail("its header is damaged (its checksum differs)")
        if version not in READABLE or size != HEADER_BYTES:
            raise ModelFileError(
                f"{self.origin}: has version {version} of the format, this Lucid reads up to "
                f"{VERSION}; save the model with this Lucid, or install the one that saved it"
            )
        if length != len(data):
            self.fail(f"it has {len(data)} bytes and should have {length}: it is truncated")
        table = data[offset : offset + table_bytes]
        if len(table) != table_bytes or hashlib.sha256(table).digest() != digest:
            self.fail("its table of contents is damaged (its checksum differs)")
        return self._sections(bytes(table))

    def _sections(self, table: bytes) -> dict[str, Section]:
        try:
            rows = {name: Section(**row) for name, row in json.loads(table).items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as problem:
            self.fail(f"its table of contents cannot be read ({problem})")
        for name, s in rows.items():
            places = isinstance(s.offset, int) and isinstance(s.size, int)
            inside = places and 0 < s.offset <= s.offset + s.size <= len(self._bytes)
            if not inside or s.offset % ALIGNMENT:
                self.fail(f"its section {name!r} does not lie in it")
        return rows


class _Digest:
    """The checksum of bytes that come piece by piece."""

    def __init__(self) -> None:
        self._sums = hashlib.sha256()
        self._chunk, self._room = hashlib.sha256(), CHUNK

    def update(self, data: memoryview) -> None:
        while data:
            part, data = data[: self._room], data[self._room :]
            self._chunk.update(part)
            self._room -= len(part)
            if not self._room:
                self._end_chunk()

    def _end_chunk(self) -> None:
        self._sums.update(self._chunk.digest())
        self._chunk, self._room = hashlib.sha256(), CHUNK

    def result(self) -> str:
        if self._room < CHUNK:
            self._end_chunk()
        return self._sums.hexdigest()


def checksum(data: memoryview) -> str:
    """The checksum of a section, by several threads where it is long."""
    if len(data) <= CHUNK:
        digest = _Digest()
        digest.update(data)
        return digest.result()
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    checkers = min(CHECKERS, os.cpu_count() or 1)
    sums = mapped(lambda chunk: hashlib.sha256(chunk).digest(), chunks, checkers)
    return hashlib.sha256(b"".join(sums)).hexdigest()


class Sink:
    """Where the bytes of one section go."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = _Digest()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """`data`: contiguous bytes."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._digest.update(view)
        self.size += len(view)

    def checksum(self) -> str:
        return self._digest.result()


class Writer:
    """Writes sections one after the other, and `finish` what holds them together."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sections: dict[str, Section] = {}
        file.write(bytes(HEADER_BYTES))
        self._end = HEADER_BYTES

    @contextmanager
    def section(self, name: str) -> Iterator[Sink]:
        """Write a section of bytes whose number is not known yet."""
        assert name not in self._sections, f"section {name} is written twice"
        self._pad()
        sink = Sink(self._file)
        yield sink
        self._sections[name] = Section(self._end, sink.size, sink.checksum())
        self._end += sink.size

    def add(self, name: str, data: bytes) -> None:
        """Write a section."""
        with self.section(name) as sink:
            sink.write(data)

    def made(
        self, name: str, size: int, fill: Callable[[memoryview, int], None], threads: int
    ) -> None:
        """Write a section of so many bytes that are made by several threads, a chunk at a time:
        `fill` writes all of the bytes that it is given, those from an offset on. Raises OSError."""
        assert name not in self._sections, f"section {name} is written twice"
        self._pad()
        self._file.flush()
        rooms = [bytearray(min(CHUNK, size)) for _ in range(threads)]
        turn = Lock()  # the system's own wait for each other is a busy one

        def work(offset: int) -> bytes:
            room = rooms.pop()
            chunk = memoryview(room)[: size - offset]
            fill(chunk, offset)
            digest = hashlib.sha256(chunk).digest()
            with turn:
                self._put(chunk, self._end + offset)
            rooms.append(room)
            return digest

        sums = b"".join(mapped(work, range(0, size, CHUNK), threads))
        self._sections[name] = Section(self._end, size, hashlib.sha256(sums).hexdigest())
        self._end += size
        self._file.seek(self._end)

    def _put(self, data: memoryview, offset: int) -> None:
        """Write bytes to this place of the file."""
        while data:
            count = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[count:], offset + count

    def finish(self) -> None:
        """Write the table of contents, and the header last."""
        self._pad()
        rows = {n: dict(vars(s)) for n, s in self._sections.items()}
        table = json.dumps(rows).encode()
        self._file.write(table)
        length = self._end + len(table)
        digest = hashlib.sha256(table).digest()
        header = HEADER.pack(MAGIC, VERSION, HEADER_BYTES, length, self._end, len(table), digest)
        self._file.seek(0)
        self._file.write(header + hashlib.sha256(header).digest())

    def _pad(self) -> None:
        gap = -self._end % ALIGNMENT
        self._file.write(bytes(gap))
        self._end += gap


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that becomes `path` at the end; until then, and where anything fails, the
    file that was there stays as it is. A device or pipe is written to. Raises OSError, which names
    `path`."""
    if path.exists() and not path.is_file() and not path.is_dir():
        with _naming(path, path), open(path, "wb") as file:
            yield file
        return
    final = Path(os.path.realpath(path))  # a link goes on pointing there
    require_writable(path)
    unfinished = final.with_name(f".{final.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with _naming(path, unfinished):
            with open(unfinished, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, final)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def require_writable(path: Path) -> None:
    """Raises OSError where there is a folder at this path, or none to put a file into."""
    final = Path(os.path.realpath(path))
    if final.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not final.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {final.parent}", str(path))


@contextmanager
def _naming(path: Path, written: Path) -> Iterator[None]:
    """Errors of the system name `path`; of a full disk they would name no file at all."""
    try:
        yield
    except OSError as problem:
        if problem.filename is None or os.fspath(problem.filename) == os.fspath(written):
            problem.filename, problem.filename2 = str(path), None
        raise
