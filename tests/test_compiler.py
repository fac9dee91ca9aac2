"""`lucid.compile`: its arguments, its stages, graphs as models, and what it refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
from data import golden

import lucid
from lucid import nn
from lucid.codegen.lowering.context import LOWERINGS
from lucid.codegen.scheduling.schedule import Schedule
from lucid.errors import (
    HostOpsWarning,
    InputError,
    UnknownNameError,
    UnsupportedError,
    WeightsError,
)
from lucid.ir.interpret import interpret
from lucid.ir.ops import MatMul
from lucid.ir.passes import PIPELINE
from lucid.ir.text import parse_graph
from lucid.runtime.signature import as_html

SHAPE = (1, 3, 16, 16)


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return self.second(nn.functional.relu(self.norm(self.conv(x))))


@pytest.fixture(scope="module")
def net() -> Net:
    return Net()


@pytest.fixture(scope="module")
def fast(net: Net) -> lucid.CompiledModel:
    return lucid.compile(net, SHAPE, threads=1)


# -- stages -------------------------------------------------------------------------------------


def test_there_is_text_at_every_stage(net: Net, fast: lucid.CompiledModel) -> None:
    texts = {stage: fast.ir(stage) for stage in fast.stages()}

    assert next(iter(texts)) == "captured"
    assert set(PIPELINE) < set(texts)
    assert texts["captured"] == str(lucid.trace(net, SHAPE))
    assert texts["canonical"] == texts["canonicalise"]
    assert "= batch_norm(" in texts["canonical"]
    assert "= batch_norm(" not in texts["fold-batch-norm"]
    assert texts["fused"] == texts[PIPELINE[-1]] == str(fast.graph()) == fast.ir()
    assert texts["scheduled"].startswith(f"program Net target={fast.target.name} batch=1")
    kernels = fast.program().kernels()
    assert re.findall("^; kernel ", texts["llvm"], re.M) == ["; kernel "] * len(kernels)
    assert re.findall("^# kernel ", texts["asm"], re.M) == ["# kernel "] * len(kernels)
    assert "define void @" in texts["llvm"]
    assert ".globl" in texts["asm"]


def test_stages_of_another_size(fast: lucid.CompiledModel) -> None:
    assert "f32[N,3,5,7]" in fast.ir("captured", (2, 3, 5, 7))
    assert "batch=2" in fast.ir("scheduled", (2, 3, 5, 7))


def test_an_unknown_stage_is_answered_with_the_names(fast: lucid.CompiledModel) -> None:
    with pytest.raises(UnknownNameError, match=r"no stage is named 'fuse'; .*captured.*scheduled"):
        fast.ir("fuse")


def test_before_the_first_call_looking_needs_a_shape(net: Net) -> None:
    lazy = lucid.compile(net, threads=1)
    for look in (lazy.ir, lazy.graph, lazy.program, lambda: lazy.schedule):
        with pytest.raises(InputError, match="give a shape to look before"):
            look()
    assert "batch_norm" in lazy.ir("captured", SHAPE)
    assert lazy.program(SHAPE).batch == 1


def test_the_repr_says_what_it_is(net: Net, fast: lucid.CompiledModel) -> None:
    signature = "x: float32[N,3,16,16] -> conv2d_1: float32[N,8,16,16]"
    assert repr(fast) == f"<CompiledModel Net: {signature}; {fast.target.name}, 1 thread>"
    lazy = lucid.compile(net, threads=2)
    assert repr(lazy) == f"<CompiledModel Net: not compiled yet; {fast.target.name}, 2 threads>"
    shown = fast._repr_html_()
    for cell in ("<td>x</td>", "<td>float32</td>", "<td>N × 3 × 16 × 16</td>", "<td>output</td>"):
        assert cell in shown
    assert "Net" in lazy._repr_html_()


def test_inputs_and_outputs(net: Net) -> None:
    class Two(nn.Module):
        name = "<two>"

        def forward(self, image):
            return image.mean((2, 3)), image.reshape(-1, 16, 16)

    fast = lucid.compile(Two(), (4, 3, 16, 16), threads=1)
    assert fast.inputs == (("image", "float32", ("N", 3, 16, 16)),)
    assert [(o.dtype, o.shape) for o in fast.outputs] == [
        ("float32", ("N", 3)),
        ("float32", ("3N", 16, 16)),
    ]
    assert fast.outputs[0].name != fast.outputs[1].name
    lazy = lucid.compile(net, threads=1)
    with pytest.raises(InputError, match="compiled at its first call"):
        _ = lazy.inputs
    lazy(np.zeros((2, 3, 8, 8), np.float32))
    lazy(np.zeros((2, 3, 16, 16), np.float32))
    assert lazy.inputs[0].shape == ("N", 3, 8, 8)  # the first
    images = lucid.compile(net, (1, 8, 8, 3), input="uint8_nhwc", threads=1)
    assert images.inputs[0][1:] == ("uint8", ("N", 8, 8, 3))
    assert "&lt;b&gt;" in as_html("<b>", "", None)


# -- options ------------------------------------------------------------------------------------


def test_a_disabled_pass_does_not_run(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    x = golden.image(2, 16, 16)
    options = lucid.CompileOptions(disable=["fuse-epilogue"])
    fast = lucid.compile(net, SHAPE, options=options)
    assert "fusion(" not in fast.ir()
    assert "fuse-epilogue" not in fast.stages()
    monkeypatch.setenv("LUCID_DISABLE", "fuse-epilogue,canonicalise")
    other = lucid.compile(net, SHAPE)
    assert other.ir() == fast.ir()
    assert "canonicalise" not in other.stages()
    (expected,) = interpret(lucid.trace(net, SHAPE), [x], dtype=np.float64)
    for one in (fast, other):
        np.testing.assert_allclose(one(x), expected, atol=1e-5)

    with pytest.raises(UnknownNameError, match="fuse-epilog"):
        lucid.compile(net, SHAPE, options=lucid.CompileOptions(disable=["fuse-epilog"]))


def test_kernels_are_forced_by_module_path(net: Net) -> None:
    options = lucid.CompileOptions(kernels={"second": "winograd2x2"})
    fast = lucid.compile(net, SHAPE, options=options)
    kernels = [choice.kernel for choice in fast.schedule.choices.values()]
    assert kernels[-1] == "winograd2x2"

    again = Schedule.from_json(fast.schedule.to_json())
    other = lucid.compile(net, SHAPE, options=lucid.CompileOptions(schedule=again))
    x = golden.image(2, 16, 16)
    np.testing.assert_array_equal(other(x), fast(x))


def test_strict_precision_leaves_out_large_tiles(net: Net) -> None:
    fast = lucid.compile(net, SHAPE, precision="strict")
    assert "winograd4x4" not in {c.kernel for c in fast.schedule.choices.values()}


def test_progress_is_told(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lucid.runtime import kernel_compiler, library

    monkeypatch.setattr(library, "_libraries", {})
    monkeypatch.setattr(kernel_compiler, "EACH", 1)
    monkeypatch.setattr(kernel_compiler, "available_processors", lambda: 1)
    monkeypatch.setenv("LUCID_CACHE_DIR", str(tmp_path))
    told: list[tuple[str, int, int]] = []
    lucid.compile(net, SHAPE, progress=lambda *now: told.append(now))
    for what in ("kernels", "weights"):
        steps = [(done, count) for name, done, count in told if name == what]
        count = steps[0][1]
        assert steps == [(done, count) for done in range(count + 1)]

    monkeypatch.setattr(library, "_libraries", {})
    told.clear()
    lucid.compile(net, SHAPE, progress=lambda *now: told.append(now))  # all is in the cache
    assert [done == count for name, done, count in told if name == "kernels"] == [True]


def test_without_a_cache_nothing_is_kept(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lucid.runtime import library

    monkeypatch.setattr(library, "_libraries", {})
    monkeypatch.setenv("LUCID_CACHE_DIR", str(tmp_path / "cache"))
    lucid.compile(net, SHAPE, threads=1, cache=False)
    assert not (tmp_path / "cache").exists()


def test_threads_come_from_the_environment(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCID_NUM_THREADS", "3")
    assert lucid.compile(net).threads == 3
    assert lucid.compile(net, threads=2).threads == 2


def test_an_example_is_no_shape(net: Net) -> None:
    example = np.zeros((1, 3, 16, 20), np.float32)
    for given in (example, (example,), [example], lucid.Tensor(example)):
        with pytest.raises(InputError, match=r"tuple\(x.shape\), which is \(1, 3, 16, 20\)$"):
            lucid.compile(net, given)  # type: ignore[arg-type]
    assert lucid.compile(net, np.array(SHAPE), threads=1).input_shape == SHAPE  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 20, 16), (1, 20, 16, 3), (20, 16, 3)])
def test_a_shape_without_a_batch_or_with_channels_last(net: Net, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"did you mean the shape \(1, 3, 20, 16\)\?$"):
        lucid.compile(net, shape)
    with pytest.raises(InputError, match=r"x has 4 channels, but the weight takes 3[^?]*$"):
        lucid.compile(net, (1, 4, 20, 16))
    if len(shape) == 3:
        with pytest.raises(InputError, match=r"did you mean the shape \(1, 20, 16, 3\)\?$"):
            lucid.compile(net, shape, input="uint8_nhwc")


def test_options_are_an_object(net: Net) -> None:
    for options in ({"target": "host"}, {}, ["passes"]):
        with pytest.raises(InputError, match=r"lucid.CompileOptions\(target=.*, not a (dict|list)"):
            lucid.compile(net, SHAPE, options=options)  # type: ignore[arg-type]


def test_automatic_threads_are_what_the_process_may_use(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCID_NUM_THREADS", "3")
    for threads in ("auto", None):
        fast = lucid.compile(net, SHAPE, threads=threads)  # type: ignore[arg-type]
        assert (fast.threads, fast.threads_asked) == (3, None)
    assert lucid.compile(net, SHAPE, threads=2).threads_asked == 2


def test_wrong_arguments_are_refused(net: Net) -> None:
    for threads in (0, -1, 1.5, True, "2", "AUTO"):
        with pytest.raises(InputError, match="threads must be a positive integer or 'auto'"):
            lucid.compile(net, SHAPE, threads=threads)  # type: ignore[arg-type]
    for shape in (5, "abc", (1, 3, -2, 4), (1, 3.5, 2, 2), (1, 3, None, 2)):
        with pytest.raises(InputError, match="a shape must be integers, batch first"):
            lucid.compile(net, shape)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"must be ints, batch first, .* got \(\)"):
        lucid.compile(net, ())
    with pytest.raises(UnknownNameError, match="precision is one of fast, strict, bf16, not"):
        lucid.compile(net, precision="half")
    with pytest.raises(UnknownNameError, match="no target is named 'z80'"):
        lucid.compile(net, options=lucid.CompileOptions(target="z80"))
    with pytest.raises(InputError, match=r"a model is a lucid.nn.Module, .* got 'resnest_50'"):
        lucid.compile("resnest_50")


def test_a_target_of_another_machine_is_refused(net: Net) -> None:
    other = "aarch64" if lucid.compile(net).target.is_x86 else "x86-64"
    with pytest.raises(UnknownNameError, match=f"cannot run {other}"):
        lucid.compile(net, options=lucid.CompileOptions(target=other))


def test_a_shape_that_does_not_fit_the_model(net: Net) -> None:
    with pytest.raises(InputError, match=r"Net takes no f32\[N,5,16,16\]: .*channels"):
        lucid.compile(net, (1, 5, 16, 16))


def test_unsupported_ops_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LOWERINGS, MatMul)

    class Odd(nn.Module):
        def forward(self, x):
            return (x @ x) @ x

    with pytest.raises(
        UnsupportedError, match=r"(?s)2 ops of this model have no kernel:.*matmul.*matmul"
    ):
        lucid.compile(Odd(), (1, 3, 4, 4), options=lucid.CompileOptions(host_ops="refuse"))
    with pytest.warns(HostOpsWarning, match=r"2 ops of Odd .*\n  matmul, 2 times, first in "):
        lucid.compile(Odd(), (1, 3, 4, 4))


def test_a_convolution_by_computed_weights_is_unsupported() -> None:
    text = """graph g(%x: f32[N,3,4,4]) -> f32[N,1,4,4] {
        %m = mean(%x) {axes=(0,2,3)} : f32[3]
        %w = reshape(%m) {shape=(1,3,1,1)} : f32[1,3,1,1]
        %y = conv2d(%x, %w) : f32[N,1,4,4]
        return %y
    }"""
    options = lucid.CompileOptions(host_ops="refuse")
    with pytest.raises(UnsupportedError, match="its weights are computed, not parameters"):
        lucid.compile(parse_graph(text), options=options)


# -- graphs as models ---------------------------------------------------------------------------


def test_a_traced_graph_compiles(net: Net, fast: lucid.CompiledModel) -> None:
    graph = lucid.trace(net, SHAPE)
    compiled = lucid.compile(graph, threads=1)
    x = golden.image(3, 16, 16)
    np.testing.assert_array_equal(compiled(x), fast(x))
    assert graph == lucid.trace(net, SHAPE)  # compiling changed nothing in it


def test_a_graph_has_one_image_size(net: Net) -> None:
    compiled = lucid.compile(lucid.trace(net, SHAPE), threads=1)
    message = (
        r"x wants f32\[N,3,16,16\] .*, got float32\[1,3,8,16\]: .* has one size: f32\[N,3,16,16\]"
    )
    with pytest.raises(InputError, match=message):
        compiled(golden.image(1, 8, 16))
    with pytest.raises(InputError, match="has one size"):
        lucid.compile(lucid.trace(net, SHAPE), (1, 3, 8, 16))


def test_a_graph_from_text_runs_with_its_payload(net: Net, fast: lucid.CompiledModel) -> None:
    text = str(lucid.trace(net, SHAPE))
    values = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    graph = parse_graph(text)
    graph.payload = values
    compiled = lucid.compile(graph, threads=1)
    x = golden.image(2, 16, 16)
    np.testing.assert_array_equal(compiled(x), fast(x))

    other = {name: 2 * value for name, value in values.items()}
    expected = lucid.compile(net, SHAPE, threads=1).load_weights(other)(x)
    np.testing.assert_array_equal(compiled.load_weights(other)(x), expected)


def test_a_graph_without_values_says_which(net: Net) -> None:
    graph = parse_graph(str(lucid.trace(net, SHAPE)))
    with pytest.raises(WeightsError, match=r"(?s)payload does not fit Net.*missing: conv.weight"):
        lucid.compile(graph)
    graph.payload = {n: np.zeros(t.shape, np.float32) for n, t in net.state_dict().items()}
    graph.payload["second.bias"] = np.zeros(9, np.float32)
    with pytest.raises(WeightsError, match=r"second.bias: expected shape \[8\], got \[9\]"):
        lucid.compile(graph)
