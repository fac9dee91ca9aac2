"""The threads on which awaited calls run: as many as processors, made when first asked for."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from lucid.runtime.processors import available_processors

_executors: dict[str, ThreadPoolExecutor] = {}


def executor() -> ThreadPoolExecutor:
    """The process's. Its threads wait without using a processor, and end with the process, which
    waits for what they have begun."""
    found = _executors.get("calls")
    if found is None:  # `setdefault` is atomic; one that is not kept has no threads yet
        fresh = ThreadPoolExecutor(available_processors(), thread_name_prefix="lucid-call")
        found = _executors.setdefault("calls", fresh)
    return found


if hasattr(os, "register_at_fork"):  # threads do not survive it
    os.register_at_fork(after_in_child=_executors.clear)
