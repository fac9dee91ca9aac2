"""Models emitted as C: the same bits as in Python, and every bad input a status."""

import ctypes
import errno
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import c_library
import numpy as np
import pytest
from c_library import COMPILER, STATUSES, Library, Options

import lucid
from lucid import nn
from lucid.codegen.target import LEVELS, Target
from lucid.errors import InputError, UnsupportedError
from lucid.ir.samples import sample_payload
from lucid.ir.text import parse_graph
from lucid.models import resnest_digits

HOST = Target.host()
HERE = [name for name, target in LEVELS.items() if target.runs_here()]
HIGHEST = [name for name, target in LEVELS.items() if target.is_x86][-1]
TWO = list(dict.fromkeys([HERE[0], HERE[-1]]))
"""The plainest level of this machine, and the best."""

SCALED = """graph scaled(%image: f32[N,3,8,8], %scale: u8[2N,3], %shift: f32[])
 -> f32[N,5,8,8], f32[N,3,8,8] {
  param @w: f32[5,3,3,3]
  %cast = cast(%scale) : f32[2N,3]
  %halves = reshape(%cast) {shape=(N,2,3)} : f32[N,2,3]
  %one = mean(%halves) {axes=(1)} : f32[N,3]
  %reshape = reshape(%one) {shape=(N,3,1,1)} : f32[N,3,1,1]
  %mul = mul(%image, %reshape) : f32[N,3,8,8]
  %moved = add(%mul, %shift) : f32[N,3,8,8]
  %conv = conv2d(%moved, @w) {padding=(1,1,1,1)} : f32[N,5,8,8]
  return %conv, %moved
}
"""
MIXED = """graph mixed(%x: f32[N,4]) -> f32[N,4] {
  param @w: f32[4]
  %y = mul(%x, @w) : f32[N,4]
  %z = softmax(%y) {axis=0} : f32[N,4]
  return %z
}
"""
SUMS = """graph sums(%x: f32[N,4]) -> f32[N,4] {
  param @w: f32[4]
  %y = mul(%x, @w) : f32[N,4]
  return %y
}
"""


def compiled_text(text: str, *shapes: Any) -> Any:
    graph = parse_graph(text)
    graph.payload = sample_payload(graph)
    compiled = lucid.compile(graph, shapes[0], threads=2)
    for shape in shapes[1:]:
        compiled.prepare(shape)
    return compiled


def scaled_shapes(batch: int) -> Any:
    return ((batch, 3, 8, 8), (2 * batch, 3), ())


def scaled() -> Any:
    return compiled_text(SCALED, *map(scaled_shapes, (1, 4)))


def bytes_in() -> Any:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)
    )
    spec = lucid.vision.Preprocess(size=8)
    return lucid.compile(network, (1, 8, 8, 3), input="uint8_nhwc", preprocess=spec, threads=2)


def rounded() -> Any:
    """With products of bfloat16."""
    network = nn.Sequential(
        nn.Conv2d(3, 70, 3), nn.ReLU(), nn.Conv2d(70, 66, 1), nn.Conv2d(66, 9, 3)
    )
    return lucid.compile(network, (2, 3, 12, 12), precision="bf16", threads=2)


def quantised() -> Any:
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3))
    images = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)
    return lucid.compile(lucid.quantize(network, [images]), (2, 3, 8, 8), threads=2)


NETWORKS = {
    "scaled": scaled,
    "digits": lambda: lucid.compile(resnest_digits(), (1, 1, 32, 32), threads=2),
    "rounded": rounded,
    "bytes": bytes_in,
    "quantised": quantised,
    "mixed": lambda: compiled_text(MIXED, (3, 4), (2, 4)),
    "sums": lambda: compiled_text(SUMS, (6, 4), (15, 4), (10, 4)),
}


