"""What kernels are called: enough to find their code, without what it takes to generate it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class KernelName(NamedTuple):
    """A kernel's specification as `text`, and the functions that its object exports."""

    text: str
    exports: tuple[str, ...] = ("kernel",)

    @property
    def key(self) -> str:
        """A short name for files and tables."""
        family = self.text.partition("(")[0]
        return f"{family}-{hashlib.sha256(self.text.encode()).hexdigest()[:12]}"

    def symbol(self, export: str) -> str:
        """The name of an exported function in object code, unique over all kernels."""
        return f"{export}_{self.key.replace('-', '_')}"
