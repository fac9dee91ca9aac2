"""A kernel that touches what is beside its arrays ends its process; ours do not."""

import signal
from pathlib import Path

import pytest
from guard_pages import files, run

STRAY = """
import sys
sys.path[:0] = {paths!r}
from harness import Run, set_apart
from lucid.codegen.target import Target
from strategies import random_inputs
from test_harness import change, two_layers

def test_stray():
    graph, program = two_layers()
    set_apart(program)
    change(program, "b", {changes})
    Run(program, Target.host()).outputs(graph.payload, random_inputs(graph))
"""


@pytest.mark.parametrize(
    ("mode", "changes"), [("end", "rows=2 * 6 + 6"), ("start", "x_row=-20"), ("end", "depth=60")]
)
def test_a_stray_access_is_a_fault_that_names_its_kernel(
    tmp_path: Path, mode: str, changes: str
) -> None:
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests / "codegen")]
    file = tmp_path / "test_stray.py"
    file.write_text(STRAY.format(paths=paths, changes=changes))

    outcome = run(mode, [str(file)])

    assert outcome.code == -signal.SIGSEGV, outcome
    assert "product(" in str(outcome).splitlines()[0]


@pytest.mark.parametrize("mode", ["end", "start"])
def test_kernels_stay_in_their_arrays(mode: str) -> None:
    tests = ["test_kernels_expand.py", "test_kernels_transpose.py", "test_kernels_together.py"]
    chosen = [f for f in files() if Path(f).name in tests]
    assert len(chosen) == len(tests)
    outcome = run(mode, [*chosen, "--hypothesis-profile=brief"])
    assert outcome.ok, outcome
    assert outcome.passed >= 10
