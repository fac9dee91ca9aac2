"""Every golden case: the captured graph in float64 against the official implementations."""

import numpy as np
import pytest
from data import golden

from lucid import trace
from lucid.ir.graph import Node
from lucid.ir.interpret import interpret
from lucid.models import create_model

QUICK = (
    "resnest_14-seed1-1x97x129",
    "resnest_50_4s2x40d-seed1-2x75x75",
    "resnet_18-seed0-1x160x160",
)


def parameters() -> list:
    return [
        pytest.param(case, id=str(case), marks=[] if str(case) in QUICK else [pytest.mark.slow])
        for case in golden.cases()
    ]


@pytest.mark.parametrize("case", parameters())
def test_the_captured_graph_agrees(case: golden.Case) -> None:
    model = create_model(case.model)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    model.load_state_dict(golden.weights(shapes, case.seed))
    graph = trace(model, (case.batch, 3, case.height, case.width))

    stages: dict[str, np.ndarray] = {}

    def keep_stages(node: Node, results: tuple[np.ndarray, ...]) -> None:
        if node.origin.startswith("layer"):
            stages[node.origin.split(".")[0]] = results[0]

    (logits,) = interpret(graph, [case.image()], dtype=np.float64, observe=keep_stages)

    for stage in (1, 2, 3, 4):
        y = stages[f"layer{stage}"]
        found, wanted = (y.mean(), y.std(ddof=1)), (case.stage_mean, case.stage_std)
        np.testing.assert_allclose(found, [w[stage - 1] for w in wanted], rtol=1e-9)
    error = np.abs(logits - case.logits).max() / np.abs(case.logits).max()
    assert error < 1e-9
