"""The conductor's side of an engine: its processes, which run only when it is their turn."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engines import Engine
from job import Job

HOST = Path(__file__).with_name("host.py")


class EngineError(Exception):
    """An engine that could not be loaded or run; the message says why, its log says more."""


class Worker:
    """The handle of one engine. Its processes run only inside `with worker.turn()`.

    There is one, or one for each caller where the engine needs that. `settings`: environment
    variables beside the engine's own.
    """

    def __init__(self, name: str, job: Job, settings: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = Path(job.folder, f"{name}.log")
        engine = Engine.registry[name]
        count = job.callers if engine.processes else 1
        self.job = dataclasses.replace(job, callers=job.callers // count)
        threads = str(job.threads)
        environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        environment |= {**engine.environment(job), **(settings or {})}
        with self.log.open("a") as log:
            self.processes = [
                subprocess.Popen(
                    [sys.executable, "-W", "ignore", str(HOST), name],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=os.environ | environment,
                    process_group=0,  # so that processes it starts stop with it
                )
                for _ in range(count)
            ]
        self._stop()

    def _signal(self, number: int) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def _stop(self) -> None:
        """Stop every thread of the processes, and wait until they are."""
        self._signal(signal.SIGSTOP)
        for process in self.processes:
            if process.returncode is None:
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._stop()

    def ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """Ask all processes at once; their replies. Raises EngineError."""
        for process in self.processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # a dead one: the missing reply says so
                print(json.dumps({"do": do, **arguments}), file=process.stdin, flush=True)
        return [self._reply(process, do) for process in self.processes]

    def _reply(self, process: subprocess.Popen[str], do: str) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        reply = json.loads(line) if line else {"failure": f"its process died during `{do}`"}
        if "failure" in reply:
            raise EngineError(f"{self.name}: {reply['failure']} (more in {self.log.name})")
        return reply

    # -- requests ---------------------------------------------------------------------------

    def prepare(self) -> dict[str, Any]:
        """What happens once, for all processes."""
        return self.ask("prepare", **dataclasses.asdict(self.job))[0]

    def load(self) -> dict[str, Any]:
        """The facts of the first process, with the longest time."""
        replies = self.ask("load", **dataclasses.asdict(self.job))
        return replies[0] | {"load": max(reply["load"] for reply in replies)}

    def check(self) -> float:
        """The largest error of an output, relative to its largest element."""
        return max(reply["error"] for reply in self.ask("check"))

    def memory(self) -> float:
        """Peak memory of all processes in MiB."""
        return sum(reply["memory"] for reply in self.ask("memory"))

    def burst(self, runs: int) -> list[float]:
        """Seconds of each of `runs` runs, after untimed ones. Of several callers: seconds that a
        run costs, in which they all take part."""
        self.ask("warm")
        replies = self.ask("burst", runs=runs)
        seconds = [s for reply in replies for s in reply["seconds"]]
        if len(self.processes) * self.job.callers == 1:
            return seconds
        whole = max(r["ended"] for r in replies) - min(r["began"] for r in replies)
        return [whole / len(seconds)]

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        for process in self.processes:
            process.communicate()
