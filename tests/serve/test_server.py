"""Server processes as users start them, and real clients."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from serving import Doubler, serving
from typer.testing import CliRunner

from lucid.cli import command_line
from lucid.serve import server as server_module
from lucid.serve.server import STARTING, Serving, configured, listener
from lucid.serve.sources import Source
from lucid.vision import preprocess

DIGITS = sorted((Path(__file__).parents[2] / "examples" / "digits").glob("*.png"))[:3]


@contextmanager
def server(*arguments):
    """A server process on a free port: its process and address."""
    command = [sys.executable, "-m", "lucid", "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        address = re.search(r"http://(\S+):(\d+)", process.stdout.readline())
        assert address, "the server did not start"
        yield process, f"{address[1]}:{address[2]}"
    finally:
        with suppress(ProcessLookupError):  # the workers too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def get(address, path, method="GET"):
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.read()


@pytest.mark.slow
def test_a_real_client(digits, digits_file):
    http = pytest.importorskip("tritonclient.http")
    x = np.random.default_rng(0).random((2, 1, 32, 32), np.float32)
    with server(digits_file, "--header-timeout", 0.3, "--drain", 3) as (process, address):
        client = http.InferenceServerClient(address, network_timeout=60, connection_timeout=60)
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["name"] == "lucid"
        about = client.get_model_metadata("digits", "1")
        assert about["inputs"][0]["shape"] == [-1, 1, 32, 32]
        (output,) = (row["name"] for row in about["outputs"])

        def infer(data, datatype="FP32", as_binary=True, wanted=None):
            given = http.InferInput("x", list(data.shape), datatype)
            given.set_data_from_numpy(data, binary_data=as_binary)
            outputs = wanted and [http.InferRequestedOutput(output, binary_data=wanted == "binary")]
            return client.infer("digits", [given], outputs=outputs, request_id="r").as_numpy(output)

        for as_binary in (True, False):
            for wanted in ("binary", "json", None):
                np.testing.assert_array_equal(infer(x, "FP32", as_binary, wanted), digits(x))
        images = np.array([path.read_bytes() for path in DIGITS], object)
        expected = digits(preprocess(list(DIGITS), digits))
        np.testing.assert_array_equal(infer(images, "BYTES"), expected)
        with pytest.raises(Exception, match="wants FP32"):
            infer(x.astype(np.float64), "FP64")
        client.load_model("digits")
        client.unload_model("digits")
        assert not client.is_model_ready("digits")
        client.load_model("digits")
        (row,) = client.get_model_repository_index()
        assert (row["name"], row["state"]) == ("digits", "READY")

        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(b"GET /v2 HTT")
            assert slow.recv(100) == b""  # the server has closed it

        process.send_signal(signal.SIGTERM)  # from now on it is not ready, and answers all the same
        for _ in range(100):
            if not client.is_server_ready():
                break
            time.sleep(0.002)
        else:
            pytest.fail("it is ready after SIGTERM")
        np.testing.assert_array_equal(infer(x), digits(x))


@pytest.mark.slow
def test_two_workers_reload_together_and_one_may_die(digits_file, tmp_path):
    """Requests are finished; a worker that dies while the file is broken does not end the server,
    nor keep it from ending."""
    path = tmp_path / "net.lucid"
    shutil.copy(digits_file, path)
    row = f'{{"name":"x","datatype":"FP32","shape":[1,1,32,32],"data":{[0.5] * 1024}}}'
    body = f'{{"inputs":[{row}]}}'.encode()
    codes = []

    def infer(address):
        request = urllib.request.Request(f"http://{address}/v2/models/net/infer", body)
        with urllib.request.urlopen(request, timeout=60) as reply:
            codes.append((reply.status, reply.read()))

    def wait_for(address, pattern):
        # uvicorn misses a death while it asks for a sign of life, until that takes too long
        deadline = time.monotonic() + 2 * STARTING
        while not re.search(pattern, get(address, "/metrics").decode()):
            assert time.monotonic() < deadline, pattern
            time.sleep(0.05)

    arguments = ("--workers", 2, "--threads", 1, "--max-batch", 2, "--drain", 0.1)
    with server(path, *arguments) as (process, address):
        loads = 'lucid_model_loads_total{model="net",result="ok"} '
        wait_for(address, re.escape(f"{loads}2.0"))  # until both are there
        os.replace(shutil.copy(digits_file, tmp_path / "new"), path)
        get(address, "/v2/repository/models/net/load", "POST")
        callers = [threading.Thread(target=infer, args=[address]) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        metrics = get(address, "/metrics").decode()
        assert 'lucid_requests_total{code="200",model="net",version="1"} 8.0' in metrics
        assert f"{loads}4.0" in metrics

        (tmp_path / "new").write_bytes(b"no model")
        os.replace(tmp_path / "new", path)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        wait_for(address, 'loads_total{model="net",result="failed"} ([2-9]|[0-9]{2})')
        infer(address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert len({answer for _, answer in codes}) == 1
    assert [status for status, _ in codes] == [200] * 9


def workers(parent):
    """The process ids of a server's workers."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(i) for i in children if b"spawn_main" in Path(f"/proc/{i}/cmdline").read_bytes()]


