#!/usr/bin/env bash
# uvicorn: the death of a worker that is just being asked for a sign of life is noticed only when the
# patience for the answer ends.
#
# The parent of several workers asks each of them twice a second through a pipe, and waits for the
# answer for up to `--timeout-worker-healthcheck`. It holds both ends of the pipe itself, so that the
# death of a worker closes nothing: instead of replacing it at once, as it replaces one that is found
# dead before it is asked, the parent waits to the end, and looks after no other worker and no signal
# meanwhile. One would expect the end of the process to end the wait. A long patience, which large
# models need as they load, makes it worse. Tests of `lucid serve` wait that long.
#
# Seen with uvicorn 0.54.0, Python 3.11, a patience of 12 s; a worker is stopped, so that it is asked
# and does not answer, and then killed:
# killed while it was asked: replaced after 11 s; killed in between: after 1 s
#
# Exit status 0: still so. 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet uvicorn==0.54.0
cd "$folder"
cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
PYTHON
"$folder/venv/bin/python" - <<'PYTHON'
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 12
command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0", "--workers", "2"]
command += ["--timeout-worker-healthcheck", str(PATIENCE), "--log-level", "error"]


def workers(parent):
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def seconds_until_replaced(stopped):
    """From the death of a worker, which is stopped for so long before, to two that run again."""
    parent = subprocess.Popen(command)
    try:
        while len(workers(parent.pid)) < 2:
            time.sleep(0.1)
        time.sleep(3)
        first = set(workers(parent.pid))
        victim = int(sorted(first)[0])
        if stopped:
            os.kill(victim, signal.SIGSTOP)
            time.sleep(stopped)
        start = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while len(set(workers(parent.pid)) - first) < 1 and time.monotonic() - start < 60:
            time.sleep(0.1)
        return time.monotonic() - start
    finally:
        parent.kill()
        for worker in workers(parent.pid):
            os.kill(int(worker), signal.SIGKILL)
        parent.wait()


asked, between = seconds_until_replaced(2), seconds_until_replaced(0)
print(f"killed while it was asked: replaced after {asked:.0f} s", end="; ")
print(f"killed in between: after {between:.0f} s")
raise SystemExit(not (asked > PATIENCE / 2 and between < PATIENCE / 4))
PYTHON
