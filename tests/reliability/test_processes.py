"""Models in other processes, copies of them, interrupts, and how a process ends."""

import copy
import gc
import os
import pickle
import signal
import time
import weakref
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from python_process import run_python

import lucid
from lucid import nn
from lucid.codegen.target import Target
from lucid.runtime import library
from lucid.runtime.processors import default_threads
from lucid.runtime.team import Team

IMAGE = np.random.default_rng(0).standard_normal((5, 3, 12, 12)).astype(np.float32)


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 24, 3, padding=1)
        self.last = nn.Conv2d(24, 8, 1)

    def forward(self, x):
        return self.last(nn.functional.silu(self.conv(x)))


NET = Net()


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "team"])
def fast(request: pytest.FixtureRequest) -> lucid.CompiledModel:
    return lucid.compile(NET, (2, 3, 12, 12), threads=request.param)


# -- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_gives_the_same_and_is_its_own(fast: lucid.CompiledModel, copied) -> None:
    other = copied(fast)
    wanted = fast(IMAGE)
    np.testing.assert_array_equal(other(IMAGE), wanted)
    assert other.threads == min(fast.threads, default_threads())
    zero = {name: np.zeros(t.shape, np.float32) for name, t in NET.state_dict().items()}
    other.load_weights(zero)
    assert not other(IMAGE).any()
    np.testing.assert_array_equal(fast(IMAGE), wanted)


# -- processes ------------------------------------------------------------------------------------

given: list[lucid.CompiledModel] = []


def keep(model: lucid.CompiledModel) -> None:
    given.append(model)


def call_kept(image: np.ndarray) -> np.ndarray:
    return given[-1](image)


def call(model: lucid.CompiledModel, image: np.ndarray) -> np.ndarray:
    return model(image)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(fast: lucid.CompiledModel, method: str) -> None:
    wanted = fast(IMAGE)
    with ProcessPoolExecutor(
        2, mp_context=get_context(method), initializer=keep, initargs=(fast,)
    ) as pool:
        for result in pool.map(call_kept, [IMAGE[:n] for n in (1, 5, 3)], timeout=90):
            np.testing.assert_array_equal(result, wanted[: len(result)])
        np.testing.assert_array_equal(pool.submit(call, fast, IMAGE).result(90), wanted)
    np.testing.assert_array_equal(fast(IMAGE), wanted)


# -- the end of a process, and interrupts ---------------------------------------------------------

MODEL = """
import os, signal, sys, threading, time
import numpy as np
import lucid
model = lucid.models.resnest_digits()
x = np.ones((4, 1, 32, 32), np.float32)
"""

IN_FLIGHT = """
def calling(threads):
    fast = lucid.compile(model, x.shape, threads=threads)
    while True:
        fast(x)
        started.release()
started = threading.Semaphore(0)
for threads in (1, 1, 2, 2, 5):
    threading.Thread(target=calling, args=(threads,), daemon=True).start()
for _ in range(12):
    started.acquire()
"""


