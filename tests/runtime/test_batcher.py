"""The Batcher, and calls that asyncio awaits."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.errors import BatcherClosedError, InputError, QueueFullError
from lucid.ir.text import parse_graph
from lucid.runtime import executor as executors
from lucid.runtime.executor import executor

NET = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
IMAGES = np.random.default_rng(0).standard_normal((20, 3, 6, 6)).astype(np.float32)
PATIENCE = 20.0


@pytest.fixture(scope="module")
def fast() -> lucid.CompiledModel:
    return lucid.compile(NET, (1, 3, 6, 6), threads=1)


@pytest.fixture
def held(fast: lucid.CompiledModel) -> Iterator[Callable[[], None]]:
    """The model waits in its next call until this is called. Gives up in the end."""
    gate, inside = threading.Event(), threading.Event()
    fast(IMAGES[:1])
    enter = fast._runner.enter
    assert enter is not None

    def wait_and_enter(call: int) -> int:
        inside.set()
        assert gate.wait(PATIENCE)
        return enter(call)

    fast._runner.enter = wait_and_enter
    yield gate.set
    gate.set()
    fast._runner.enter = enter


def busy(batcher: lucid.Batcher) -> Future:
    """A request that the batcher has begun, and others gather behind."""
    first = batcher.submit(IMAGES[:1])
    deadline = time.monotonic() + PATIENCE
    while not first.running():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return first


def result(future: Future) -> np.ndarray:
    return future.result(PATIENCE)


def test_requests_that_gather_are_one_batch(
    fast: lucid.CompiledModel, held: Callable[[], None]
) -> None:
    with lucid.Batcher(fast, max_batch=8) as batcher:
        first = busy(batcher)
        rows = [slice(1, 2), slice(2, 5), slice(5, 7), slice(7, 10), slice(9, 10), slice(0, 11)]
        futures = [batcher.submit(IMAGES[r]) for r in rows]
        assert batcher.statistics().queued == len(rows)
        held()
        answers = [result(f) for f in (first, *futures)]
    for row, answer in zip([slice(0, 1), *rows], answers, strict=True):
        np.testing.assert_array_equal(answer, fast(IMAGES[row]))
    told = batcher.statistics()
    # 1; then 1 + 3 + 2 and, past the next, which has no room, 1; then 3; and 11, more than 8
    assert told.sizes == {1: 1, 3: 1, 7: 1, 11: 1}
    assert (told.requests, told.items, told.batches, told.queued) == (7, 22, 4, 0)
    assert told.longest_wait_ms >= told.wait_ms > 0


def test_shapes_are_not_mixed_and_what_is_bad_fails_alone(
    fast: lucid.CompiledModel, held: Callable[[], None]
) -> None:
    with lucid.Batcher(fast) as batcher:
        first = busy(batcher)
        small = np.ascontiguousarray(IMAGES[:, :, :4])
        images = [IMAGES[:1], small[:1], IMAGES[1:2], small[1:2], IMAGES[2:4]]
        futures = [batcher.submit(image) for image in images]
        bad = [batcher.submit(x) for x in (IMAGES[:1, :2], IMAGES.astype(np.float64), "image", 1)]
        empty = batcher.submit(IMAGES[:0])
        held()
        for image, future in zip(images, futures, strict=True):
            np.testing.assert_array_equal(result(future), fast(image))
        assert result(empty).shape == (0, 4, 6, 6)
        for future in bad:
            with pytest.raises(InputError):
                result(future)
        assert result(first).shape == (1, 4, 6, 6)
    assert batcher.statistics().sizes == {1: 3, 2: 1, 4: 1}


class Mixes(nn.Module):
    def forward(self, x):
        return x - x.mean((0,), keepdim=True)


@pytest.mark.parametrize("together", [True, False])
def test_several_inputs(together: bool) -> None:
    """Where one of them has no batch, calls are not joined."""
    rows = "N" if together else "1"
    signature = f"(%x: f32[N,3,6,6], %scale: f32[{rows},3]) -> f32[N,3,6,6], f32[{rows},3]"
    text = f"""graph scaled{signature} {{
      %reshape = reshape(%scale) {{shape=({rows},3,1,1)}} : f32[{rows},3,1,1]
      %y = mul(%x, %reshape) : f32[N,3,6,6]
      %z = relu(%scale) : f32[{rows},3]
      return %y, %z
    }}"""
    scaled = lucid.compile(parse_graph(text), ((1, 3, 6, 6), (1, 3)), threads=1)
    scales = IMAGES[:, :, 0, 0].copy()
    calls = [(IMAGES[n : n + 2], scales[n : n + 2 if together else n + 1]) for n in range(12)]
    with lucid.Batcher(scaled) as batcher:
        with batcher._gathering._changed:  # so that none is begun before all are there
            futures = [batcher.submit(scale=scale, x=image) for image, scale in calls]
        for future, call in zip(futures, calls, strict=True):
            for answer, wanted in zip(result(future), scaled(*call), strict=True):
                np.testing.assert_array_equal(answer, wanted)
    assert batcher.statistics().sizes == ({8: 3} if together else {1: 12})


def test_rows_that_depend_on_each_other_are_called_one_by_one() -> None:
    mixes = lucid.compile(Mixes(), (2, 3, 6, 6), threads=1)
    with lucid.Batcher(mixes) as batcher:
        futures = [batcher.submit(IMAGES[n : n + 2]) for n in range(6)]
        for n, future in enumerate(futures):
            np.testing.assert_array_equal(result(future), mixes(IMAGES[n : n + 2]))
    assert batcher.statistics().batches == 6


def test_a_full_queue(fast: lucid.CompiledModel, held: Callable[[], None]) -> None:
    with lucid.Batcher(fast, max_queue=2) as batcher:
        busy(batcher)
        futures = [batcher.submit(IMAGES[:1]) for _ in range(2)]
        for timeout in (0, 0.01):
            with pytest.raises(QueueFullError, match="2 requests wait already"):
                batcher.submit(IMAGES[:1], timeout=timeout)
        waiting = threading.Thread(target=lambda: futures.append(batcher.submit(IMAGES[:1])))
        waiting.start()
        held()
        waiting.join(PATIENCE)
        assert len(futures) == 3
        assert all(result(f).shape == (1, 4, 6, 6) for f in futures)


def test_what_is_cancelled_is_not_begun(
    fast: lucid.CompiledModel, held: Callable[[], None]
) -> None:
    with lucid.Batcher(fast) as batcher:
        first = busy(batcher)
        assert not first.cancel()
        one, other = (batcher.submit(IMAGES[:1]) for _ in range(2))
        assert one.cancel()
        held()
        assert result(other).shape == (1, 4, 6, 6)
        with pytest.raises(CancelledError):
            one.result()
    told = batcher.statistics()
    assert (told.cancelled, told.sizes) == (1, {1: 2})


@pytest.mark.parametrize("cancel", [False, True])
def test_closing(fast: lucid.CompiledModel, held: Callable[[], None], cancel: bool) -> None:
    batcher = lucid.Batcher(fast)
    first = busy(batcher)
    waits = batcher.submit(IMAGES[:1])
    closing = threading.Thread(target=batcher.close, args=(cancel,))
    closing.start()
    while not (cancel and waits.done()) and not batcher._gathering._closed:
        time.sleep(0.001)
    held()
    closing.join(PATIENCE)
    assert first.done()
    if cancel:
        assert waits.cancelled()
    else:
        np.testing.assert_array_equal(waits.result(), first.result())
    with pytest.raises(BatcherClosedError, match="closed"):
        batcher.submit(IMAGES[:1])
    batcher.close()


def test_a_batcher_that_nobody_holds_answers_and_ends(fast: lucid.CompiledModel) -> None:
    batcher = lucid.Batcher(fast)
    thread = batcher._gathering._thread
    future = batcher.submit(IMAGES[:3])
    del batcher
    gc.collect()
    np.testing.assert_array_equal(result(future), fast(IMAGES[:3]))
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_many_threads_and_an_idle_batcher(fast: lucid.CompiledModel) -> None:
    wanted, wrong = fast(IMAGES), []
    with lucid.Batcher(fast, max_batch=4, max_delay_ms=1, max_queue=3) as batcher:

        def calling(number: int) -> None:
            for n in range(number, number + 8):
                if not np.array_equal(result(batcher.submit(IMAGES[n : n + 1])), wanted[n : n + 1]):
                    wrong.append(n)

        threads = [threading.Thread(target=calling, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert batcher.statistics().items == 64
        assert max(batcher.statistics().sizes) <= 4
        start = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - start < 0.05


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork(fast: lucid.CompiledModel) -> None:
    with lucid.Batcher(fast) as batcher:
        result(batcher.submit(IMAGES[:1]))
        executor().submit(int).result()
        child = os.fork()
        if child == 0:
            try:
                batcher.submit(IMAGES[:1])
            except BatcherClosedError as problem:
                batcher.close()
                with lucid.Batcher(fast) as another:
                    same = np.array_equal(result(another.submit(IMAGES[:1])), fast(IMAGES[:1]))
                alone = not executors._executors
                os._exit(0 if "fork" in str(problem) and same and alone else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_limits_are_checked(fast: lucid.CompiledModel) -> None:
    for limits in ({"max_batch": 0}, {"max_queue": 0}, {"max_delay_ms": -1.0}):
        with pytest.raises(InputError, match="at least"):
            lucid.Batcher(fast, **limits)
    with pytest.raises(InputError, match=r"what lucid\.compile"):
        lucid.Batcher(NET)


# -- asyncio ----------------------------------------------------------------------------------


def test_awaited_calls(fast: lucid.CompiledModel) -> None:
    async def calls() -> None:
        out = np.empty((1, 4, 6, 6), np.float32)
        with lucid.Batcher(fast, max_queue=2) as batcher:
            answers = await asyncio.gather(
                *(fast.acall(IMAGES[n : n + 1]) for n in range(4)),
                *(batcher.asubmit(IMAGES[n : n + 1]) for n in range(8)),
                fast.acall(IMAGES[:1], out=out),
            )
        for n, answer in enumerate(answers[:4] + answers[4:12]):
            n -= 4 * (n >= 4)
            np.testing.assert_array_equal(answer, fast(IMAGES[n : n + 1]))
        assert answers[-1] is out
        with pytest.raises(InputError):
            await fast.acall("image")

    asyncio.run(calls())


def test_an_await_that_is_cancelled_before_it_begins(fast: lucid.CompiledModel) -> None:
    async def calls() -> None:
        gate, begun = threading.Event(), []
        for _ in range(executor()._max_workers):  # so that nothing else begins
            executor().submit(gate.wait, PATIENCE)
        enter = fast._runner.enter
        fast._runner.enter = lambda call: begun.append(call) or enter(call)
        try:
            waits = asyncio.ensure_future(fast.acall(IMAGES[:1]))
            await asyncio.sleep(0)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            gate.set()
            await asyncio.get_running_loop().run_in_executor(executor(), int)
            assert not begun
        finally:
            gate.set()
            fast._runner.enter = enter

    fast(IMAGES[:1])
    asyncio.run(calls())
