"""The addresses of the protocol, limits, and errors, without a socket."""

import asyncio
import json
import random
from functools import partial

import numpy as np
import pytest
from serving import ROW, Doubler, serving, started

import lucid
from lucid.errors import ModelFileError
from lucid.serve import app as app_module
from lucid.serve.app import Limits, application
from lucid.serve.fleet import Fleet
from lucid.serve.model import Batching, LucidModel
from lucid.serve.repository import LOOK
from lucid.serve.sources import Source


def run(app, body):
    """Run `body(client)` while the application does."""

    async def main():
        async with started(app) as client:
            await asyncio.wait_for(body(client), 60)

    asyncio.run(main())


def loader(model):
    return lambda path: model


# -- about the server -----------------------------------------------------------------------


def test_health_and_metadata():
    async def body(client):
        for path in ("/v2", "/v2/"):
            assert (await client("GET", path)).json == {
                "name": "lucid",
                "version": lucid.__version__,
                "extensions": ["binary_tensor_data", "model_repository"],
            }
        assert (await client("GET", "/v2/health/live")).json == {"live": True}
        assert (await client("GET", "/v2/health/ready")).json == {"ready": True}
        for path in ("/v2/models/net", "/v2/models/net/versions/1"):
            assert (await client("GET", path)).json == {
                "name": "net",
                "versions": ["1"],
                "platform": "test",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
            }
            assert (await client("GET", f"{path}/ready")).json == {"name": "net", "ready": True}

    run(serving(loader(Doubler())), body)


