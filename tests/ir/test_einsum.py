"""Einstein summation against NumPy's."""

from typing import Any

import numpy as np
import pytest

from lucid.errors import ShapeError
from lucid.ir import BATCH, Graph, Value, f32, interpret, verify
from lucid.ir.einsum import einsum

N = BATCH
EQUATIONS: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("ij,jk->ik", [(3, 4), (4, 5)]),
    ("bij,bjk->bik", [(N, 3, 4), (N, 4, 5)]),
    ("bhqd,bhkd->bhqk", [(N, 2, 3, 4), (N, 2, 5, 4)]),
    ("bqhd,bkhd->bhqk", [(N, 3, 2, 4), (N, 5, 2, 4)]),
    ("bhwc,hkc->bhwk", [(N, 3, 4, 5), (3, 6, 5)]),
    ("nc,oc->no", [(N, 4), (5, 4)]),
    ("nchw,nkhw->nck", [(N, 2, 3, 4), (N, 5, 3, 4)]),
    ("i,j", [(3,), (4,)]),
    ("i,i", [(3,), (3,)]),
    ("ij->ji", [(3, 4)]),
    ("ij", [(3, 4)]),
    ("ba", [(3, 4)]),
    ("ii->i", [(4, 4)]),
    ("ii", [(4, 4)]),
    ("bii->b", [(N, 4, 4)]),
    ("iji,jk->ik", [(4, 3, 4), (3, 2)]),
    ("iii->i", [(3, 3, 3)]),
    ("nij->n", [(N, 3, 4)]),
    ("...ij,...jk->...ik", [(N, 2, 3, 4), (2, 4, 5)]),
    ("...ij,jk", [(N, 3, 4), (4, 5)]),
    ("i...,i...->...", [(3, 4, 5), (3, 5)]),
    ("...->...", [(N, 3)]),
    ("b...c,c->b...", [(N, 2, 3, 4), (4,)]),
    ("bij,bkj->bik", [(N, 3, 4), (1, 5, 4)]),
    ("ij,ij->", [(3, 4), (3, 4)]),
    ("n,n->n", [(N,), (N,)]),
    ("ni,nj->nij", [(N, 3), (N, 4)]),
    ("ab,bc,cd->ad", [(2, 9), (9, 3), (3, 8)]),
    ("nab,ncb,nc,a->n", [(N, 2, 3), (N, 4, 3), (N, 4), (2,)]),
    (",ij->ij", [(), (2, 3)]),
    (" i j , j k -> k i ", [(3, 4), (4, 5)]),
]


def planned(equation: str, shapes: list[tuple[Any, ...]]) -> Graph:
    graph = Graph("einsum")
    values = [graph.add_input(f32(*shape)) for shape in shapes]

    def apply(op: Any, *operands: Value) -> Value:
        return graph.append(op, operands).output

    graph.set_outputs([einsum(equation, values, apply)])
    verify(graph)
    return graph


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=[e for e, _ in EQUATIONS])
def test_equations(equation: str, shapes: list[tuple[Any, ...]]) -> None:
    graph = planned(equation, shapes)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(v.type.concrete(3)) for v in graph.inputs]
    (found,) = interpret(graph, arrays, dtype=np.float64)
    np.testing.assert_allclose(found, np.einsum(equation, *arrays), rtol=1e-10, atol=1e-12)


def test_chains_are_multiplied_where_they_are_thin() -> None:
    """(2, 900) (900, 3) first, not (900, 3) (3, 800)."""
    graph = planned("ab,bc,cd->ad", [(2, 900), (900, 3), (3, 800)])
    products = [n.output.type.shape for n in graph.nodes if n.op.name == "matmul"]
    assert products == [(2, 3), (2, 800)]


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk->ik", [(3, 4)], "takes 2 operands, got 1"),
        ("ij->ij", [(3, 4, 5)], "does not fit an operand of 3 axes"),
        ("i1->i", [(3, 4)], "does not fit an operand"),
        ("ij,jk->ik", [(3, 4), (5, 6)], "'j' of 'ij,jk->ik' is 4 and 5"),
        ("ii->i", [(3, 4)], "'i' of 'ii->i' is 3 and 4"),
        ("ij->ik", [(3, 4)], "names an axis twice, or an unknown one"),
        ("ij->ii", [(3, 4)], "names an axis twice, or an unknown one"),
    ],
)
def test_what_does_not_fit_is_refused(
    equation: str, shapes: list[tuple[Any, ...]], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        planned(equation, shapes)