@dataclass
class Emitted:
    compiled: Any
    library: Library

    def arrays(self, batch: int) -> list[Any]:
        """Inputs of a batch."""
        random = np.random.default_rng(batch)
        made = []
        for spec in self.compiled.inputs:
            shape = [d if isinstance(d, int) else batch * int(d[:-1] or 1) for d in spec.shape]
            if spec.dtype == "uint8":
                made.append(random.integers(0, 256, shape).astype(np.uint8))
            else:
                made.append(np.asarray(random.standard_normal(shape), np.float32))
        return made

    def wanted(self, arrays: list[Any]) -> list[Any]:
        results = self.compiled(*arrays)
        return list(results) if isinstance(results, tuple) else [results]


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    """Libraries of the networks by name, each made once."""
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    made = {}

    def get(name: str) -> Emitted:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            compiled = NETWORKS[name]()
            targets = TWO if name == "scaled" else None
            lucid.emit_c(
                compiled, folder, name=name, targets=targets, embed=name == "digits", shared=True
            )
            made[name] = Emitted(compiled, Library(folder, name))
        return made[name]

    return get


def assert_same(model: Emitted, handle: int, batch: int) -> None:
    arrays = model.arrays(batch)
    wanted = model.wanted(arrays)
    outs = [np.full_like(w, 77) for w in wanted]
    assert model.library.run(handle, arrays, outs) == "OK"
    for number, (out, expected) in enumerate(zip(outs, wanted, strict=True)):
        np.testing.assert_array_equal(out, expected)
        shapes = [array.shape for array in arrays]
        assert model.library.output_shape(shapes, number) == ("OK", expected.shape)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("scaled", (1, 3, 4, 11)),
        ("digits", (1, 2)),
        ("rounded", (2, 6)),
        ("bytes", (1, 5)),
        ("quantised", (2, 6)),
        ("mixed", (2, 3)),
        ("sums", (6, 12, 16, 31, 35, 1000)),
    ],
)
def test_the_same_bits(name, batches, threads, emitted) -> None:
    model = emitted(name)
    weights = None if name == "digits" else "own"
    status, handle = model.library.create(weights, threads)
    assert status == "OK"
    assert model.library.level(handle).decode() == HOST.name
    for batch in (*batches, *batches):
        assert_same(model, handle, batch)
    model.library.destroy(handle)


def test_every_level(emitted) -> None:
    model = emitted("scaled")
    arrays = model.arrays(5)
    for level in TWO:
        status, handle = model.library.create(level=level)
        assert (status, model.library.level(handle).decode()) == ("OK", level)
        options = lucid.CompileOptions(target=level)
        graph = parse_graph(SCALED)
        graph.payload = sample_payload(graph)
        wanted = lucid.compile(graph, scaled_shapes(4), threads=1, options=options)(*arrays)
        outs = [np.zeros_like(w) for w in wanted]
        assert model.library.run(handle, arrays, outs) == "OK"
        for out, expected in zip(outs, wanted, strict=True):
            np.testing.assert_array_equal(out, expected)
        model.library.destroy(handle)


def test_threads_that_a_call_is_not_worth_rest(emitted) -> None:
    """Calls do not wake them."""
    model = emitted("digits")
    plan = next(iter(model.compiled.snapshot().plans.values()))
    most = plan.whole.pace.worth + 3
    before = set(os.listdir("/proc/self/task"))
    _, handle = model.library.create(None, threads=most)
    threads = set(os.listdir("/proc/self/task")) - before
    arrays = model.arrays(1)
    call = model.library.prepared(handle, arrays, [np.zeros((1, 10), np.float32)])

    def sleeps() -> dict[str, str]:
        told = {thread: Path(f"/proc/self/task/{thread}/status").read_text() for thread in threads}
        return {thread: text.partition("voluntary_ctxt")[2] for thread, text in told.items()}

    def resting() -> int:
        """How many threads some calls, each after a pause, leave asleep."""
        first = sleeps()
        for _ in range(10):
            time.sleep(0.001)
            assert call() == 0
        return sum(text == first[thread] for thread, text in sleeps().items())

    assert len(threads) == most - 1
    assert max(resting() for _ in range(5)) >= 3
    model.library.destroy(handle)


