"""A hash of the Python sources in a folder, by which files and caches know what made them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator


def sources_hash(folder: str) -> str:
    """Of all sources in a folder and those below it, their names among them. Every process that
    loads a model computes it, so there is nothing between it and the system's calls."""
    digest = hashlib.sha256()
    for name in sorted(_sources(folder)):
        digest.update(f"{name}\n".encode())
        with open(os.path.join(folder, name), "rb", buffering=0) as file:
            digest.update(file.read())
    return digest.hexdigest()


def _sources(folder: str, inside: str = "") -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                yield inside + entry.name
            elif entry.name != "__pycache__" and entry.is_dir():
                yield from _sources(entry.path, f"{inside}{entry.name}/")
