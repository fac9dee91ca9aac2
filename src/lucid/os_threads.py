"""Threads and locks of the operating system, whatever `threading` is made of.

gevent's and eventlet's `monkey_patch` (gunicorn's workers of these names call it) put greenlets in
the place of threads, in `threading` and in the built-in module `_thread` alike, before `import
lucid` or after it. A greenlet runs until it waits for something, and Lucid's workers wait in native
code: the first would keep the process for ever. So all that Lucid starts or waits for is made by an
instance of `_thread` of its own, which nobody else can find and replace functions of. (Neither
library's way to the originals, `gevent.monkey.get_original` and `eventlet.patcher.original`, would
do for the other.)

A thread that waits here keeps all of its greenlets waiting: only what goes on without them may be
waited for.
"""

from __future__ import annotations

import functools
import importlib.util
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import BuiltinImporter
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def _own_instance(name: str) -> Any:
    """A built-in module anew, beside the one in `sys.modules`."""
    spec = BuiltinImporter.find_spec(name)
    assert spec is not None, f"{name} is built in"
    module = importlib.util.module_from_spec(spec)
    BuiltinImporter.exec_module(module)
    return module


_thread = _own_instance("_thread")

Lock = _thread.allocate_lock
RLock = _thread.RLock
Local = _thread._local
"""Attributes that each thread has for itself (and all of its greenlets together)."""


class Thread:
    """A thread that calls `work`; the process does not wait for it at its end.

    `native_id`: the system's number of it, once it runs. Raises RuntimeError where the system lets
    the process have no more threads.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self.native_id = 0
        self._work = work
        self._has_ended = False
        self._running, self._alive = Lock(), Lock()
        self._running.acquire()
        self._alive.acquire()
        _thread.start_new_thread(self._run, ())
        self._running.acquire()

    def _run(self) -> None:
        self.native_id = _thread.get_native_id()
        self._running.release()
        try:
            self._work()
        finally:
            del self._work
            self._has_ended = True
            self._alive.release()

    def is_alive(self) -> bool:
        return not self._has_ended

    def join(self, timeout: float = -1) -> None:
        """Wait until it has ended, but no longer than so many seconds."""
        if not self._has_ended and self._alive.acquire(timeout=timeout):
            self._alive.release()  # unless interrupted, and then it has ended


def mapped(work: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """`work` of each item, in order, done by up to `threads` threads while the caller waits.

    What `work` raises is raised in its place, and nothing that was not begun is begun then. The
    caller does it alone where no thread can be had.
    """
    results: list[Any] = [None] * len(items)
    finished = [Lock() for _ in items]
    numbers = iter(range(len(items)))  # `next` of it is atomic
    for lock in finished:
        lock.acquire()

    def take_turns() -> None:
        for number in numbers:
            try:
                results[number] = work(items[number])
            except BaseException as problem:
                results[number] = problem
                deque(numbers, maxlen=0)  # nothing more is begun
            finished[number].release()

    workers: list[Thread] = []
    try:
        try:
            for _ in range(min(threads, len(items))):
                workers.append(Thread(take_turns))
        except RuntimeError:
            if not workers:
                take_turns()
        for number, lock in enumerate(finished):
            lock.acquire()
            result, results[number] = results[number], None
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        deque(numbers, maxlen=0)
        _join(workers)


def _join(threads: Sequence[Thread]) -> None:
    """Wait for all of them, also where a signal's handler raises meanwhile; then raise what it
    raised last."""
    raised: BaseException | None = None
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except BaseException as problem:
                raised = problem
    if raised is not None:
        raise raised


def together(works: Sequence[Callable[[], object]]) -> None:
    """Call all of these at once, the last on the caller's thread and each other on its own."""
    gate = Lock()
    gate.acquire()

    def wait_and(work: Callable[[], object]) -> None:
        with gate:
            pass
        work()

    *others, mine = works
    threads: list[Thread] = []
    try:
        for work in others:
            threads.append(Thread(functools.partial(wait_and, work)))
    finally:
        gate.release()
    mine()
    for thread in threads:
        thread.join()
