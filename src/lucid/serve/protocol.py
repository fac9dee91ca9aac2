"""Requests for inference, and answers, as the Open Inference Protocol v2 writes them over HTTP.

A body is JSON, or with the header `Inference-Header-Content-Length` so many bytes of JSON and then
the elements of tensors one after another (the binary tensor data extension). Whatever a client
sends that is not this is a RequestError with status 400.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

from lucid.serve.errors import RequestError, require
from lucid.serve.tensors import (
    Array,
    Tensor,
    from_binary,
    from_json,
    strings_from_binary,
    strings_from_json,
    to_json,
)

HEADER = "inference-header-content-length"
"""How many bytes of a body are JSON, where it has tensors behind."""
LARGEST_JSON = 8 << 20
"""Bytes of JSON in a body: reading it holds up all other requests, by some 100 ms for so much."""
MOST_IMAGES = 1024
"""Of a request: telling them apart holds up all other requests too."""
NOT_SUPPORTED = ("classification", "shared_memory_region")
"""Parameters of other extensions of the protocol that change what a tensor means."""

Images = list[memoryview]
"""Encoded images: the elements of a BYTES tensor."""


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for, and whether it is to be binary."""

    position: int
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """What a request asks for: an array, or images, for each input of the model, in its order.
    `timeout`: seconds after which nobody waits for it any longer."""

    id: str | None
    inputs: Sequence[Array | Images]
    outputs: Sequence[Wanted]
    timeout: float | None


@dataclass(frozen=True)
class Answer:
    """A body, and how many bytes of it are JSON where tensors follow them."""

    body: bytes
    header: int | None


# -- reading --------------------------------------------------------------------------------


def header_length(text: str | None, size: int | None = None) -> int | None:
    """The value of HEADER, of a body of this size where that is known."""
    if text is None:
        return None
    require(
        text.isascii() and text.isdecimal() and len(text) <= 15,
        f"the header {HEADER} is a number of bytes, not {text[:40]!r}",
    )
    length = int(text)
    require(size is None or length <= size, f"the header {HEADER} says {length}, of {size} bytes")
    return length


def read_json(data: bytes | memoryview) -> dict[str, Any]:
    """The JSON object in a body; one that is empty is an empty object."""
    if len(data) > LARGEST_JSON:
        raise RequestError(
            413,
            f"{len(data)} bytes of JSON are more than {LARGEST_JSON}: send tensors as binary data",
        )
    try:
        document = json.loads(bytes(data), parse_constant=_no_number) if len(data) else {}
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error
    require(isinstance(document, dict), "the body is not a JSON object")
    found: dict[str, Any] = document
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def read_request(
    body: memoryview,
    header: int | None,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    takes_images: bool,
) -> InferRequest:
    """A request to a model of these inputs and outputs; `takes_images`: whether its one input may
    also be given as encoded images."""
    document = read_json(body if header is None else body[:header])
    parameters = _parameters(document)
    given = _by_name(_objects(document, "inputs"), inputs, "input")
    missing = [tensor.name for tensor in inputs if tensor.name not in given]
    require(not missing, f"the request lacks input {', '.join(map(repr, missing))}")
    binary = _binary_parts(given, body[len(body) if header is None else header :])
    arrays = [
        _read_input(given[tensor.name], tensor, binary.get(tensor.name), takes_images)
        for tensor in inputs
    ]
    identity = document.get("id")
    require(identity is None or isinstance(identity, str), "`id` is a string")
    wanted = _wanted(document, parameters, outputs)
    return InferRequest(identity, arrays, wanted, _timeout(parameters))


def _objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    require(
        isinstance(found, list) and all(isinstance(entry, dict) for entry in found),
        f"`{key}` is a list of objects",
    )
    assert isinstance(found, list)
    return found


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("parameters") or {}
    require(isinstance(found, dict), "`parameters` is an object")
    for name in NOT_SUPPORTED:
        require(not found.get(name), f"the parameter {name} is not supported")
    assert isinstance(found, dict)
    return found


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    found = parameters.get(name, default)
    require(isinstance(found, bool), f"the parameter {name} is true or false")
    return bool(found)


def _by_name(
    entries: Sequence[dict[str, Any]], known: Sequence[Tensor], what: str
) -> dict[str, dict[str, Any]]:
    """In the order of the request, which is that of the binary data."""
    names = [tensor.name for tensor in known]
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name = entry.get("name")
        require(
            isinstance(name, str) and name in names,
            f"the model has no {what} {name!r}: it has {', '.join(map(repr, names))}",
        )
        assert isinstance(name, str)
        require(name not in found, f"{what} {name!r} is there twice")
        found[name] = entry
    return found


