"""Memory stays what it is; `python -m tests.reliability.memory` looks for longer."""

from pathlib import Path

import pytest

from tests.reliability.memory import MIB, calls, compiles, growth

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_of_changing_sizes_take_nothing(threads: int) -> None:
    moments = list(calls(300, threads))
    assert growth(moments) <= MIB
    assert moments[-1].files == moments[2].files
    assert moments[-1].threads == moments[2].threads
    assert moments[-1].code == moments[2].code


def test_models_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucid.runtime.library.KEPT", 9)  # reached by the third
    moments = list(compiles(10))
    assert growth(moments) <= 8 * MIB
    assert moments[-1].files == moments[2].files
    assert moments[-1].code <= 2 * moments[3].code
