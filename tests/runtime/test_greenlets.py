"""Processes whose threads are greenlets: patched by gevent or eventlet, first or later."""

import importlib.util
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from python_process import run_python

import lucid
from lucid import nn, os_threads

PATCHES = {
    "gevent": "import gevent, gevent.monkey\nfrom gevent import sleep, spawn\n"
    "def patch(): gevent.monkey.patch_all()\n"
    "def wait(greenlets): return [g.get() for g in greenlets]\n"
    "def in_a_thread(work): return gevent.get_hub().threadpool.spawn(work)\n",
    "eventlet": "import eventlet, eventlet.tpool\nfrom eventlet import sleep, spawn\n"
    "def patch(): eventlet.monkey_patch()\n"
    "def wait(greenlets): return [g.wait() for g in greenlets]\n"
    "def in_a_thread(work): return spawn(eventlet.tpool.execute, work)\n",
}
LUCID = """
import hashlib, os, sys
import numpy as np
import lucid
from lucid import nn, os_threads
x = np.random.default_rng(0).standard_normal((3, 3, 20, 20)).astype(np.float32)
net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 1))
def compiled(**options): return lucid.compile(net, x.shape, threads=2, **options)
def digest(y): return hashlib.sha256(y.tobytes()).hexdigest()
def told(what, digests): print(what, *set(digests), flush=True)
"""


@pytest.fixture(params=PATCHES)
def library(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(params=["patched-first", "patched-later"])
def setting(library: str, request: pytest.FixtureRequest) -> str:
    """Code that patches, and makes what the tests below use."""
    parts = ["patch()\n", LUCID] if request.param == "patched-first" else [LUCID, "patch()\n"]
    return PATCHES[library] + "".join(parts)


def told(code: str) -> dict[str, str]:
    """What is told of each step: how many of them there are says where a process hung."""
    try:
        done = run_python(code, timeout=50)
    except subprocess.TimeoutExpired as hung:
        pytest.fail(f"hangs after {hung.stdout!r}, {hung.stderr!r}")
    assert done.returncode == 0, done.stderr
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def wanted() -> str:
    """What an unpatched process computes."""
    return told(LUCID + "told('call', [digest(compiled()(x))])")["call"]


CALLS = """
fast = compiled()
told("call", [digest(fast(x))])

lazy = lucid.compile(net, threads=2)  # by who comes first
def call_twice():
    sleep(0)
    y = lazy(x)
    sleep(0)
    return digest(lazy(x)) + digest(y)
told("greenlets", [d[at:at + 64] for d in wait([spawn(call_twice) for _ in range(20)])
     for at in (0, 64)])

def compile_and_call(): return digest(compiled()(x))
def call(): return digest(fast(x))
threads = [in_a_thread(w) for w in (compile_and_call, call, compile_and_call, call)]
greenlets = [spawn(w) for w in (call, compile_and_call, call)]
told("threads", wait([*greenlets, *threads]))
"""
FORKS = """
fast = compiled().save(PATH)
def load_and_call(): return digest(lucid.load(PATH, 2)(x))
told("loads", wait([spawn(load_and_call) for _ in range(3)]))
child = os.fork()
if child == 0:
    told("child", [digest(fast(x)), *wait([spawn(load_and_call) for _ in range(2)])])
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
told("parent", [digest(fast(x))])
"""
SWITCHES = """
inside = []
def compile_and_call(number):
    def progress(what, done, total):
        inside.append(number)
        sleep(0)
    return digest(compiled(progress=progress)(x))
told("switches", wait([spawn(compile_and_call, n) for n in range(3)]))
assert sum(a != b for a, b in zip(inside, inside[1:])) == 2, inside  # one after the other
"""


def test_calls_compilations_loads_and_forks(setting: str, wanted: str, tmp_path: Path) -> None:
    """Results are those of an unpatched process."""
    code = CALLS + SWITCHES + FORKS.replace("PATH", repr(str(tmp_path / "m.lucid")))
    steps = ("call", "greenlets", "threads", "switches", "loads", "child", "parent")
    assert told(setting + code) == dict.fromkeys(steps, wanted)


def test_greenlets_without_a_patch_do_not_hang(library: str, wanted: str) -> None:
    code = """
def compile_it():
    try:
        compiled(progress=lambda *_: sleep(0.01))
    except lucid.errors.CompileError as problem:
        return "refused" if "monkey" in str(problem) else str(problem)
    return "compiled"
print("both", *sorted(wait([spawn(compile_it) for _ in range(2)])))
told("call", [digest(compiled()(x))])
"""
    result = told(PATCHES[library] + LUCID + code)
    assert result == {"both": "compiled refused", "call": wanted}


# -- os_threads ---------------------------------------------------------------------------------


def test_mapped_gives_results_in_order() -> None:
    assert list(os_threads.mapped(lambda n: n * n, range(50), 3)) == [n * n for n in range(50)]
    assert list(os_threads.mapped(abs, [], 3)) == []


def test_mapped_raises_and_begins_nothing_more() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        return 1 // (2 - number)

    with pytest.raises(ZeroDivisionError):
        list(os_threads.mapped(work, range(10_000), 1))
    assert begun == [0, 1, 2]


def test_interrupts_do_not_leave_threads_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is interrupted waits for them first, however often: they use what it then frees."""
    join, done, interrupts = os_threads.Thread.join, [], [KeyboardInterrupt()] * 3
    begun, waited_for = threading.Event(), threading.Event()

    def work(number: int) -> None:
        if number == 0:
            assert begun.wait(10)
            raise ValueError
        begun.set()
        assert waited_for.wait(10)
        done.append(number)

    def interrupted(own: os_threads.Thread) -> None:
        if interrupts:
            raise interrupts.pop()
        waited_for.set()
        join(own)

    monkeypatch.setattr(os_threads.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(os_threads.mapped(work, [0, 1], 2))
    assert done == [1]


def test_mapped_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(work: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os_threads, "Thread", refuse)
    assert list(os_threads.mapped(abs, [-1, -2], 2)) == [1, 2]
    net = nn.Conv2d(3, 4, 3)
    assert lucid.compile(net, (1, 3, 8, 8), threads=1)(np.zeros((1, 3, 8, 8), np.float32)).size
