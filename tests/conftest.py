"""What all tests share: `tests/` on the path, so that they can import `strategies`, and which
machine they take this one for (`LUCID_TARGET` chooses the level, `--l2` the cache)."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

if "PYTEST_XDIST_WORKER" in os.environ:  # NumPy's threads would spin for the other workers' cores
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--l2", type=int, metavar="KIB", help="take each core's second cache for this large"
    )


def pytest_configure(config: pytest.Config) -> None:
    kib = config.getoption("--l2")
    if kib is not None:
        from lucid.codegen import target

        target._l2_bytes = lambda: kib << 10


def pytest_collection_finish() -> None:
    """What is imported stays: it is not looked through again at each collection of garbage."""
    gc.collect()
    gc.freeze()


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
