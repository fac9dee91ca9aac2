"""Requests of all kinds, good and bad: what is no request is an error of the client's."""

import base64
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.serve.errors import RequestError
from lucid.serve.protocol import (
    LARGEST_JSON,
    InferRequest,
    Wanted,
    header_length,
    read_json,
    read_request,
    write_answer,
)
from lucid.serve.tensors import DTYPES, Tensor

X, IMAGE = Tensor("x", "FP32", (-1, 2)), Tensor("image", "UINT8", (-1, 2, 2, 3))
N = Tensor("n", "INT8", (3,))
OUTPUTS = (Tensor("y", "FP32", (-1, 2)), Tensor("z", "INT64", ()))


def read(document, binary=None, inputs=(X,), images=False):
    header = document if isinstance(document, bytes) else json.dumps(document).encode()
    body = memoryview(header + (binary or b""))
    return read_request(body, None if binary is None else len(header), inputs, OUTPUTS, images)


def entry(tensor=X, shape=(1, 2), **more):
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(shape), **more}


def sized(size, **more):
    return entry(parameters={"binary_data_size": size}, **more)


def test_json_flat_and_nested():
    for data in ([1, 2.5, 3, 4], [[1, 2.5], [3, 4]]):
        (x,) = read({"inputs": [entry(shape=(2, 2), data=data)]}).inputs
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, [[1, 2.5], [3, 4]])


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_in_json_and_binary(datatype):
    tensor, values = Tensor("x", datatype, (-1, 2)), np.array([[0, 1], [1, 0]], DTYPES[datatype])
    row = entry(tensor, (2, 2))
    (x,) = read({"inputs": [{**row, "data": values.tolist()}]}, inputs=[tensor]).inputs
    (b,) = read(
        {"inputs": [{**row, "parameters": {"binary_data_size": values.nbytes}}]},
        values.tobytes(),
        inputs=[tensor],
    ).inputs
    for found in (x, b):
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_binary_data_follow_one_another_in_the_order_of_the_request_and_are_not_copied():
    first, second = np.array([1, 2, 3], np.int8), np.array([[4, 5]], np.float32)
    header = json.dumps(
        {
            "inputs": [
                entry(N, (3,), parameters={"binary_data_size": 3}),
                sized(8),
            ]
        }
    ).encode()
    body = bytearray(header + first.tobytes() + second.tobytes())
    asked = read_request(memoryview(body), len(header), [X, N], OUTPUTS, False)
    x, n = asked.inputs
    np.testing.assert_array_equal(x, second)
    np.testing.assert_array_equal(n, first)
    body[len(header)] = 9
    assert n[0] == 9


def test_images_are_bytes():
    images = [b"one", b"", b"three"]
    elements = b"".join(len(i).to_bytes(4, "little") + i for i in images)
    row = {"name": "image", "datatype": "BYTES", "shape": [3]}
    parameters = {"parameters": {"binary_data_size": len(elements)}}
    (binary,) = read({"inputs": [row | parameters]}, elements, [IMAGE], True).inputs
    text = [base64.b64encode(i).decode() for i in images]
    (flat,) = read({"inputs": [row | {"data": text}]}, None, [IMAGE], True).inputs
    nested = row | {"shape": [3, 1], "data": [[t] for t in text]}
    (deep,) = read({"inputs": [nested]}, None, [IMAGE], True).inputs
    assert list(map(bytes, binary)) == list(map(bytes, flat)) == list(map(bytes, deep)) == images


def test_outputs_parameters_and_ids():
    asked = read(
        {
            "id": "a",
            "inputs": [entry(data=[1, 2])],
            "outputs": [{"name": "z"}, {"name": "y", "parameters": {"binary_data": False}}],
            "parameters": {"binary_data_output": True, "timeout": 1500, "unknown": 3},
        }
    )
    assert asked.id == "a"
    assert asked.timeout == 0.0015
    assert asked.outputs == [Wanted(1, True), Wanted(0, False)]
    assert read({"inputs": [entry(data=[1, 2])]}).outputs == [Wanted(0, False), Wanted(1, False)]