def test_a_server_whose_workers_cannot_start_says_so(digits_file, tmp_path, monkeypatch):
    class Supervisor:
        processes = (SimpleNamespace(exitcode=-15), SimpleNamespace(exitcode=3))

        def __init__(self, config, sockets):
            sockets[0].close()

        def run(self):
            pass

    monkeypatch.setattr(server_module, "Multiprocess", Supervisor)
    monkeypatch.setattr(server_module.signal, "signal", lambda *_: None)
    monkeypatch.setenv(server_module.FOLDER, str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        server_module.serve(
            [Source("net", {"1": digits_file})], Serving(port=0, workers=2), lambda *_: None
        )
    assert ended.value.code == 3


def test_connections_beyond_the_limit_are_closed_and_the_others_go_on():
    app = serving(lambda path: Doubler())
    config = configured(lambda: app, Serving(connections=1))

    async def main():
        from uvicorn.server import ServerState

        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        taken = listener("127.0.0.1", 0)
        listening = await loop.create_server(
            lambda: config.http_protocol_class(config=config, server_state=state, app_state={}),
            sock=taken,
        )
        reader, writer = await asyncio.open_connection(*taken.getsockname())
        for _ in range(2):
            writer.write(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b'{"live":true}')
            beyond, other = await asyncio.open_connection(*taken.getsockname())
            assert await beyond.read() == b""
            other.close()
        writer.close()
        listening.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_kserves_client(digits, digits_file):
    kserve = pytest.importorskip(
        "kserve", reason="kserve (450 MB) is not installed: docs/serving.md"
    )
    import asyncio

    x = np.random.default_rng(0).random((2, 1, 32, 32), np.float32)

    async def check(url):
        client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", timeout=60, retries=3))
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "digits")
        for as_binary in (True, False):
            given = kserve.InferInput("x", list(x.shape), "FP32")
            given.set_data_from_numpy(x, binary_data=as_binary)
            request = kserve.InferRequest("digits", [given], request_id="r")
            answer = await client.infer(url, request, model_name="digits")
            np.testing.assert_array_equal(answer.outputs[0].as_numpy(), digits(x))

    with server(digits_file) as (_, address):
        asyncio.run(check(f"http://{address}"))


def test_files_that_cannot_be_served_are_refused_at_once(tmp_path):
    path = tmp_path / "net.lucid"
    for content, says in ((None, "no such file"), (b"no model", "net.lucid")):
        if content is not None:
            path.write_bytes(content)
        result = CliRunner().invoke(command_line(), ["serve", str(path)])
        assert result.exit_code == 1
        assert says in result.stderr