def _binary_parts(given: Mapping[str, dict[str, Any]], binary: memoryview) -> dict[str, memoryview]:
    """The part of the binary data that is each input's, of those that have one."""
    parts, at = {}, 0
    for name, entry in given.items():
        size = _parameters(entry).get("binary_data_size")
        if size is None:
            continue
        require(_is_size(size), f"input {name!r}: binary_data_size is a number of bytes")
        require("data" not in entry, f"input {name!r} has `data` and binary data too")
        require(
            size <= len(binary) - at,
            f"input {name!r}: its binary data is {size} bytes, of which {len(binary) - at} are "
            "there",
        )
        parts[name] = binary[at : at + size]
        at += size
    require(at == len(binary), f"{len(binary) - at} bytes behind the request are no input's")
    return parts


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _read_input(
    entry: Mapping[str, Any], tensor: Tensor, binary: memoryview | None, takes_images: bool
) -> Array | Images:
    datatype, shape = entry.get("datatype"), entry.get("shape")
    what = f"input {tensor.name!r}"
    require(
        isinstance(shape, list) and all(map(_is_size, shape)), f"{what}: `shape` is a list of sizes"
    )
    assert isinstance(shape, list)
    require(binary is not None or "data" in entry, f"{what} has neither `data` nor binary data")
    if datatype == "BYTES" and takes_images:
        return _read_images(entry, tensor.name, shape, binary)
    require(
        datatype == tensor.datatype and tensor.takes(shape),
        f"{what} wants {tensor}{' or BYTES (images)' if takes_images else ''}, got "
        f"{str(datatype)[:20]!r}{str(shape)[:80]}",
    )
    if binary is not None:
        return from_binary(binary, tensor, shape)
    return from_json(entry["data"], tensor, shape)


def _read_images(
    entry: Mapping[str, Any], name: str, shape: list[int], binary: memoryview | None
) -> Images:
    count = prod(shape)
    require(
        shape in ([count], [count, 1]) and count >= 1,
        f"input {name!r}: images are BYTES[N] or BYTES[N, 1], got {str(shape)[:80]}",
    )
    require(count <= MOST_IMAGES, f"input {name!r}: {MOST_IMAGES} images at most")
    if binary is not None:
        return strings_from_binary(binary, name, count)
    return strings_from_json(entry["data"], name, count)


def _wanted(
    document: Mapping[str, Any], parameters: Mapping[str, Any], outputs: Sequence[Tensor]
) -> list[Wanted]:
    """The outputs that are asked for, in order: all of them where none is named."""
    binary = _flag(parameters, "binary_data_output", False)
    if not document.get("outputs"):
        return [Wanted(position, binary) for position in range(len(outputs))]
    asked = _by_name(_objects(document, "outputs"), outputs, "output")
    positions = {tensor.name: position for position, tensor in enumerate(outputs)}
    return [
        Wanted(positions[name], _flag(_parameters(entry), "binary_data", binary))
        for name, entry in asked.items()
    ]


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    """Triton's parameter of this name: microseconds; 0 is none."""
    found = parameters.get("timeout", 0)
    require(_is_size(found), "the parameter timeout is a number of microseconds")
    return float(min(found, 10**15)) / 1e6 or None


# -- writing --------------------------------------------------------------------------------


def write_answer(
    model: str,
    version: str,
    request: InferRequest,
    tensors: Sequence[Tensor],
    results: Sequence[Array],
) -> Answer:
    """The answer to a request, given all outputs of the model."""
    described: list[dict[str, Any]] = []
    parts: list[Array] = []
    for wanted in request.outputs:
        tensor, array = tensors[wanted.position], results[wanted.position]
        row: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(array.shape),
        }
        if wanted.binary:
            row["parameters"] = {"binary_data_size": array.nbytes}
            parts.append(array if array.flags.c_contiguous else array.copy())
        else:
            row["data"] = to_json(tensor.name, array)
        described.append(row)
    document = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        document["id"] = request.id
    header = json.dumps(document, allow_nan=False).encode()
    if not parts:
        return Answer(header, None)
    return Answer(b"".join([header, *(part.data for part in parts)]), len(header))
