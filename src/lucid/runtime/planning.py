"""The lock under which models are planned, compiled and packed; calls that run take no lock.

Kernels of one model are compiled side by side (`kernel_compiler.py`), and Python is behind the GIL,
so one lock for the process costs little. A fork waits for it, so that the child never finds the
library or a plan half made.

Pools of threads and logging have locks that a fork waits for too, and who plans takes them. A fork
takes locks in the opposite order of their registration: those are registered first, by importing
what they are of, or a fork could hold one of them and wait for this one.
"""

from __future__ import annotations

import concurrent.futures.thread
import logging
import os
import sys
import time
from types import BuiltinFunctionType
from typing import Any

from lucid.errors import CompileError
from lucid.os_threads import RLock

PAUSE = 0.001
"""Seconds between two looks at the lock where other greenlets go on meanwhile."""


class PlanningLock:
    """A re-entrant lock: of one thread, and of one greenlet where a thread has several.

    While a model is planned its forward and the progress callback run, which may switch to another
    greenlet; that one waits. Where gevent or eventlet have replaced `time.sleep` by their own, it
    waits by that, so that others of its thread go on, among them whoever has the lock or is waited
    for by it. Raises CompileError where greenlets switch and nobody has: to wait would be for ever.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._depth = 0
        self._greenlet: Any = None

    def acquire(self, blocking: bool = True) -> bool:
        """Whether the lock is taken, which it always is unless `blocking` is False."""
        while True:
            switches = not isinstance(time.sleep, BuiltinFunctionType)
            if self._lock.acquire(blocking and not switches):
                if self._is_mine():
                    self._greenlet, self._depth = _current_greenlet(), self._depth + 1
                    return True
                self._lock.release()
                if blocking and not switches:
                    raise CompileError(
                        "another greenlet of this thread is compiling a model and has not ended: "
                        "call gevent.monkey.patch_all() or eventlet.monkey_patch(), or do not "
                        "switch greenlets in a forward or a progress callback"
                    )
            if not blocking:
                return False
            time.sleep(PAUSE)

    def release(self) -> None:
        if not self._depth or not self._is_mine():
            raise RuntimeError("cannot release a lock that is another greenlet's")
        self._depth -= 1
        if not self._depth:
            self._greenlet = None
        self._lock.release()

    def _is_mine(self) -> bool:
        """Whether this greenlet may go on, once this thread has the lock."""
        return self._greenlet is None or self._greenlet is _current_greenlet()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


def _current_greenlet() -> Any:
    """The greenlet that runs; None in a process without greenlets."""
    current = getattr(sys.modules.get("greenlet"), "getcurrent", None)
    return current() if current else None


PLANNING = PlanningLock()
_REGISTERED_FIRST = (concurrent.futures.thread, logging)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=PLANNING.acquire,
        after_in_parent=PLANNING.release,
        after_in_child=PLANNING.release,
    )