def test_many_callers(emitted) -> None:
    """More than there is memory for, and than the team has threads."""
    model = emitted("scaled")
    _, handle = model.library.create(threads=2, max_calls=2)
    given = [(arrays, model.wanted(arrays)) for arrays in map(model.arrays, (1, 2, 3, 4, 5))]
    problems = []

    def call(number: int) -> None:
        arrays, wanted = given[number]
        for _ in range(40):
            outs = [np.zeros_like(w) for w in wanted]
            status = model.library.run(handle, arrays, outs)
            if status != "OK" or not all(map(np.array_equal, outs, wanted)):
                problems.append((number, status))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    model.library.destroy(handle)


def test_what_there_is(emitted) -> None:
    library = emitted("scaled").library
    told = [library.input_info(i).contents for i in range(3)]
    assert [t.name.decode() for t in told] == ["image", "scale", "shift"]
    assert [t.batch for t in told] == [1, 2, 0]
    assert [t.item_bytes for t in told] == [4, 1, 4]
    assert told[0].shape[:4] == [1, 3, 8, 8]
    assert not library.input_info(3)
    assert not library.output_info(2)
    assert library.output_shape(None, 0) == ("OK", (1, 5, 8, 8))
    assert library.output_shape(scaled_shapes(7), 1) == ("OK", (7, 3, 8, 8))
    assert library.output_shape(scaled_shapes(0), 1)[0] == "BAD_SHAPE"
    assert library.output_shape(None, 2)[0] == "BAD_COUNT"
    for number, status in enumerate(STATUSES):
        assert len(library.error(number)) > 30 or status == "OK"
    assert library.error(99) == b"no status of scaled's"


# -- bad input ------------------------------------------------------------------------------------


def test_options_that_make_no_sense(emitted, tmp_path: Path) -> None:
    library = emitted("scaled").library
    handle = ctypes.c_void_p(1)
    assert library.create_raw(None, ctypes.byref(handle)) == "NULL_ARGUMENT"
    assert handle.value is None
    assert library.create_raw(ctypes.byref(Options()), None) == "NULL_ARGUMENT"
    for options in ({"threads": -1}, {"max_calls": -1}, {"threads": 5000}, {"level": "x87"}):
        assert library.create(**options)[0] == "BAD_OPTION"
    assert library.create(None)[0] == "NULL_ARGUMENT"
    assert library.create(tmp_path / "none.bin")[0] == "WEIGHTS_MISSING"
    os.mkfifo(tmp_path / "pipe")
    create = ctypes.CDLL(str(library.folder / "scaled.so"), use_errno=True).scaled_create
    for path in (tmp_path, tmp_path / "pipe"):
        ctypes.set_errno(errno.ENOENT)
        status = create(ctypes.byref(Options(os.fsencode(path), 1, 1)), ctypes.byref(handle))
        assert STATUSES[status] == "WEIGHTS_MISSING"
        assert ctypes.get_errno() == errno.EINVAL
    library.destroy(None)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda data: data[:0], "WEIGHTS_DAMAGED"),
        (lambda data: data[:40], "WEIGHTS_DAMAGED"),
        (lambda data: data[:-8], "WEIGHTS_DAMAGED"),
        (lambda data: data[:-1], "WEIGHTS_DAMAGED"),
        (lambda data: data + bytes(8), "WEIGHTS_DAMAGED"),
        (lambda data: b"PK" + data[2:], "WEIGHTS_FOREIGN"),
        (lambda data: data[:24] + b"?" + data[25:], "WEIGHTS_FOREIGN"),
        (lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], "WEIGHTS_DAMAGED"),
        (lambda data: data[:64] + data[128:192] + data[64:128] + data[192:], "WEIGHTS_DAMAGED"),
    ],
)
def test_a_damaged_or_foreign_file(change, status, emitted, tmp_path: Path) -> None:
    library = emitted("scaled").library
    path = tmp_path / "scaled.bin"
    path.write_bytes(change(library.weights.read_bytes()))
    assert library.create(path)[0] == status


