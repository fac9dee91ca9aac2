"""nn.LSTM, nn.GRU and nn.RNN: stacks, both directions, states and layouts, against torch."""

import numpy as np
import pytest

import lucid
from lucid.errors import UnsupportedError
from lucid.ir.ops import Recurrent

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from lucid.frontend.torch import import_torch  # noqa: E402

STEPS, DEPTH, SIZE = 5, 4, 6
LAYERS = {
    "lstm": nn.LSTM(DEPTH, SIZE, batch_first=True),
    "lstm, both ways, stacked": nn.LSTM(
        DEPTH, SIZE, 2, batch_first=True, bidirectional=True, dropout=0.5
    ),
    "gru": nn.GRU(DEPTH, SIZE, 2, batch_first=True),
    "gru without biases": nn.GRU(DEPTH, SIZE, batch_first=True, bidirectional=True, bias=False),
    "rnn": nn.RNN(DEPTH, SIZE, batch_first=True, bidirectional=True),
    "rnn of relu": nn.RNN(DEPTH, SIZE, batch_first=True, nonlinearity="relu"),
}


class Everything(nn.Module):
    """The result and the last states, sequences first."""

    def __init__(self, layer, zeros=True):
        super().__init__()
        self.layer, self.zeros = layer, zeros

    def forward(self, x):
        given = None if self.zeros else x.mean((1, 2)).expand(1, SIZE, -1).transpose(1, 2) * 0.5
        y, last = self.layer(x, given)
        last = last if isinstance(last, tuple) else (last,)
        return y, *(state.transpose(0, 1) for state in last)


class Turned(nn.Module):
    """Time first, as is torch's default."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.transpose(0, 1))[0].transpose(0, 1)


def assert_same(module, shape=(1, STEPS, DEPTH)):
    """As torch, for another batch and another length."""
    compiled = lucid.compile(module, shape)
    for n, steps in ((3, STEPS), (2, STEPS + 2)):
        x = torch.randn(n, steps, DEPTH, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = module(x)
        given = compiled(x.numpy())
        results = given if isinstance(given, tuple) else (given,)
        for value, right in zip(results, wanted if len(results) > 1 else (wanted,), strict=True):
            np.testing.assert_allclose(np.asarray(value), right.numpy(), rtol=1e-4, atol=1e-5)
    return compiled


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    assert_same(Everything(LAYERS[name].eval()))


def test_states_that_are_given():
    assert_same(Everything(LAYERS["rnn of relu"].eval(), zeros=False))


def test_time_first():
    """The layout is undone: no sequence waits for another."""
    module = Turned(nn.LSTM(DEPTH, SIZE, 2, bidirectional=True)).eval()
    compiled = assert_same(module)
    graph = lucid.ir.parse_graph(compiled.ir("fused"))
    assert len(graph.find(Recurrent)) == 2
    assert lucid.ir.batch.mixing_node(graph) is None
    assert [n.op.name for n in graph.nodes if n.op.name in ("permute", "reshape", "slice")] == []


def test_projections_are_refused():
    module = Everything(nn.LSTM(DEPTH, SIZE, proj_size=3, batch_first=True))
    with pytest.raises(UnsupportedError, match=r"aten.lstm.input in layer.*projected"):
        import_torch(module, (1, STEPS, DEPTH))
