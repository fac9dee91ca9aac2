"""Two seconds of traffic; `python -m tests.reliability.traffic` makes it a minute."""

import pytest

from tests.reliability.traffic import traffic


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_seconds_of_traffic() -> None:
    run = traffic(2)
    assert not run.failures
    assert run.done["calls"] >= 8
