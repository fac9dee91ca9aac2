"""Memory over time: calls of changing sizes, and models that come and go.

`python -m tests.reliability.memory [--calls N] [--compiles N]` prints what the process holds as it
goes on, and fails where it grows.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import lucid
from lucid import nn

MIB = 1 << 20
F = nn.functional
PIECES: list[Callable[[object], object]] = [
    F.relu,
    F.sigmoid,
    F.tanh,
    F.silu,
    F.gelu,
    lambda x: x * 2 + 1,
    lambda x: F.relu(x) * F.sigmoid(x),
    lambda x: F.tanh(x) - x,
]


@dataclass(frozen=True)
class Held:
    """What the process holds: bytes resident, bytes of machine code made at run time, threads and
    file descriptors."""

    resident: int
    code: int
    threads: int
    files: int

    @staticmethod
    def now() -> Held:
        gc.collect()
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        return Held(
            int(status["VmRSS"].split()[0]) << 10,
            sum(_made_code()),
            int(status["Threads"]),
            len(os.listdir("/proc/self/fd")),
        )

    def __str__(self) -> str:
        resident, code = self.resident / MIB, self.code / MIB
        return f"{resident:.1f} MiB, code {code:.2f}, {self.threads} threads, {self.files} files"


def _made_code() -> Iterator[int]:
    """Bytes of each executable mapping that is of no file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, _, _, inode, *name = line.split(maxsplit=5)
        if "x" in rights and inode == "0" and not name:
            first, last = (int(end, 16) for end in place.split("-"))
            yield last - first


class Net(nn.Module):
    """A small network of its own for each number: channels, activations and size of filters."""

    def __init__(self, number: int) -> None:
        width = 8 * (1 + number % 5)
        self.pieces = [PIECES[number // 8**i % 8] for i in range(3)]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Conv2d(width, 2 * width, 1 + 2 * (number % 3), padding=number % 3)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):  # type: ignore[no-untyped-def]
        first, second, third = self.pieces
        return third(self.head(second(self.body(first(self.stem(x)))).mean((2, 3))))


def calls(number: int, threads: int) -> Iterator[Held]:
    """Call one model with batches of 0 to 40 and sides of 8 to 40; gives ten moments of it."""
    model, random = Net(300), np.random.default_rng(0)
    fast = lucid.compile(model, (1, 3, 24, 24), threads=threads)
    image = random.standard_normal((40, 3, 40, 40)).astype(np.float32)
    wanted = fast(np.ascontiguousarray(image[:1, :, :24, :24]))
    for i in range(number):
        batch, side = int(random.integers(41)), int(8 * random.integers(1, 6))
        result = fast(np.ascontiguousarray(image[:batch, :, :side, :side]))
        assert result.shape == (batch, 10)
        if side == 24 and batch:
            np.testing.assert_array_equal(result[:1], wanted)
        if (i + 1) % max(1, number // 10) == 0:
            yield Held.now()


def compiles(number: int) -> Iterator[Held]:
    """Compile, call and drop models of which no two are the same; gives ten moments of it."""
    image = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    for i in range(number):
        fast = lucid.compile(Net(i), image.shape, threads=1 + i % 2, cache=False)
        assert fast(image).shape == (2, 10)
        del fast
        if (i + 1) % max(1, number // 10) == 0:
            yield Held.now()


def growth(moments: list[Held]) -> int:
    """Bytes that the last third of the moments is above the middle third, at its least."""
    third = max(1, len(moments) // 3)
    middle, last = moments[-2 * third : -third], moments[-third:]
    return min(m.resident for m in last) - min(m.resident for m in middle)


def watch(name: str, moments: Iterator[Held], allowed: int) -> bool:
    """Print the moments; whether nothing grew but by `allowed` bytes."""
    start, seen = time.monotonic(), []
    for moment in moments:
        seen.append(moment)
        print(f"{name}: {moment}", flush=True)
    flat = growth(seen) <= allowed and seen[-1].files == seen[0].files
    verdict = "flat" if flat else "GROWS"
    seconds = time.monotonic() - start
    print(f"{name}: {verdict}, {growth(seen) / MIB:+.2f} MiB in the last third, {seconds:.0f} s")
    return flat


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=10_000)
    options.add_argument("--compiles", type=int, default=200)
    chosen = options.parse_args()
    flat = [
        watch(f"{chosen.calls} calls, {t} threads", calls(chosen.calls, t), 2 * MIB) for t in (1, 2)
    ]
    flat.append(watch(f"{chosen.compiles} models", compiles(chosen.compiles), 8 * MIB))
    sys.exit(0 if all(flat) else 1)


if __name__ == "__main__":
    main()