@pytest.mark.parametrize(
    ("document", "binary", "says"),
    {
        "no JSON": (b"{", None, "not JSON"),
        "no object": (b"[]", None, "not a JSON object"),
        "no UTF-8": (b'{"a": "\xff"}', None, "not JSON"),
        "deep": (b'{"inputs":' + b"[" * 100_000, None, "not JSON"),
        "NaN": (json.dumps({"inputs": [entry(data=[1, float("nan")])]}).encode(), None, "NaN"),
        "infinity": (b'{"a": -Infinity}', None, "Infinity"),
        "long number": (b'{"a": ' + b"9" * 5000 + b"}", None, "not JSON"),
        "no inputs": ({}, None, "`inputs`"),
        "inputs of numbers": ({"inputs": [1]}, None, "`inputs`"),
        "lacks": ({"inputs": []}, None, "lacks input 'x'"),
        "unknown": ({"inputs": [entry(N, (3,), data=[1])]}, None, "no input 'n'"),
        "name is no string": ({"inputs": [{"name": ["x"]}]}, None, "no input"),
        "twice": ({"inputs": [entry(data=[1, 2])] * 2}, None, "twice"),
        "no data": ({"inputs": [entry()]}, None, "neither"),
        "shape": ({"inputs": [entry(shape=(1, 3), data=[1, 2, 3])]}, None, "wants FP32[-1, 2]"),
        "rank": ({"inputs": [entry(shape=(2,), data=[1, 2])]}, None, "wants FP32[-1, 2]"),
        "batch of 0": ({"inputs": [entry(shape=(0, 2), data=[])]}, None, "wants FP32[-1, 2]"),
        "negative": ({"inputs": [entry(shape=(-1, 2), data=[])]}, None, "list of sizes"),
        "huge": ({"inputs": [entry(shape=(1 << 62, 2), data=[1])]}, None, "elements, got 1"),
        "shape of no sizes": ({"inputs": [entry(shape=(True, 2), data=[])]}, None, "of sizes"),
        "datatype": ({"inputs": [entry() | {"datatype": "FP64", "data": [1, 2]}]}, None, "FP64"),
        "no datatype": ({"inputs": [entry() | {"datatype": [1], "data": [1, 2]}]}, None, "wants"),
        "surrogate": ({"inputs": [entry() | {"datatype": "\ud800", "data": []}]}, None, "ud800"),
        "BYTES": ({"inputs": [entry() | {"datatype": "BYTES", "data": ["a"]}]}, None, "wants FP32"),
        "too few": ({"inputs": [entry(data=[1])]}, None, "takes 2 elements, got 1"),
        "ragged": ({"inputs": [entry(data=[[1], [1, 2]])]}, None, "several lengths"),
        "words": ({"inputs": [entry(data=["1", "2"])]}, None, "no FP32"),
        "truths": ({"inputs": [entry(data=[True, False])]}, None, "no FP32"),
        "nulls": ({"inputs": [entry(data=[None, 1])]}, None, "no FP32"),
        "deep data": (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":'
            + b"[" * 500
            + b"]" * 500
            + b"}]}",
            None,
            "FP32",
        ),
        "too large": ({"inputs": [entry(data=[1e39, 1])]}, None, "out of the range"),
        "data is a number": ({"inputs": [entry(data=3)]}, None, "list of numbers"),
        "truncated": ({"inputs": [sized(8)]}, b"1234", "of which 4 are there"),
        "of another size": ({"inputs": [sized(4)]}, b"1234", "takes 8 bytes, got 4"),
        "too much": ({"inputs": [sized(8)]}, b"12345678910", "3 bytes behind"),
        "size": ({"inputs": [sized(-1)]}, b"", "number of bytes"),
        "size is a word": ({"inputs": [sized("8")]}, b"12345678", "number of bytes"),
        "both": ({"inputs": [sized(8, data=[1, 2])]}, b"12345678", "binary data too"),
        "parameters": ({"inputs": [entry(parameters=[1])]}, None, "`parameters`"),
        "shared memory": (
            {"inputs": [entry(data=[1, 2], parameters={"shared_memory_region": "a"})]},
            None,
            "not supported",
        ),
        "no output": ({"inputs": [entry(data=[1, 2])], "outputs": [{"name": "w"}]}, None, "'w'"),
        "flag": (
            {"inputs": [entry(data=[1, 2])], "parameters": {"binary_data_output": 1}},
            None,
            "true or false",
        ),
        "id": ({"inputs": [entry(data=[1, 2])], "id": 3}, None, "`id`"),
        "timeout": (
            {"inputs": [entry(data=[1, 2])], "parameters": {"timeout": -3}},
            None,
            "microseconds",
        ),
    }.values(),
)
def test_what_is_no_request(document, binary, says):
    with pytest.raises(RequestError) as refused:
        read(document, binary)
    assert refused.value.status == 400
    assert says in refused.value.message
    assert refused.value.message.encode()


def test_long_words_among_numbers_take_no_memory():
    """NumPy would make every element as wide as the longest."""
    body = json.dumps({"inputs": [entry(data=["a" * (1 << 16)] + [""] * 256)]}).encode()
    tracemalloc.start()
    with pytest.raises(RequestError, match="no FP32"):
        read(body)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_the_largest_whole_numbers_are_exact():
    tensor = Tensor("x", "UINT64", (-1, 2))
    for data in ([2**64 - 1, 1], [[2**63, 0]]):
        (x,) = read({"inputs": [entry(tensor, data=data)]}, inputs=[tensor]).inputs
        assert x.ravel().tolist() == list(np.ravel(np.array(data, object)))
    for data in ([2**64, 1], [-1, 1], [1.0, 2.0]):
        with pytest.raises(RequestError):
            read({"inputs": [entry(tensor, data=data)]}, inputs=[tensor])


