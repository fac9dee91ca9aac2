"""`lucid.Batcher`: calls of many threads, gathered into batches.

One thread of its own calls the model, and while it does, requests gather. A request that finds it
idle starts at once. After a batch it waits for as many items as it has just answered and as wait
already, since those who were answered together tend to ask again together, but for no longer than
`max_delay_ms`: nobody is held back by more than that while the model is idle, and who asks alone
not at all.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import BatcherClosedError, InputError, LucidError, QueueFullError
from lucid.ir.types import batch_of
from lucid.runtime.executable import CompiledModel
from lucid.runtime.slices import rows_of

if TYPE_CHECKING:
    from lucid.ir.ops.base import Array

Kind = tuple[tuple[int, ...], ...]
"""The shapes of one row of each input: requests of one kind may be in one batch. (All have the
dtypes of the model.)"""


@dataclass(frozen=True)
class BatchStatistics:
    """What a Batcher has done so far.

    `requests`, `items`: answered, failed ones among them; an item is a row of the batch, or a
    request that no other can be joined with. `batches`:
    calls of the model; `sizes`: how many of them had so many items. `failed`, `cancelled`:
    requests. `queued`: requests that wait now. `wait_ms`: from being submitted to the beginning of
    the call, the mean of all, and `longest_wait_ms`.
    """

    requests: int
    items: int
    batches: int
    sizes: Mapping[int, int]
    failed: int
    cancelled: int
    queued: int
    wait_ms: float
    longest_wait_ms: float


@dataclass(eq=False)
class _Request:
    """One call: its inputs as given and as arrays, how many rows it has, and its kind: None where
    it cannot be in a batch with others."""

    given: Sequence[Any]
    arrays: Sequence[Array]
    rows: int
    kind: Kind | None
    future: Future[Any]
    submitted: float = field(default_factory=time.perf_counter)


class Batcher:
    """Gathers calls of a compiled model into batches: `submit` from any thread, `asubmit` in
    asyncio. Results are bitwise those of calls alone.

    `max_batch`: items (rows of the batch, images mostly) of one call at most; a request of more is
    a call of its own. `max_delay_ms`: milliseconds for which the model is kept idle at most while a
    request waits for company; a request that finds it idle starts at once. `max_queue`: requests
    that wait at most. Requests whose items differ in shape are never in one batch, and those of a
    model whose rows depend on each other, or that has an input without a batch (`lucid explain`
    says so), are called one by one.

    A Batcher has one thread, which calls the model on `compiled.threads` threads; it uses no
    processor while there is nothing to do. It ends by `close()`, at the end of a `with` block, when
    nobody holds the Batcher any longer, and with the process. In a forked child it cannot be used.
    Raises InputError for limits that are no positive numbers.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        max_batch: int = 8,
        max_delay_ms: float = 2.0,
        max_queue: int = 256,
    ) -> None:
        if not isinstance(compiled, CompiledModel):
            raise InputError("a Batcher takes what lucid.compile or lucid.load returns")
        if max_batch < 1 or max_queue < 1 or not 0 <= max_delay_ms < float("inf"):
            raise InputError(
                "max_batch and max_queue are at least 1, and max_delay_ms at least 0, got "
                f"{max_batch}, {max_queue} and {max_delay_ms}"
            )
        self._compiled = compiled
        self._gathering = _Gathering(compiled, max_batch, max_delay_ms / 1000, max_queue)
        end = weakref.finalize(self, self._gathering.stop)
        end.atexit = False  # its thread does not keep the process

    def submit(self, *inputs: Any, timeout: float | None = None, **named: Any) -> Future[Any]:
        """Ask for a call; the future gives its outputs, as the call would, or raises what it would
        (LucidErrors, MemoryError).

        `inputs`, `named`: as in a call of the model, of one item or more. They are read until the
        future is done: do not write to them. Results of one batch are views of one array.
        `timeout`: seconds to wait while the queue is full, 0 not at all, None as long as it takes.
        A future that is cancelled before its call has begun is not computed. Raises QueueFullError,
        BatcherClosedError.
        """
        future: Future[Any] = Future()
        try:
            request = _request(self._compiled, inputs, named, future)
        except Exception as problem:  # it fails alone
            future.set_exception(problem)
            return future
        self._gathering.put(request, timeout)
        return future

    async def asubmit(self, *inputs: Any, **named: Any) -> Any:
        """The outputs of a call, awaited; while the queue is full the event loop goes on. Where the
        await is cancelled before the call has begun, it does not begin. Raises as the future of
        `submit` does, and BatcherClosedError."""
        import asyncio

        while True:
            try:
                return await asyncio.wrap_future(self.submit(*inputs, timeout=0, **named))
            except QueueFullError:
                await asyncio.sleep(0.001)

    def statistics(self) -> BatchStatistics:
        """What it has done so far."""
        return self._gathering.statistics()

    def close(self, cancel: bool = False) -> None:
        """Take no more requests, finish those that wait (or `cancel` them), and wait for the end.
        From then on `submit` raises BatcherClosedError."""
        self._gathering.close(cancel)

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Close it; after an exception what waits is cancelled."""
        self.close(cancel=kind is not None)


def _request(
    compiled: CompiledModel, inputs: Sequence[Any], named: Mapping[str, Any], future: Future[Any]
) -> _Request:
    """Raises InputError for inputs that cannot be read."""
    given, arrays = compiled.read(inputs, named)
    shapes = tuple(array.shape for array in arrays)
    try:
        graph = compiled.independent(shapes)
    except LucidError:  # the call will say more of it
        graph = None
    rows = batch_of(graph.input_types(), shapes) if graph else None
    if not rows:
        return _Request(given, arrays, 1, None, future)
    return _Request(given, arrays, rows, tuple(shape[1:] for shape in shapes), future)


class _Gathering:
    """The requests of a Batcher and the thread that answers them, which hold no Batcher: one that
    is dropped ends them."""

    def __init__(
        self, compiled: CompiledModel, max_batch: int, max_delay: float, max_queue: int
    ) -> None:
        self._compiled = compiled
        self._max_batch, self._max_delay, self._max_queue = max_batch, max_delay, max_queue
        self._queue: deque[_Request] = deque()
        self._changed = threading.Condition()  # re-entrant: a signal handler may submit
        self._closed = False
        self._process = os.getpid()
        self._sizes: Counter[int] = Counter()
        self._requests = self._failed = self._cancelled = 0
        self._waited = self._longest = 0.0
        self._thread = threading.Thread(target=self._work, name="lucid-batcher", daemon=True)
        self._thread.start()

    # -- callers ----------------------------------------------------------------------------

    def put(self, request: _Request, timeout: float | None) -> None:
        if not self._is_here:
            raise BatcherClosedError(
                "this Batcher was made before a fork, and its thread is in the parent: make one in "
                "the child"
            )
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._closed or len(self._queue) < self._max_queue, timeout
            )
            if self._closed:
                raise BatcherClosedError("this Batcher is closed: it takes no more requests")
            if not has_room:
                raise QueueFullError(
                    f"{self._max_queue} requests wait already: submit fewer, wait longer "
                    f"(timeout={timeout}), or make the Batcher with a larger max_queue"
                )
            self._queue.append(request)
            self._changed.notify_all()

    @property
    def _is_here(self) -> bool:
        """Whether this is its process, and no fork of it, where the lock may be anyone's."""
        return os.getpid() == self._process

    def stop(self) -> None:
        """Let the thread end when it has answered all that wait."""
        if self._is_here:
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def close(self, cancel: bool) -> None:
        if not self._is_here:
            return
        self.stop()
        with self._changed:
            dropped = list(self._queue) if cancel else []
            if cancel:
                self._queue.clear()
                self._cancelled += len(dropped)
        for request in dropped:
            request.future.cancel()
            request.future.set_running_or_notify_cancel()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def statistics(self) -> BatchStatistics:
        with self._changed:
            answered = max(1, self._requests)
            return BatchStatistics(
                requests=self._requests,
                items=sum(size * count for size, count in self._sizes.items()),
                batches=sum(self._sizes.values()),
                sizes=dict(sorted(self._sizes.items())),
                failed=self._failed,
                cancelled=self._cancelled,
                queued=len(self._queue),
                wait_ms=1000 * self._waited / answered,
                longest_wait_ms=1000 * self._longest,
            )

    # -- the thread -------------------------------------------------------------------------

    def _work(self) -> None:
        answered, free_since = 0, 0.0
        while True:
            batch = self._next(answered, free_since + self._max_delay)
            if batch is None:
                return
            self._answer(batch)
            answered, free_since = sum(r.rows for r in batch), time.perf_counter()
            del batch

    def _next(self, answered: int, deadline: float) -> list[_Request] | None:
        """Wait for a batch; None where no more will come. `answered`: the items of the last one,
        which are waited for until the deadline."""
        with self._changed:
            company = min(self._max_batch, answered + self._items())
            self._changed.wait_for(
                lambda: self._closed or self._items() >= company,
                max(0.0, deadline - time.perf_counter()),
            )
            while True:
                self._changed.wait_for(lambda: self._closed or self._queue)
                if not self._queue:
                    return None
                batch = self._take()
                if batch:
                    return batch

    def _items(self) -> int:
        return sum(request.rows for request in self._queue)

    def _take(self) -> list[_Request]:
        """The first request, and others of its kind in the order in which they came, up to
        `max_batch` items; the others stay. Empty where all were cancelled."""
        first, batch, items = self._queue[0], list[_Request](), 0
        left: deque[_Request] = deque()
        for request in self._queue:
            fits = request is first or (
                request.kind is not None
                and request.kind == first.kind
                and items + request.rows <= self._max_batch
            )
            if not fits:
                left.append(request)
            elif request.future.set_running_or_notify_cancel():
                batch.append(request)
                items += request.rows
            else:
                self._cancelled += 1
        self._queue = left
        self._changed.notify_all()  # there is room
        self._count(batch)
        return batch

    def _count(self, batch: Sequence[_Request]) -> None:
        now = time.perf_counter()
        waits = [now - request.submitted for request in batch]
        self._requests += len(batch)
        self._waited += sum(waits)
        self._longest = max(self._longest, *waits, 0.0)
        if batch:
            self._sizes[sum(request.rows for request in batch)] += 1

    def _answer(self, batch: Sequence[_Request]) -> None:
        if len(batch) > 1:
            try:
                answers = self._together(batch)
            except Exception:
                pass  # each by itself then, so that each fails by itself
            else:
                for request, answer in zip(batch, answers, strict=True):
                    request.future.set_result(answer)
                return
        for request in batch:
            self._answer_alone(request)

    def _answer_alone(self, request: _Request) -> None:
        try:
            answer = self._compiled(*request.given)
        except BaseException as problem:
            with self._changed:
                self._failed += 1
            request.future.set_exception(problem)
        else:
            request.future.set_result(answer)

    def _together(self, batch: Sequence[_Request]) -> list[Any]:
        """The outputs of each request, computed in one call."""
        columns = zip(*(request.arrays for request in batch), strict=True)
        arrays = [np.concatenate(column) for column in columns]
        graph = self._compiled.independent(tuple(array.shape for array in arrays))
        assert graph is not None, "a batch of what is no batch"
        results = self._compiled.results(arrays)
        answers, start = [], 0
        for request in batch:
            rows = slice(start, start + request.rows)
            own = rows_of(graph.outputs, results, rows)
            answers.append(self._compiled.wrapped(request.given, own))
            start = rows.stop
        return answers
