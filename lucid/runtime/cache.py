"""The cache of object code on disk: one entry a kernel, shared by all models and processes."""

from __future__ import annotations

import os
from pathlib import Path

from lucid.codegen.kernels.base import KernelSpec
from lucid.codegen.target import Target


def default_folder() -> Path:
    """$LUCID_CACHE_DIR, else `lucid` in the XDG cache folder."""
    forced = os.environ.get("LUCID_CACHE_DIR")
    if forced:
        return Path(forced)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lucid"


class ObjectCache:
    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def get(self, kernel: KernelSpec, target: Target) -> bytes | None:
        return None

    def put(self, kernel: KernelSpec, target: Target, code: bytes) -> None:
        return None
