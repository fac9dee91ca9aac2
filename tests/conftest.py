"""What all tests share: `tests/` on the path, so that they can import `strategies`."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile(
    "quick",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "fuzz", parent=settings.get_profile("quick"), max_examples=2000, derandomize=False
)
settings.register_profile("brief", parent=settings.get_profile("quick"), max_examples=5)
settings.load_profile("quick")  # `pytest --hypothesis-profile=fuzz` for long runs
