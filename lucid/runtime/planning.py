"""The lock under which models are planned, compiled and packed; calls that run take no lock.

LLVM is behind a lock of its own and Python behind the GIL, so one lock for the process costs
nothing. A fork waits for it, so that the child never finds the library or a plan half made.
"""

from __future__ import annotations

import os
import threading

PLANNING = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=PLANNING.acquire,
        after_in_parent=PLANNING.release,
        after_in_child=PLANNING.release,
    )
