"""The lock under which models are planned, compiled and packed; calls that run take no lock.

LLVM is behind a lock of its own and Python behind the GIL, so one lock for the process costs
nothing. A fork waits for it, so that the child never finds the library or a plan half made.

Pools of threads and logging have locks that a fork waits for too, and who plans takes them. A fork
takes locks in the opposite order of their registration: those are registered first, by importing
what they are of, or a fork could hold one of them and wait for this one.
"""

from __future__ import annotations

import concurrent.futures.thread
import logging
import os
import threading

PLANNING = threading.RLock()
_REGISTERED_FIRST = (concurrent.futures.thread, logging)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=PLANNING.acquire,
        after_in_parent=PLANNING.release,
        after_in_child=PLANNING.release,
    )
