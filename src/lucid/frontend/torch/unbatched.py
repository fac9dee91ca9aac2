"""Operators of images that torch also takes without a batch.

    written("aten.max_pool2d.default", max_pool, writer, (x, 2))    # x: (C, H, W)

is written as the operator of a batch of one, whose results lose it again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lucid.frontend.torch.writer import Emitter, Writer
from lucid.ir.graph import Value

OF_IMAGES = re.compile(r"aten\._?(?:conv|conv_transpose|(?:adaptive_)?(?:avg|max)_pool)([123])d")
OF_PLANES = re.compile(r"aten\.im2col\b")


def written(name: str, emitter: Emitter, writer: Writer, arguments: Sequence[Any]) -> Any:
    """What the emitter of an operator gives for its arguments, the first of which is the image."""
    axes = _axes(name)
    if axes is None or len(writer.shape_of(arguments[0])) != axes + 1:
        return emitter(writer, *arguments)
    image, *others = arguments
    writer.shape = (1, *writer.shape)
    results = emitter(writer, writer.reshape(image, (1, *writer.shape_of(image))), *others)
    if isinstance(results, Value):
        return _first(writer, results)
    return [None if result is None else _first(writer, result) for result in results]


def _axes(name: str) -> int | None:
    """The axes that an operator's window has; None for operators of other kinds."""
    if OF_PLANES.match(name):
        return 2
    found = OF_IMAGES.match(name)
    return int(found.group(1)) if found else None


def _first(writer: Writer, result: Value) -> Value:
    return writer.reshape(result, result.type.shape[1:])