def test_the_weights_of_another_network(emitted) -> None:
    other = emitted("bytes").library.weights
    library = emitted("scaled").library
    assert library.create(other)[0] == "WEIGHTS_FOREIGN"
    mark = library.weights.read_bytes()[24:40].hex()  # which the linker compares
    assert f"scaled_identity_{mark}" in (library.folder / "scaled.c").read_text()
    assert f"scaled_identity_{mark}".encode() in (library.folder / "scaled.a").read_bytes()


def test_another_training_of_the_network(emitted, tmp_path: Path) -> None:
    """Its file suits the library, which has the same tables."""
    model, other = emitted("mixed"), compiled_text(MIXED, (3, 4), (2, 4))
    other.load_weights({"w": np.full((4,), 3, np.float32)})
    lucid.emit_c(other, tmp_path, name="mixed")
    status, handle = model.library.create(tmp_path / "mixed.bin")
    assert status == "OK"
    assert_same(Emitted(other, model.library), handle, 3)
    model.library.destroy(handle)


def test_calls_that_do_not_fit(emitted) -> None:
    model = emitted("scaled")
    library = model.library
    _, handle = library.create()
    arrays = model.arrays(2)
    outs = [np.zeros((2, 5, 8, 8), np.float32), np.zeros((2, 3, 8, 8), np.float32)]
    assert library.run_raw(None, None, 0, None, 0) == "NULL_ARGUMENT"
    assert library.run_raw(handle, None, 3, None, 2) == "NULL_ARGUMENT"
    assert library.run_raw(handle, None, 0, None, 0) == "BAD_COUNT"
    assert library.run(handle, arrays[:2], outs) == "BAD_COUNT"
    assert library.run(handle, arrays, outs[:1]) == "BAD_COUNT"
    null = (c_library.Input * 3)(), (c_library.Output * 2)()
    assert library.run_raw(handle, null[0], 3, null[1], 2) == "BAD_SIZE"
    short = [outs[0][:1], outs[1]]
    assert library.run(handle, arrays, short) == "BAD_SIZE"
    assert library.run(handle, arrays, outs, shaped=False) == "BAD_SIZE"
    assert library.run(handle, [*model.arrays(3)[:1], *arrays[1:]], outs) == "BAD_SHAPE"
    assert library.run(handle, [arrays[0][:, :, :4], *arrays[1:]], outs) == "BAD_SHAPE"
    assert library.run(handle, [arrays[0][:0], arrays[1][:0], arrays[2]], outs) == "BAD_SHAPE"
    assert library.run(handle, arrays, [outs[0], arrays[0]]) == "BAD_POINTER"
    assert (
        library.run(handle, arrays, [outs[0], outs[0].reshape(-1)[: outs[1].size]]) == "BAD_POINTER"
    )
    odd = np.zeros(outs[1].nbytes + 1, np.uint8)[1:]
    assert library.run(handle, arrays, [outs[0], odd]) == "BAD_POINTER"
    assert library.run(handle, arrays, outs) == "OK"
    library.destroy(handle)


def test_a_batch_that_no_plans_make_up(emitted) -> None:
    model = emitted("sums")
    _, handle = model.library.create()
    for batch in (1, 5, 17, 29):
        arrays, outs = model.arrays(batch), [np.zeros((batch, 4), np.float32)]
        assert model.library.run(handle, arrays, outs) == "BAD_SHAPE"
        assert model.library.output_shape([(batch, 4)], 0)[0] == "BAD_SHAPE"
    model.library.destroy(handle)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("scaled", b"image[Nx3x8x8], scale[2Nx3], shift[]"),
        ("quantised", b"[Nx3x8x8] (N made up of 2)"),
        ("mixed", b"x[3x4]; x[2x4]"),
        ("sums", b"x[Nx4] (N made up of 6, 10, 15)"),
    ],
)
def test_what_was_planned(name, shapes, emitted) -> None:
    told = emitted(name).library.error(STATUSES.index("BAD_SHAPE"))
    assert told.endswith(shapes)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("digits", "./digits image.ppm"),
        ("bytes", "./bytes bytes.bin image.ppm"),
        ("scaled", "./scaled scaled.bin input0.raw input1.raw input2.raw"),
    ],
)
def test_what_the_example_is_called_with(name, command, emitted) -> None:
    folder = emitted(name).library.folder
    assert f"{command}\n" in (folder / "README.md").read_text()
    assert f"main{command.removeprefix(f'./{name}')}\n" in (folder / "main.c").read_text()


