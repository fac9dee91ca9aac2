"""PyTorch's operators of order, indices and running totals, as graphs, against torch itself."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from test_torch_import import IMAGE, LINE, agrees, parameter  # noqa: E402
from test_torch_import import Applied as Module  # noqa: E402

from lucid.errors import UnsupportedError  # noqa: E402
from lucid.frontend.torch import import_torch  # noqa: E402

F = torch.nn.functional


def order(x: Any, dim: int = -1) -> Any:
    """Indices that depend on the elements of x."""
    return x.argsort(dim)


def one(x: Any) -> Any:
    """What does not depend on how many images there are but on their elements."""
    return x.mean(0)


ROWS = torch.tensor([2, 0, 1, 2])
FUNCTIONS: dict[str, Any] = {
    "topk": lambda x: x.topk(3),
    "topk, smallest along an axis": lambda x: x.topk(2, 1, largest=False, sorted=False),
    "sort": lambda x: x.sort(),
    "sort, descending": lambda x: x.sort(dim=1, descending=True, stable=True),
    "argsort": lambda x: (
        x.argsort(),
        x.argsort(1, descending=True),
        torch.argsort(x, stable=True),
    ),
    "msort": lambda x: torch.msort(one(x)),
    "kthvalue": lambda x: (*x.kthvalue(2), *x.kthvalue(3, 1, keepdim=True)),
    "median": lambda x: (*x.median(1), *x.median(-1, keepdim=True)),
    "cumsum": lambda x: (x.cumsum(1), x.cumsum(-1), torch.cumsum(x, 2)),
    "cumprod": lambda x: x.cumprod(1),
    "tril, triu": lambda x: (x.tril(), x.triu(-2), x.tril(1)),
    "gather": lambda x: (x.gather(1, order(x, 1)), x.gather(-1, order(x)[:, :3, :4])),
    "take_along_dim": lambda x: torch.take_along_dim(one(x), order(one(x))[:1], -1),
    "index_select": lambda x: x.index_select(1, order(one(x)[:3, 0])),
    "embedding": lambda x: F.embedding(order(x), torch.arange(20.0, dtype=x.dtype).reshape(10, 2)),
    "index, one": lambda x: x[:, order(one(x)[:, 0])],
    "index, two dimensions": lambda x: x[:, order(one(x)[:4], 0)],
    "index, side by side": lambda x: x[:, order(one(x)[:, 0]), order(one(x)[:8, 0])],
    "index, broadcast": lambda x: x[:, order(one(x)[:3, 0])[:, None], order(one(x)[0])],
    "index, known and computed": lambda x: x[:, ROWS, order(one(x)[0, :4])],
    "index, negative": lambda x: x[:, order(one(x)[:, 0]) - 8],
    "flip": lambda x: x.flip(1, 2),
    "roll": lambda x: (x.roll(3, 1), x.roll((1, -2), (1, 2)), one(x).roll(7)),
    "diagonal": lambda x: (x.diagonal(0, 1, 2), x.diagonal(2, -1, 1), x.diagonal(-1, 1, 2)),
    "scatter": lambda x: torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.0),
    "scatter, source": lambda x: x.scatter(1, order(x, 1)[:, :5], x * 2),
    "scatter, reduce": lambda x: x.scatter(2, order(x) // 2, x, reduce="multiply"),
    "scatter_add": lambda x: x.scatter_add(2, order(x) // 3, x.cos()),
    "scatter_reduce": lambda x: tuple(
        x.scatter_reduce(1, order(x, 1) // 2, x.sin(), kind, include_self=own)
        for kind in ("sum", "prod", "mean", "amax", "amin")
        for own in (False, True)
    ),
    "index_put": lambda x: x.index_put((torch.tensor([0]), ROWS), one(x)[:4]),
    "index_put, computed": lambda x: one(x).index_put(
        (order(one(x)[:, 0]), ROWS[:1]), one(x)[:, 0] + 1
    ),
    "index_put, a slice": lambda x: put(x.clone(), order(one(x)[0])),
    "index_put, accumulated": lambda x: one(x).index_put((order(one(x)[:, 0]) // 3,), one(x), True),
    "index_put, by a mask": lambda x: torch.where(x > 0, x, x).index_put(
        (x > 0.5,), x.new_ones(())
    ),
    "index_add": lambda x: x.index_add(1, ROWS, x[:, :4], alpha=0.5),
    "index_copy": lambda x: x.index_copy(2, order(one(x)[0, :3]), x[..., :3] * 3),
    "index_fill": lambda x: x.index_fill(1, ROWS, 7.0),
    "slice_scatter": lambda x: (
        torch.slice_scatter(x, x[:, :2], 1, 3, 5),
        torch.slice_scatter(x, x[:, :3] * 2, 1, 1, 7, 2),
    ),
    "select_scatter": lambda x: torch.select_scatter(x, x[:, 0], 1, -1),
    "one_hot": lambda x: F.one_hot(x.argmax(1), 8).float() * 0.5,
}


def put(x: Any, index: Any) -> Any:
    x[:, 1:3, index] = 2.5
    return x


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    agrees(Module(FUNCTIONS[name]), LINE)


def test_a_table_of_weights() -> None:
    agrees(Module(lambda x, w: F.embedding(x.argmax(1), w), w=parameter(8, 5)), IMAGE)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: one(x).index_put((one(x) > 0,), one(x)[0]), "as many values as there are pla"),
    ],
)
def test_what_cannot_be_expressed_is_refused(function: Any, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        import_torch(Module(function), LINE)
