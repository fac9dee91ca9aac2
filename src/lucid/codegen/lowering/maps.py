"""Shared by lowerings to kernels over maps: strides of pixels, and bodies with their operands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucid.codegen.kernels.body import PLAIN, Body, Extra
from lucid.codegen.kernels.packing import Flat
from lucid.codegen.language.kernel import MAP
from lucid.codegen.lowering.context import Lowering, channels_last
from lucid.codegen.lowering.epilogue import append_body, to_body
from lucid.codegen.lowering.fusion import parts
from lucid.codegen.lowering.strided import broadcast, copy
from lucid.codegen.program.program import ArgumentValue, View, WeightRef
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import Array, Constant, Fusion, Op
from lucid.ir.recipe import Apply


def pixels(ctx: Lowering, value: Value) -> View:
    """Where a map lies with the channels of each pixel side by side; copied if need be."""
    view = ctx.view(value)
    return view if view.shape[1] == 1 or view.strides[1] == 1 else ctx.rows_view(value)


def map_strides(name: str, view: View) -> dict[str, ArgumentValue]:
    """A map and its strides as arguments called `name`."""
    image, _, line, pixel = view.strides
    steps = zip(MAP, (image, line, pixel), strict=True)
    return {name: view, **{f"{name}_{axis}": step for axis, step in steps}}


def is_planar(x: View) -> bool:
    """Whether a map's planes are contiguous lines of pixels, evenly spaced."""
    n, channels, *_ = x.shape
    image, plane, _, pixel = x.strides
    return channels > 1 and plane != 1 and pixel == 1 and (n == 1 or image == channels * plane)


def planes(x: View) -> View:
    """Planar images as more images of one channel."""
    n, channels, height, width = x.shape
    _, plane, line, pixel = x.strides
    return x.over((n * channels, 1, height, width), (plane, 1, line, pixel))


def numbers(ctx: Lowering, array: Array, name: str) -> WeightRef:
    """Known numbers as a packed parameter."""
    recipe = Apply(Constant(tuple(float(v) for v in np.asarray(array).reshape(-1))))
    return ctx.weights(recipe, Flat(), (np.size(array),), name)


def region_of(ctx: Lowering, op: Op, reads: Sequence[View], origin: str) -> Graph:
    """The region of a call that computes one op of what it reads."""
    region, inputs = ctx.region(origin, reads)
    region.set_outputs([region.append(op, inputs, origin=origin).output])
    return region


class MapNode:
    """A node that makes a map, alone or with a body fused to it: what a kernel reads and computes.

    `op`: the op, or the fusion's anchor. `body`: as the kernel runs it, its extras `"vector"` or
    `"constant"` along the channels.
    """

    def __init__(self, ctx: Lowering, node: Node) -> None:
        self.node = node
        self.op: Op = node.op
        own: Sequence[Value] = node.inputs
        extras: Sequence[Value] = []
        graph: Graph | None = None
        if isinstance(node.op, Fusion):
            fusion, own, extras = parts(node)
            self.op, graph = fusion.anchor, fusion.body
        self.source = own[0]
        shape = ctx.shape(node.output)
        self._read = [self._operand(ctx, e, shape) for e in extras]
        self._extras = [broadcast(v, shape) for v in self._read]
        kinds = [
            Extra("constant" if v.strides[1] == 0 else "vector", v.dtype) for v in self._extras
        ]
        self.body: Body = PLAIN if graph is None else to_body(graph, kinds)

    @staticmethod
    def _operand(ctx: Lowering, value: Value, shape: tuple[int, ...]) -> View:
        """Where an extra operand lies, with its channels side by side."""
        view = ctx.view(value)
        if broadcast(view, shape).strides[1] in (0, 1):
            return view
        whole = broadcast(view, (1,) * (len(shape) - len(view.shape)) + view.shape)
        strides = channels_last(whole.shape)
        rows = ctx.allocate(f"{value.name}.rows", view.dtype, whole.shape, strides)
        copy(ctx, whole, rows, value.producer.origin if value.producer else "")
        return rows

    def operands(self, y: View) -> dict[str, ArgumentValue]:
        """The arguments for the result and the extra operands."""
        arguments = map_strides("y", y)
        for i, view in enumerate(self._extras):
            arguments |= map_strides(f"extra{i}", view)
        return arguments

    def meaning(self, ctx: Lowering, x: View) -> tuple[list[View], Graph]:
        """What the call reads, and its region."""
        reads = [x, *self._read]
        region, inputs = ctx.region(self.node.origin, reads)
        made = region.append(self.op, inputs[:1], origin=self.node.origin).output
        region.set_outputs([append_body(region, self.body, made, inputs[1:])])
        return reads, region