def test_a_child_of_a_fork(emitted) -> None:
    """It is refused, and may destroy; the parent goes on."""
    model = emitted("scaled")
    _, handle = model.library.create(threads=2)
    arrays = model.arrays(1)
    outs = [np.zeros_like(w) for w in model.wanted(arrays)]
    child = os.fork()
    if child == 0:
        refused = model.library.run(handle, arrays, outs) == "FORKED"
        model.library.destroy(handle)
        os._exit(0 if refused else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_same(model, handle, 1)
    model.library.destroy(handle)


@pytest.mark.skipif(not HOST.is_x86 or LEVELS[HIGHEST].runs_here(), reason="it runs all levels")
def test_a_processor_that_lacks_the_instructions(tmp_path: Path) -> None:
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    compiled = compiled_text(MIXED, (3, 4))
    lucid.emit_c(compiled, tmp_path, name="mixed", targets=[HIGHEST], shared=True)
    library = Library(tmp_path, "mixed")
    assert library.create()[0] == "NO_PROCESSOR"
    assert HIGHEST.encode() in library.error(STATUSES.index("NO_PROCESSOR"))


# -- files ----------------------------------------------------------------------------------------


def test_equal_models_make_equal_files(emitted, tmp_path: Path) -> None:
    model = emitted("scaled")
    lucid.emit_c(scaled(), tmp_path, name="scaled", targets=TWO[::-1], shared=True)
    for path in sorted(model.library.folder.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_nothing_else_than_the_c_library_is_needed(emitted) -> None:
    library = emitted("digits").library
    path = library.folder / "digits.so"
    exported = _told("nm", "-D", "--defined-only", path)
    assert {line.split()[-1].split("_")[0] for line in exported.splitlines()} == {"digits"}
    assert "kernel" not in exported
    wanted = [line.split() for line in _told("nm", "-u", path.with_suffix(".a")).splitlines()]
    assert all(words[1].startswith("digits_") for words in wanted if words and words[0] == "U")
    needed = _told("readelf", "-d", path)
    assert [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "NEEDED" in line] == [
        "libc.so.6"
    ]
    assert "GNU_STACK" in (told := _told("readelf", "-lW", path))
    assert "RWE" not in told
    assert path.stat().st_size < 3 << 20


def _told(*command: Any) -> str:
    try:
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        pytest.skip(f"there is no {command[0]}")


def test_what_cannot_be_emitted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compiled at its first call"):
        lucid.emit_c(lucid.compile(resnest_digits(), threads=1), tmp_path)
    compiled = compiled_text(MIXED, (3, 4))
    for name in ("My net", "time", "pthread"):
        with pytest.raises(InputError, match=f"'(my_net|m_{name})', not '{name}'"):
            lucid.emit_c(compiled, tmp_path, name=name)
    with pytest.raises(InputError, match="for one architecture"):
        lucid.emit_c(compiled, tmp_path, targets=["x86-64", "aarch64"])
    assert not list(tmp_path.iterdir())
    with pytest.warns(lucid.HostOpsWarning):
        hosted = compiled_text(
            "graph hosted(%x: f32[2,3], %w: f32[4,3]) -> f32[2,4] {\n"
            "  %y = linear(%x, %w) : f32[2,4]\n  return %y\n}\n",
            ((2, 3), (4, 3)),
        )
    with pytest.raises(UnsupportedError, match="run in NumPy:\n  linear in the model"):
        lucid.emit_c(hosted, tmp_path)
