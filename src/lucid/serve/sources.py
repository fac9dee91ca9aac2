"""Where the models of a server are: the files and folders that its command line names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lucid.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
FILE = "model.lucid"
"""What a version's file is called in a folder of versions."""


@dataclass(frozen=True)
class Source:
    """A model by name: the files of its versions, and folders that have more of them."""

    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()

    def versions(self) -> dict[str, Path]:
        """The file of each version, as the folders are now. Raises InputError where there is none,
        or a version twice."""
        found = dict(self.files)
        for folder in self.folders:
            for path in sorted(folder.glob(f"*/{FILE}")):
                version = path.parent.name
                if not VERSION.fullmatch(version):
                    continue
                if version in found:
                    raise InputError(f"{self.name} has a version {version} twice: {path}")
                found[version] = path
        if not found:
            raise InputError(
                f"{', '.join(map(str, self.folders))}: no versions in there, such as 1/{FILE}"
            )
        return found


def parse_sources(arguments: Iterable[str]) -> tuple[Source, ...]:
    """The models that arguments such as `net.lucid`, `name=net.lucid`, `name:2=net.lucid` and
    `folder` name; what has no name has that of its file or folder. Raises InputError."""
    files: dict[str, dict[str, Path]] = {}
    folders: dict[str, list[Path]] = {}
    for argument in arguments:
        label, given, path = argument.rpartition("=")
        name, _, version = label.partition(":")
        place = Path(path)
        name = name if given else (place.name if place.is_dir() else place.stem)
        if not NAME.fullmatch(name) or (version and not VERSION.fullmatch(version)):
            raise InputError(
                f"{argument!r} names no model: write FILE, NAME=FILE or NAME:VERSION=FILE, the "
                "name of letters, digits, '.', '_' and '-', the version a number"
            )
        if not place.exists():
            raise InputError(f"{place}: no such file or folder")
        known = files.setdefault(name, {})
        if place.is_dir() and not version:
            folders.setdefault(name, []).append(place)
        elif known.setdefault(version or "1", place) is not place:
            raise InputError(
                f"{argument!r}: {name} has a version {version or 1} already: write {name}:2={path}"
            )
    sources = tuple(
        Source(name, known, tuple(folders.get(name, ()))) for name, known in files.items()
    )
    for source in sources:
        source.versions()
    return sources
