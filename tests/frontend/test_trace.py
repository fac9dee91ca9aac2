"""Tracing: what a graph looks like, and what a forward may not do."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.errors import InputError, LucidError, ShapeError, TraceError
from lucid.frontend.tensor import Tensor
from lucid.ir.interpret import interpret
from lucid.ir.text import parse_graph
from lucid.ir.verify import verify
from lucid.nn import functional as F


class Model(nn.Module):
    """A convolution and a forward of the test's choice."""

    def __init__(self, forward: Callable[..., object]) -> None:
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.scale = nn.Parameter(np.full((8, 1, 1), 2.0))
        self.function = forward

    def forward(self, x: Tensor) -> object:
        return self.function(self, self.conv(x))


SHAPE = (1, 3, 6, 5)


def agrees(forward: Callable[..., object], shape: tuple[int, ...] = SHAPE) -> lucid.ir.Graph:
    """Trace, and compare the graph with eager evaluation for a batch of 2."""
    model = Model(forward)
    graph = lucid.trace(model, shape)
    verify(graph)
    assert parse_graph(str(graph)) == graph
    x = lucid.random.randn(2, *shape[1:])
    eager = model(x)
    results = interpret(graph, [x.numpy()])
    for result, wanted in zip(
        results, eager if isinstance(eager, tuple) else (eager,), strict=True
    ):
        np.testing.assert_allclose(result, wanted.numpy(), rtol=1e-5, atol=1e-6)
    return graph


def test_the_text_of_a_graph() -> None:
    def block(m: Model, y: Tensor) -> Tensor:
        y += m.scale
        return F.relu(y).mean((2, 3))

    graph = lucid.trace(Model(block), SHAPE)
    lines = [line.strip() for line in str(graph).splitlines()]
    assert lines[0] == "graph Model(%x: f32[N,3,6,5]) -> f32[N,8] {"
    assert "param @conv.weight: f32[8,3,3,3]" in lines
    assert "param @scale: f32[8,1,1]" in lines
    convolution = next(line for line in lines if "conv2d(" in line)
    assert convolution == (
        "%conv2d = conv2d(%x, @conv.weight, @conv.bias) {padding=(1,1,1,1)} "
        ': f32[N,8,6,5] at "conv"'
    )


def test_nodes_know_the_users_line() -> None:
    def forward(m: Model, y: Tensor) -> Tensor:
        return y.relu()

    line = inspect.getsourcelines(forward)[1] + 1
    graph = lucid.trace(Model(forward), SHAPE)
    assert graph.nodes[-1].location == f"{__file__}:{line}"


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, y: y * 2 + 1,
        lambda m, y: 1 - y / 3.0,
        lambda m, y: np.float32(2) * y,
        lambda m, y: np.arange(5.0, dtype=np.float32) + y,
        lambda m, y: y - np.ones((8, 1, 1), np.float32),
        lambda m, y: y * m.scale,
        lambda m, y: y * (m.scale * 2).sigmoid(),
        lambda m, y: y.reshape(y.shape[0], 2, -1, 30).sum(1),
        lambda m, y: y.view(-1, 2, 4, 6, 5).transpose(1, 2).reshape(y.shape),
        lambda m, y: y.reshape(y.shape[0] * 2, 4, 6, 5).mean((2, 3)).reshape(-1, 8),
        lambda m, y: y.permute(0, 2, 3, 1).softmax(-1),
        lambda m, y: y.flatten(1) @ np.ones((240, 3), np.float32),
        lambda m, y: y[:, 2:6, ::2, -1],
        lambda m, y: y[..., None, 1:].squeeze(3),
        lambda m, y: F.concat([y, y.relu()], dim=1).amax((1,), keepdim=True),
        lambda m, y: tuple(part.exp() for part in y.chunk(3, dim=1)),
        lambda m, y: y.split([3, 5], dim=1)[1].sum(),
        lambda m, y: y.mean(1, keepdim=True).expand(-1, 4, -1, -1),
        lambda m, y: y.mean(1, keepdim=True).expand(y.shape[0], 4, 6, 5),
        lambda m, y: (abs(y) + 1).rsqrt().clamp(0.2, 0.9).tanh().unsqueeze(-1),
        lambda m, y: y * y.shape[2] + int(y.shape[3]),
        lambda m, y: F.batch_norm(y, np.zeros(8, np.float32), np.ones(8, np.float32)),
        lambda m, y: F.dropout(y).contiguous().detach().sqrt() * 0,
        lambda m, y: nn.Sequential(nn.ReLU(), nn.Identity())(y),
    ],
)
def test_forwards_that_trace(forward: Callable[..., object]) -> None:
    if "sqrt() * 0" in inspect.getsource(forward):
        with np.errstate(invalid="ignore"):
            agrees(forward)
    else:
        agrees(forward)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, y: y if y.sum() else -y, r"branches on a traced tensor \(bool"),
        (lambda m, y: y if y.sum() > 0 else -y, "compares a traced tensor"),
        (lambda m, y: y if 0 == y.sum() else -y, "compares a traced tensor"),  # noqa: SIM300
        (lambda m, y: y * float(y.sum()), r"calls float\(\)"),
        (lambda m, y: y[:, int(y.sum())], r"calls int\(\)"),
        (lambda m, y: y * y.sum().item(), r"item\(\)"),
        (lambda m, y: y + y.numpy(), r"numpy\(\)"),
        (lambda m, y: np.maximum(y, 0), r"numpy\(\)"),
        (lambda m, y: np.from_dlpack(y), "DLPack"),
        (lambda m, y: y * m.scale.numpy(), "reads the values of a parameter"),
        (lambda m, y: y if y.shape[0] > 1 else -y, "compares the batch size"),
        (lambda m, y: y if y.shape[0] == 1 else -y, "compares the batch size"),
        (lambda m, y: y if y.shape[0] else -y, "branches on the batch size"),
        (lambda m, y: y * int(y.shape[0]), "needs the batch size as a number"),
        (lambda m, y: y.reshape(y.shape[0] // 2, -1), "divides the batch size"),
        (lambda m, y: y.reshape(y.shape[0] + 1, -1), "adds to the batch size"),
        (lambda m, y: y.reshape(y.shape[0] * 1.5, -1), r"multiplies the batch size by 1\.5"),
        (lambda m, y: y / y.shape[0], "computes with the batch size"),
        (lambda m, y: sum(range(y.shape[0])), "batch size as a number"),
        (lambda m, y: y[0], "takes a part of the batch"),
        (lambda m, y: [row for row in y][0], "batch size as a number"),  # noqa: C416, RUF015
        (lambda m, y: y * Model(None).scale, "a parameter .* of no module"),
        (lambda m, y: y.flatten(1) @ np.ones((240, 100), np.float32), "register_buffer"),
        (lambda m, y: lucid.trace(m, SHAPE), "being traced"),
    ],
)
def test_forwards_that_do_not_trace(forward: Callable[..., object], message: str) -> None:
    line = inspect.getsourcelines(forward)[1]
    with pytest.raises(TraceError, match=message) as error:
        lucid.trace(Model(forward), SHAPE)
    assert f"{__file__}:{line}" in str(error.value)


