"""Modules: their parts, their state, lazy parameters, and the containers."""

import copy

import numpy as np
import pytest

import lucid
from lucid import Tensor, nn
from lucid.errors import LucidError, WeightsError
from lucid.nn.parameter import Fill, Initial, Normal


class Block(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.gain = nn.Parameter(np.ones(2))
        self.register_buffer("table", np.zeros(3))
        self.register_buffer("nothing", None)
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def test_iteration() -> None:
    model = nn.Sequential(Block(), nn.ReLU())
    assert [n for n, _ in model.named_parameters()] == [
        "0.gain",
        "0.conv.weight",
        "0.norm.weight",
        "0.norm.bias",
    ]
    assert [n for n, _ in model.named_buffers("net")] == [
        "net.0.table",
        "net.0.norm.running_mean",
        "net.0.norm.running_var",
    ]
    assert [n for n, _ in model.named_modules()] == ["", "0", "0.conv", "0.norm", "1"]
    assert [n for n, _ in model.named_children()] == ["0", "1"]
    assert list(model.state_dict())[:3] == ["0.gain", "0.table", "0.conv.weight"]
    assert len(list(model.parameters())) == 4
    assert len(list(model.buffers())) == 3
    assert len(list(model.modules())) == 5
    assert [n for n, _ in model[0].named_parameters(recurse=False)] == ["gain"]
    assert model.get_submodule("0.conv") is model[0].conv
    with pytest.raises(AttributeError):
        model.get_submodule("0.absent")


def test_shared_parts_count_once() -> None:
    model = nn.Module()
    model.first = nn.Linear(2, 2)
    model.second = model.first
    assert list(model.state_dict()) == ["first.weight", "first.bias"]
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert list(tied.state_dict()) == ["0.weight", "0.bias", "1.bias"]


def test_modes() -> None:
    model = Block()
    assert model.eval() is model
    assert model.train(False) is model
    assert not model.training
    with pytest.raises(LucidError, match=r"Block\.train\(\): Lucid runs networks"):
        model.train()


def test_repr() -> None:
    assert repr(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU())) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)\n"
        "  (1): ReLU()\n"
        ")"
    )
    for part in (
        nn.Linear(2, 3),
        nn.BatchNorm2d(4),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.GELU("tanh"),
        nn.Softmax(1),
        nn.Conv2d(4, 4, 3, dilation=2, groups=4),
    ):
        assert repr(part).startswith(f"{type(part).__name__}(")
    assert "not yet read" in repr(nn.Linear(2, 3).weight)


def test_parameters_are_made_when_first_needed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    weight = model[1].weight
    assert not weight.materialised
    assert weight.shape == (4, 4, 3, 3)
    payload = lucid.trace(model, (1, 3, 8, 8)).payload
    assert not weight.materialised
    before = np.asarray(payload["1.weight"])
    assert not weight.materialised
    model(lucid.random.randn(1, 3, 8, 8))
    assert weight.materialised
    np.testing.assert_array_equal(weight.numpy(), before)
    assert np.abs(before).max() <= 1 / 6
    assert np.abs(before).max() > 0.15
    with pytest.raises(ValueError, match="read-only"):
        weight.numpy()[0] = 0


def test_initial_values_follow_seed_name_and_shape() -> None:
    def weights() -> list[np.ndarray]:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 4))
        return [p.numpy() for n, p in model.named_parameters() if n.endswith("weight")]

    first, again = weights(), weights()
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], first[1])
    lucid.random.seed(1)
    assert not np.array_equal(weights()[0], first[0])
    lucid.random.seed(0)
    np.testing.assert_array_equal(weights()[0], first[0])

    nested = nn.Sequential(nn.Sequential(nn.Linear(3, 3)))
    initial = nested[0][0].weight.stored
    assert isinstance(initial, Initial)
    assert initial.key == "0.0.weight"


def test_initialise_and_assign() -> None:
    weight = nn.Linear(50, 40).weight
    weight.initialise(Fill(3.0))
    assert (weight.numpy() == 3).all()
    weight.initialise(Normal(0.5))
    assert abs(weight.numpy().std() - 0.5) < 0.03
    weight.assign(np.ones((40, 50)))
    assert weight.numpy().dtype == np.float32
    with pytest.raises(WeightsError, match=r"\[40, 50\] cannot take values \[2\]"):
        weight.assign(np.ones(2))


def test_a_payload_survives_other_weights() -> None:
    model = nn.Linear(2, 2)
    graph = lucid.trace(model, (1, 2))
    before = np.asarray(graph.payload["weight"]).copy()
    model.load_state_dict({"weight": np.ones((2, 2)), "bias": np.ones(2)})
    np.testing.assert_array_equal(np.asarray(graph.payload["weight"]), before)


def test_models_can_be_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    twin = copy.deepcopy(model)
    x = lucid.random.randn(1, 2)
    np.testing.assert_array_equal(twin(x).numpy(), model(x).numpy())


def test_containers() -> None:
    model = nn.Sequential({"first": nn.ReLU(), "then": nn.Identity()}, nn.Flatten())
    assert [n for n, _ in model.named_children()] == ["first", "then", "2"]
    assert model(Tensor(-np.ones((1, 2, 3), np.float32))).numpy().tolist() == [[0.0] * 6]
    layers = nn.ModuleList([nn.ReLU()]).append(nn.Identity()).extend([nn.Tanh()])
    assert len(layers) == 3
    assert [type(m).__name__ for m in layers] == ["ReLU", "Identity", "Tanh"]
    assert layers[-1] is list(layers.children())[2]
    assert len(layers[1:]) == 2
    with pytest.raises(NotImplementedError):
        layers(Tensor([1.0]))
