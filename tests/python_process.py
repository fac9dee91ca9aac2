"""Code in a Python of its own, for what ends a process or interrupts it."""

import os
import subprocess
import sys

INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""Whoever runs the tests in the background has interrupts ignored, and so have their children."""


def run_python(
    code: str, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code, which gets interrupts; seconds until it is taken to hang."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", INTERRUPTS + code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