def test_the_module_is_named() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool(x.sum()) else -x

    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), Inner()))
    with pytest.raises(TraceError, match=r"test_trace\.py:\d+, in 1\.1: "):
        lucid.trace(model, SHAPE)


def test_misfit_shapes_name_module_and_line() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(9, 8, 3))
    with pytest.raises(ShapeError, match=r"conv2d: .* at .*test_trace\.py:\d+, in 1"):
        lucid.trace(model, (1, 3, 16, 16))


@pytest.mark.parametrize(
    "returned", [None, 3, {"y": 1}, np.ones(3), Tensor(np.ones(3, np.float32)), (None,)]
)
def test_a_forward_must_return_computed_tensors(returned: object) -> None:
    with pytest.raises(TraceError, match="the forward of Model returns"):
        lucid.trace(Model(lambda m, y: returned), SHAPE)


def test_tensors_do_not_outlive_their_trace() -> None:
    kept = []

    def keep(m: Model, y: Tensor) -> Tensor:
        kept.append(y)
        return y

    lucid.trace(Model(keep), SHAPE)
    with pytest.raises(TraceError, match="after its trace has ended"):
        kept[0] + 1
    with pytest.raises(TraceError, match="after its trace has ended"):
        lucid.trace(Model(lambda m, y: y + kept[0]), SHAPE)


@pytest.mark.parametrize("shape", [(), (1, 0, 2), ("N", 3), 3, "abc", (1, -3), (1.0, 3), (True, 3)])
def test_the_shape_must_be_ints(shape: object) -> None:
    with pytest.raises(InputError, match="input_shape"):
        lucid.trace(nn.ReLU(), shape)


def test_only_modules_are_traced() -> None:
    with pytest.raises(InputError, match=r"lucid\.nn\.Module"):
        lucid.trace(lambda x: x, SHAPE)
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        lucid.trace(nn.Module(), SHAPE)


def test_a_failed_trace_leaves_nothing_behind() -> None:
    with pytest.raises(LucidError):
        lucid.trace(Model(lambda m, y: bool(y)), SHAPE)
    assert Model(lambda m, y: y.relu())(lucid.random.randn(*SHAPE)).shape == (1, 8, 6, 5)


def test_what_does_not_fit_a_layer_alone_is_told_with_the_users_line() -> None:
    with pytest.raises(InputError, match=r"the weight takes 3 .* at .*test_trace\.py:\d+$"):
        lucid.compile(nn.Conv2d(3, 4, 1), (1, 4, 8, 8), threads=1)