@pytest.mark.parametrize("ending", ["", "sys.exit(0)"], ids=["end", "exit"])
def test_a_process_ends_with_calls_in_flight(ending: str) -> None:
    done = run_python(MODEL + IN_FLIGHT + ending, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


COMPILING = """
class Net(lucid.nn.Module):
    def __init__(self):
        self.conv = lucid.nn.Conv2d(1, 8, 3)
    def forward(self, x):
        return lucid.nn.functional.relu(self.conv(x))
model = Net()
caught = threading.Event()
def interrupt():
    time.sleep({after})
    while not caught.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        caught.wait(1.0)
expected = lucid.compile(model, x.shape, threads=1, cache=False)(x)
import lucid.runtime.library as library
library._libraries.clear()
fast = None
threading.Thread(target=interrupt).start()
try:
    start = time.monotonic()
    while True:
        fast = lucid.compile(model, x.shape, threads=2, cache=False)
        library._libraries.clear()
except KeyboardInterrupt:
    caught.set()
    print("interrupted")
again = lucid.compile(model, x.shape, threads=2, cache=False)
assert np.array_equal(again(x), expected)
assert fast is None or np.array_equal(fast(x), expected)
"""


@pytest.mark.parametrize("after", [0.02, 0.15])
def test_an_interrupt_while_compiling(after: float) -> None:
    """Python drops an interrupt that falls into one of llvmlite's finalizers, and says so; whoever
    sits at the keyboard presses Ctrl-C once more, and so does this."""
    done = run_python(MODEL + COMPILING.format(after=after), timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    assert done.stderr.count("Traceback") == done.stderr.count("Exception ignored in")


HANDLER = """
fast = lucid.compile(model, x.shape, threads=2)
expected, handled = fast(x), []
def handler(*_):
    handled.append(np.array_equal(fast(x), expected))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while len(handled) < 20:
    assert np.array_equal(fast(x), expected)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert all(handled)
"""


def test_a_signal_handler_may_call_the_model_that_it_interrupts() -> None:
    done = run_python(MODEL + HANDLER, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


SMALL_STACK = """
threading.stack_size(128 << 10)
fast = lucid.compile(model, x.shape, threads=2)
alone = lucid.compile(model, x.shape, threads=1)
expected, results = fast(x), []
for model in (fast, alone):
    thread = threading.Thread(target=lambda: results.append(model(x)))
    thread.start()
    thread.join()
assert all(np.array_equal(r, expected) for r in results) and len(results) == 2
"""


def test_kernels_need_little_stack() -> None:
    """Callers and workers have 128 KiB, as threads have by default where the C library is musl."""
    done = run_python(MODEL + SMALL_STACK, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


# -- idleness, and what is dropped ----------------------------------------------------------------


def test_processes_that_wait_for_work_use_no_processor() -> None:
    models = [lucid.compile(NET, IMAGE.shape, threads=n) for n in (2, 3, 5)]
    for model in models:
        model(IMAGE)
    time.sleep(0.05)  # workers look for work a moment longer
    start = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - start < 0.1


def test_a_team_that_is_dropped_leaves_no_worker_on_freed_memory() -> None:
    """Workers hold their team, so it lives until it is stopped; then all of it goes."""
    own = Team(Target.host(), 3)
    gone, workers = weakref.ref(own), list(own._threads)
    del own
    gc.collect()
    assert all(worker.is_alive() for worker in workers)
    left = gone()
    assert left is not None
    left.stop()
    assert not any(worker.is_alive() for worker in workers)
    del left, workers
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_dropped_model_held_goes_at_once(threads: int) -> None:
    """Its arena, its weights, and its code, once others have been loaded; no cycle keeps them."""
    gc.collect()
    gc.disable()
    try:
        fast = lucid.compile(NET, IMAGE.shape, threads=threads)
        fast(IMAGE)
        plan = fast._planner.plan(((5, 3, 12, 12),))
        held = [fast, plan.whole, *fast._runner.free, *plan.weights._segments]
        gone = [weakref.ref(thing) for thing in held]
        del fast, plan, held
        assert [ref() for ref in gone] == [None] * len(gone)
    finally:
        gc.enable()


def test_code_that_nobody_holds_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_libraries", {})
    monkeypatch.setattr(library, "KEPT", 0)
    held = lucid.compile(NET, (1, 3, 12, 12), threads=1)
    wanted = held(IMAGE[:1])
    native = library.library(held.target)
    known = len(native._known)
    other = lucid.compile(lucid.models.resnest_digits(), (1, 1, 32, 32), threads=1)
    assert len(native._known) > known
    del other
    gc.collect()
    assert len(native._known) == known
    np.testing.assert_array_equal(held(IMAGE[:1]), wanted)


def test_memory_of_large_images_goes_with_their_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucid.runtime.planner.PLANS_KEPT", 2)
    fast = lucid.compile(NET, (1, 3, 12, 12), threads=1)
    fast(np.zeros((1, 3, 200, 200), np.float32))
    (large,) = fast._runner.free
    for side in (12, 13, 14):
        fast(np.zeros((1, 3, side, side), np.float32))
    (small,) = fast._runner.free
    assert small.capacity[0] < large.capacity[0] / 50


def test_signals_reach_nobody_twice() -> None:
    """SIGINT to a process whose model is at work: one KeyboardInterrupt, in the main thread."""
    code = MODEL + (
        "fast = lucid.compile(model, x.shape, threads=2)\n"
        "expected = fast(x)\n"
        "big = np.ones((640, 1, 32, 32), np.float32)\n"
        "threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    while True: fast(big)\n"
        "except KeyboardInterrupt: pass\n"
        "time.sleep(0.1)\n"
        "assert np.array_equal(fast(x), expected)\n"
    )
    done = run_python(code, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), signal.SIGINT


def test_affinity_may_change_while_a_model_runs(fast: lucid.CompiledModel) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("processors cannot be chosen here")
    before, wanted = os.sched_getaffinity(0), fast(IMAGE)
    try:
        for chosen in ({min(before)}, before, {max(before)}):
            os.sched_setaffinity(0, chosen)
            np.testing.assert_array_equal(fast(IMAGE), wanted)
    finally:
        os.sched_setaffinity(0, before)