@pytest.mark.parametrize(
    ("shape", "elements"),
    [
        ([1], b""),
        ([1], b"\1\0\0"),
        ([1], b"\4\0\0\0abc"),
        ([1], b"\xff\xff\xff\xffabc"),
        ([2], b"\1\0\0\0a"),
        ([1], b"\1\0\0\0a\1\0\0\0a"),
        ([1, 2], b"\1\0\0\0a\1\0\0\0a"),
        ([0], b""),
        ([1 << 60], b"\0\0\0\0"),
        ([1025], bytes(4 * 1025)),
    ],
)
def test_what_are_no_images(shape, elements):
    row = {"name": "image", "datatype": "BYTES", "shape": shape}
    with pytest.raises(RequestError, match="image"):
        read(
            {"inputs": [row | {"parameters": {"binary_data_size": len(elements)}}]},
            elements,
            [IMAGE],
            True,
        )


@pytest.mark.parametrize("data", [["%"], [1], "YQ==", [["YQ=="]] * 2, None])
def test_what_is_no_base64(data):
    row = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
    with pytest.raises(RequestError, match="base64"):
        read({"inputs": [row]}, None, [IMAGE], True)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "ten", "9" * 16, "²", "+3", "11"])
def test_what_is_no_length_of_a_header(text):
    with pytest.raises(RequestError, match="inference-header"):
        header_length(text, 10)


def test_a_byte_of_truth_is_0_or_1():
    tensor = Tensor("x", "BOOL", (-1, 2))
    row = entry(tensor, parameters={"binary_data_size": 2})
    with pytest.raises(RequestError, match="0 or 1"):
        read({"inputs": [row]}, b"\2\0", [tensor])


def test_json_that_would_hold_up_the_others_is_refused():
    with pytest.raises(RequestError) as refused:
        read_json(b" " * (LARGEST_JSON + 1))
    assert refused.value.status == 413


def test_answers():
    y, z = np.array([[1, 2], [3, 4]], np.float32), np.array(7, np.int64)
    asked = InferRequest("a", [], [Wanted(1, True), Wanted(0, True)], None)
    answer = write_answer("net", "1", asked, OUTPUTS, [y.T, z])
    header = json.loads(answer.body[: answer.header])
    assert header["id"] == "a"
    assert [o["parameters"]["binary_data_size"] for o in header["outputs"]] == [8, 16]
    assert answer.body[answer.header :] == z.tobytes() + y.T.tobytes()
    asked = InferRequest(None, [], [Wanted(0, False), Wanted(1, False)], None)
    told = json.loads(write_answer("net", "1", asked, OUTPUTS, [y.T, z]).body)
    assert told == {
        "model_name": "net",
        "model_version": "1",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 3, 2, 4]},
            {"name": "z", "datatype": "INT64", "shape": [], "data": [7]},
        ],
    }
    empty = np.zeros((0, 2), np.float32)
    asked = InferRequest(None, [], [Wanted(0, True)], None)
    assert write_answer("net", "1", asked, OUTPUTS, [empty]).body.endswith(b"}")


@pytest.mark.parametrize("array", [np.array([np.nan], np.float32), np.zeros(1 << 20, np.float32)])
def test_what_json_does_not_hold(array):
    asked = InferRequest(None, [], [Wanted(0, False)], None)
    with pytest.raises(RequestError, match="binary_data"):
        write_answer("net", "1", asked, OUTPUTS, [array])


# -- generated ------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "n"]) | JSON,
        "datatype": st.sampled_from(["FP32", "INT8", "BYTES"]) | JSON,
        "shape": st.lists(st.integers(-1, 3) | st.integers(), max_size=3) | JSON,
        "data": st.lists(st.integers(0, 9), max_size=6) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(0, 12) | JSON}) | JSON,
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"inputs": st.lists(FIELDS, max_size=3) | JSON},
    optional={"outputs": st.lists(FIELDS, max_size=2) | JSON, "parameters": JSON, "id": JSON},
)


@given(
    document=DOCUMENTS.map(lambda d: json.dumps(d).encode()) | st.binary(max_size=40),
    binary=st.none() | st.binary(max_size=16),
    images=st.booleans(),
)
def test_whatever_comes_is_a_request_or_an_error_of_the_client(document, binary, images):
    try:
        asked = read(document, binary, (IMAGE,) if images else (X, N), images)
    except RequestError as error:
        error.message.encode()  # as the answer is
        return
    assert len(asked.inputs) == (1 if images else 2)


@given(st.lists(st.binary(max_size=6), max_size=3), st.binary(max_size=3), st.integers(0, 3))
def test_elements_of_bytes_are_found_or_refused(elements, rest, count):
    data = b"".join(len(e).to_bytes(4, "little") + e for e in elements) + rest
    row = {"name": "image", "datatype": "BYTES", "shape": [count]}
    document = {"inputs": [row | {"parameters": {"binary_data_size": len(data)}}]}
    try:
        (found,) = read(document, data, [IMAGE], True).inputs
    except RequestError:
        assert rest or count != len(elements) or not count
    else:
        if not rest:
            assert list(map(bytes, found)) == elements
