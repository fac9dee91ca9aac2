"""The most that a process can address."""

from __future__ import annotations

from lucid.errors import InputError

MOST_BYTES = 1 << 47
"""Memory that a process can have on the machines of today; all that kernels count stays below 2^63
with a margin."""


def require_addressable(what: str, size: int) -> None:
    """Raises InputError for more bytes than any process has."""
    if size > MOST_BYTES:
        raise InputError(
            f"{what} would take {size:.3g} bytes, more than a process can have "
            f"({MOST_BYTES >> 40} TiB); give a smaller batch or smaller images"
        )
