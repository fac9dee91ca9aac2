"""A tour in a minute: read digits with a trained ResNeSt, then see how fast ResNeSt-50 is here.

python examples/demo.py        # or `make demo`, which installs Lucid first
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import lucid
from lucid.ir.interpret import interpret
from lucid.models import resnest_50
from lucid.runtime.peak import measured_peak

ROOT = Path(__file__).parents[1]
DIGITS = sorted(p.relative_to(ROOT) for p in ROOT.glob("examples/digits/*.png"))
SHAPE = (1, 3, 224, 224)
RUNS = 30


def read_digits() -> None:
    """`lucid run`, as from a shell: twelve handwritten digits, checked against the interpreter."""
    print("$ lucid run resnest_digits examples/digits/*.png --compare --top 1", flush=True)
    lucid_command = Path(sys.executable).with_name("lucid")
    arguments = ["run", "resnest_digits", *DIGITS, "--compare", "--top", "1"]
    subprocess.run([lucid_command, *arguments], cwd=ROOT, check=True)


def time_resnest_50() -> None:
    """Compile ResNeSt-50 with generated weights, check it, and hold it against the FMA peak."""
    print("\nresnest_50 at 224 x 224, generated weights", flush=True)
    model = resnest_50()
    start = time.perf_counter()
    fast = lucid.compile(model, SHAPE)
    print(f"  compiled in {time.perf_counter() - start:.2f} s for {fast.threads} thread(s)")

    x = np.asarray(lucid.random.randn(SHAPE))
    (expected,) = interpret(lucid.trace(model, SHAPE), [x], dtype=np.float64)
    error = np.abs(fast(x) - expected).max() / np.abs(expected).max()
    print(f"  largest difference from the float64 interpreter: {error:.1e} of the largest logit")
    assert error < 1e-5, "compiled model and interpreter disagree: a defect of Lucid"

    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        fast(x)
        seconds.append(time.perf_counter() - start)
    rate = sum(call.work for call in fast.program().calls()) / min(seconds) / 1e9
    peak = measured_peak(fast.target, fast.threads)
    print(
        f"  {1e3 * min(seconds):.1f} ms (median {1e3 * np.median(seconds):.1f}): {rate:.0f} GFLOP/s"
        f" of direct convolution, {rate / peak:.0%} of the measured peak of {peak:.0f}"
    )


if __name__ == "__main__":
    read_digits()
    time_resnest_50()