def test_errors_are_the_protocols():
    rows = [
        ("GET", "/", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v2/models/net/versions/2", 404),
        ("GET", "/v2/models/net/versions/one", 404),
        ("GET", "/v2/models/..%2fnet", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/net/versions/9/infer", 404),
        ("POST", "/v2/repository/models/other/load", 404),
        ("GET", "/v2/models/net/infer", 405),
        ("POST", "/v2/models/net/infer", 400),
        ("POST", "/v2/repository/index", 400),
        ("POST", "/v2/repository/models/net/load", 400),
    ]
    given = {"ready": 3, "parameters": {"config": "/etc/passwd"}}

    async def body(client):
        for method, path, status in rows:
            reply = await client(method, path, given)
            assert (reply.status, bool(reply.error)) == (status, True), path

    run(serving(loader(Doubler())), body)


def test_a_defect_is_told_without_its_message():
    class Broken(Doubler):
        async def infer(self, inputs):
            raise RuntimeError("a secret")

    async def body(client):
        with pytest.raises(RuntimeError):  # which the server logs
            await client.infer(ROW)
        (sample,) = [
            line
            for line in (await client("GET", "/metrics")).body.decode().splitlines()
            if line.startswith("lucid_requests_total")
        ]
        assert sample == 'lucid_requests_total{code="500",model="net",version="1"} 1.0'

    run(serving(loader(Broken())), body)


# -- inference ------------------------------------------------------------------------------


def test_json_and_binary():
    async def body(client):
        reply = await client.infer(ROW, id="7")
        assert reply.headers["content-type"] == "application/json"
        assert reply.json == {
            "model_name": "net",
            "model_version": "1",
            "id": "7",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}],
        }
        x = np.array([[1, 2], [3, 4]], np.float32)
        row = {"name": "x", "datatype": "FP32", "shape": [2, 2]}
        header = json.dumps(
            {
                "inputs": [row | {"parameters": {"binary_data_size": 16}}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        chunks = [header[:10], header[10:] + x.tobytes()[:3], x.tobytes()[3:]]
        lengths = {"Inference-Header-Content-Length": len(header)}
        reply = await client("POST", "/v2/models/net/infer", chunks, lengths)
        length = int(reply.headers["inference-header-content-length"])
        assert reply.headers["content-type"] == "application/octet-stream"
        assert json.loads(reply.body[:length])["outputs"] == [
            row | {"name": "y", "parameters": {"binary_data_size": 16}}
        ]
        assert reply.body[length:] == (2 * x).tobytes()
        wrong = {"Inference-Header-Content-Length": len(header) + 17}
        assert (await client("POST", "/v2/models/net/infer", chunks, wrong)).status == 400
        packed = lengths | {"Content-Encoding": "gzip"}
        assert (await client("POST", "/v2/models/net/infer", chunks, packed)).status == 400

    run(serving(loader(Doubler())), body)


def test_a_file_answers_as_it_does_alone_and_many_together(digits, digits_file):
    images = np.random.default_rng(0).random((12, 1, 32, 32), np.float32)

    def row(array):
        return [
            {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": array.tolist()}
        ]

    async def body(client):
        about = (await client("GET", "/v2/models/net")).json
        assert about["inputs"][0]["shape"] == [-1, 1, 32, 32]
        sizes = [1, 1, 3, 1, 2, 4]
        parts = np.split(images, np.cumsum(sizes)[:-1])
        replies = await asyncio.gather(*(client.infer(row(part)) for part in parts))
        for part, reply in zip(parts, replies, strict=True):
            (output,) = reply.json["outputs"]
            found = np.array(output["data"], np.float32).reshape(output["shape"])
            np.testing.assert_array_equal(found, digits(part))
        wrong = row(images[:, :, :16])
        assert "wants FP32[-1, 1, 32, 32]" in (await client.infer(wrong)).error
        metrics = (await client("GET", "/metrics")).body.decode()
        assert 'lucid_requests_total{code="200",model="net",version="1"} 6.0' in metrics
        assert 'lucid_requests_total{code="400",model="net",version="1"} 1.0' in metrics
        assert 'lucid_request_seconds_count{model="net",version="1"} 6.0' in metrics
        assert 'lucid_model_loads_total{model="net",result="ok"} 1.0' in metrics
        assert 'lucid_batches_total{model="net",rows=' in metrics

    run(serving(partial(LucidModel, batching=Batching(), queue=256), digits_file), body)


def test_whatever_arrives_is_answered_without_a_defect():
    """Requests of which bytes are changed, left out or made up, lengths that lie among them."""
    chance, x = random.Random(0), np.ones((2, 2), np.float32)
    row = {"name": "x", "datatype": "FP32", "shape": [2, 2]}
    header = json.dumps({"inputs": [row | {"parameters": {"binary_data_size": 16}}]}).encode()

    async def body(client):
        statuses = set()
        for _ in range(300):
            sent = bytearray(header + x.tobytes())
            for _ in range(chance.choice((0, 1, 1, 3))):
                sent[chance.randrange(len(sent))] = chance.choice(b'"{[,:}]-019eN\\\xff')
            del sent[chance.choice((len(sent), len(sent), chance.randrange(len(sent)))) :]
            told = chance.choice((len(header),) * 3 + (len(header) - 1, 10**6, -1, "x", ""))
            lengths = {"Inference-Header-Content-Length": told}
            reply = await client("POST", "/v2/models/net/infer", bytes(sent), lengths)
            assert reply.status == 200 or reply.error
            statuses.add(reply.status)
        assert statuses == {200, 400}

    run(serving(loader(Doubler())), body)


def test_limits():
    model = Doubler()
    app = serving(loader(model), body=300, queue=2, seconds=0.3)

    async def body(client):
        reply = await client.infer(ROW * 20)
        assert reply.status == 413
        reply = await client(
            "POST", "/v2/models/net/infer", [b" " * 200] * 2, {"content-length": ""}
        )
        assert reply.status == 413
        reply = await client("POST", "/v2/models/net/infer", b"", {"content-length": "9" * 5000})
        assert reply.status == 413
        assert model.begun == 0
        model.open.clear()
        replies = await asyncio.gather(*(client.infer(ROW) for _ in range(5)))
        assert sorted(r.status for r in replies) == [429, 429, 429, 503, 503]
        assert all(r.headers["retry-after"] == "1" and r.error for r in replies)
        model.open.set()
        assert (await client.infer(ROW)).status == 200
        model.open.clear()
        assert (await client.infer(ROW, parameters={"timeout": 1})).status == 503

    run(app, body)


def test_bodies_that_are_held_are_limited():
    model, size = Doubler(), len(json.dumps({"inputs": ROW}))
    app = serving(loader(model), body=size, bodies=2 * size - 1)

    async def body(client):
        announced = asyncio.create_task(  # which holds nothing yet
            client("POST", "/v2/models/net/infer", [b" "] * 2, {"content-length": size}, pause=0.2)
        )
        model.open.clear()
        held = asyncio.create_task(client.infer(ROW))
        while not model.begun:
            await asyncio.sleep(0)
        for told in (size, ""):
            reply = await client(
                "POST", "/v2/models/net/infer", {"inputs": ROW}, {"content-length": told}
            )
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        model.open.set()
        assert (await held).status == 200
        assert (await client.infer(ROW)).status == 200
        assert (await announced).status == 400

    run(app, body)


def test_answers_part_with_their_connection_once_the_server_ends():
    async def body(client):
        assert "connection" not in (await client.infer(ROW)).headers
        client.app.user_middleware[0].kwargs["service"].ending = True
        for reply in (await client.infer(ROW), await client("GET", "/no")):
            assert reply.headers["connection"] == "close"
        assert (await client("GET", "/v2/health/ready")).status == 503

    run(serving(loader(Doubler())), body)


def test_a_slow_client_holds_no_place():
    model = Doubler()
    app = serving(loader(model), queue=1, body_seconds=0.5)
    text = json.dumps({"inputs": ROW}).encode()
    chunks = [text[:30], text[30:60], text[60:]]

    async def body(client):
        slow = [
            asyncio.create_task(client("POST", "/v2/models/net/infer", chunks, pause=0.03))
            for _ in range(5)
        ]
        stuck = asyncio.create_task(client("POST", "/v2/models/net/infer", chunks, pause=0.4))
        await asyncio.sleep(0.03)
        assert (await client.infer(ROW)).status == 200
        assert {r.status for r in await asyncio.gather(*slow)} <= {200, 429}
        late = await stuck
        assert late.status == 408
        assert late.headers["connection"] == "close"

    run(app, body)


# -- the repository -------------------------------------------------------------------------


def test_a_model_is_replaced_while_requests_run():
    """Those that have begun finish on the old one."""
    made = []

    def make(path):
        made.append(Doubler(2.0 + len(made)))
        return made[-1]

    async def value(request):
        return (await request).json["outputs"][0]["data"][0]

    async def body(client):
        made[0].open.clear()
        begun = asyncio.create_task(client.infer(ROW))
        await asyncio.sleep(0)
        assert (await client("POST", "/v2/repository/models/net/load")).status == 200
        assert await value(client.infer(ROW)) == 3.0
        made[0].open.set()
        assert await value(begun) == 2.0

    run(serving(make), body)


def test_batches_of_a_model_that_is_replaced_are_counted():
    async def body(client):
        for _ in range(3):
            await client.infer(ROW)
        await client("POST", "/v2/repository/models/net/load")
        await client.infer(ROW)
        metrics = (await client("GET", "/metrics")).body.decode()
        assert 'lucid_batches_total{model="net",rows="1",version="1"} 4.0' in metrics

    run(serving(lambda path: Doubler()), body)


def test_many_requests_meet_reloads_and_none_is_lost(digits, digits_file):
    x = np.random.default_rng(1).random((1, 1, 32, 32), np.float32)
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 1, 32, 32], "data": x.tolist()}]
    expected, told, reloaded = digits(x), [], []

    async def caller(client):
        while len(told) < 60 or not reloaded:
            (output,) = (await client.infer(inputs)).json["outputs"]
            told.append(np.array(output["data"], np.float32)[None])

    async def body(client):
        callers = [asyncio.create_task(caller(client)) for _ in range(4)]
        for _ in range(2):
            assert (await client("POST", "/v2/repository/models/net/load")).status == 200
        reloaded.append(True)
        await asyncio.gather(*callers)
        assert all(np.array_equal(y, expected) for y in told)

    run(serving(partial(LucidModel, batching=Batching(max_batch=2), queue=256), digits_file), body)


def test_loading_unloading_and_the_index():
    broken = []

    def make(path):
        if broken:
            raise ModelFileError("damaged")
        return Doubler()

    ready = {"name": "net", "version": "1", "state": "READY", "reason": ""}

    async def body(client):
        assert (await client("POST", "/v2/repository/index")).json == [ready]
        unload = {"parameters": {"unload_dependents": False}}
        reply = await client("POST", "/v2/repository/models/net/unload", unload)
        assert reply.status == 200
        assert (await client("POST", "/v2/repository/index", {"ready": True})).json == []
        (row,) = (await client("POST", "/v2/repository/index")).json
        assert row == {"name": "net", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
        assert (await client.infer(ROW)).status == 503
        reply = await client("GET", "/v2/models/net/ready")
        assert (reply.status, reply.json) == (503, {"name": "net", "ready": False})
        assert (await client("GET", "/v2/health/ready")).status == 200  # as was asked for
        assert (await client("POST", "/v2/repository/models/net/load")).status == 200
        broken.append(True)
        reply = await client("POST", "/v2/repository/models/net/load")
        assert (reply.status, "damaged" in reply.error) == (400, True)
        assert (await client.infer(ROW)).status == 200  # what was there stays

    run(serving(make), body)


def test_without_control_nothing_is_loaded():
    async def body(client):
        for what in ("load", "unload"):
            reply = await client("POST", f"/v2/repository/models/net/{what}")
            assert reply.status == 403
        assert (await client.infer(ROW)).status == 200

    run(serving(loader(Doubler()), control=False), body)


def test_versions_are_found_and_the_newest_answers(tmp_path):
    folder = tmp_path / "net"

    def add(version):
        (folder / version).mkdir(parents=True)
        (folder / version / "model.lucid").touch()

    add("2"), add("10"), add("notes")

    async def value(client, path):
        return (await client.infer(ROW, path)).json["outputs"][0]["data"][0]

    async def body(client):
        assert (await client("GET", "/v2/models/net")).json["versions"] == ["2", "10"]
        assert await value(client, "/v2/models/net") == 10.0
        assert await value(client, "/v2/models/net/versions/2") == 2.0
        add("11")
        assert (await client("POST", "/v2/repository/models/net/load")).status == 200
        assert await value(client, "/v2/models/net") == 11.0

    sources = [Source("net", folders=(folder,))]
    run(application(sources, Limits(), lambda path: Doubler(float(path.parent.name))), body)


def test_workers_follow_one_another():
    fleet, broken = Fleet(["net"], workers=2), []

    def make(path):
        if broken:
            raise ModelFileError("damaged")
        return Doubler()

    sources = [Source("net", {"1": "net.lucid"})]

    async def body(one):
        async with started(application(sources, Limits(), make, fleet)) as other:
            assert (await one("POST", "/v2/repository/models/net/unload")).status == 200
            assert (await other.infer(ROW)).status == 503
            assert (await other("POST", "/v2/repository/models/net/load")).status == 200
            assert (await one.infer(ROW)).status == 200
        async with started(application(sources, Limits(), make, fleet)) as restarted:
            broken.append(True)
            assert (await one("POST", "/v2/repository/models/net/load")).status == 400
            assert (await restarted.infer(ROW)).status == 200

    run(application(sources, Limits(), make, fleet), body)


def test_a_worker_that_cannot_follow_is_told_of_and_does_not_try_for_ever():
    fleet, tried = Fleet(["net"], workers=2), []
    sources = [Source("net", {"1": "net.lucid"})]

    def fails(path):
        tried.append(path)
        if len(tried) > 1:
            raise MemoryError
        return Doubler(3.0)

    async def body(one):
        async with started(application(sources, Limits(), fails, fleet)) as other:
            reply = await one("POST", "/v2/repository/models/net/load")
            assert (reply.status, "1 of 2 workers" in reply.error) == (500, True)
            await asyncio.sleep(2 * LOOK)
            assert len(tried) == 2
            assert (await other.infer(ROW)).json["outputs"][0]["data"] == [3.0, 6.0]

    run(application(sources, Limits(), loader(Doubler()), fleet), body)


def test_a_worker_that_is_replaced_tries_until_its_models_can_be_loaded(monkeypatch):
    monkeypatch.setattr(app_module, "AGAIN", 0.01)
    fleet, tried = Fleet(["net"], workers=2), []
    sources = [Source("net", {"1": "net.lucid"})]

    def make(path):
        tried.append(path)
        if len(tried) < 3:
            raise ModelFileError("damaged")
        return Doubler()

    async def body(one):
        async with started(application(sources, Limits(), make, fleet)) as replacement:
            assert len(tried) == 3
            assert (await replacement.infer(ROW)).status == 200
            assert (await one("POST", "/v2/repository/models/net/load")).status == 200

    run(application(sources, Limits(), loader(Doubler()), fleet), body)


def test_a_server_does_not_start_without_its_models():
    def make(path):
        raise ModelFileError("damaged")

    async def main():
        async with started(serving(make)):
            pass

    with pytest.raises(ModelFileError):
        asyncio.run(main())
