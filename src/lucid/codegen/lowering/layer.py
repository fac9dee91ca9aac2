"""A convolution or linear layer about to be lowered, and the arguments all its kernels share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lucid.codegen.kernels.packing import Channels
from lucid.codegen.lowering.context import Lowering
from lucid.codegen.lowering.epilogue import Epilogue
from lucid.codegen.program.program import ArgumentValue, View
from lucid.codegen.scheduling.schedule import Choice
from lucid.codegen.target import Target
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.ops import Op, SplitAttention

POINTWISE = Choice("pointwise")


@dataclass
class Layer:
    """Anchor, operands, epilogue and result, and how the schedule wants it computed."""

    op: Op
    x: Value
    weight: Parameter
    bias: Parameter | None
    result: Value
    origin: str
    epilogue: Epilogue = field(default_factory=Epilogue)
    choice: Choice = POINTWISE

    def append(self, region: Graph, x: Value, tensors: Sequence[Value]) -> Value:
        """The layer in a region, from its input and the tensors its body reads."""
        parameters = [p for p in (self.weight, self.bias) if p is not None]
        own = [region.add_parameter(p.name, p.recipe) for p in parameters]
        node = region.append(self.op, [x, *own], origin=self.origin)
        return self.epilogue.append(region, node.output, tensors)


STEP = 0.85
"""What a step of k costs besides its multiply-adds, in those of one vector: a tile one vector wide
waits for its loads and its own sums. 196 rows of 480 take 21, 30, 40 and 52 us a panel of one to
four vectors."""


def panel_vectors(columns: int, target: Target) -> int:
    """Vectors of a panel: the widest, unless narrower ones waste less on the tail."""

    def cost(vectors: int) -> float:
        return -(-columns // (vectors * target.vector)) * (vectors + STEP)

    return min(range(target.panel_vectors, 0, -1), key=cost)


def bias_of(ctx: Lowering, layer: Layer, groups: int, width: int) -> ArgumentValue:
    """The packed bias; zeros where the layer has none."""
    channels = (ctx.shape(layer.weight)[0],)
    recipe = layer.bias.recipe if layer.bias is not None else None
    name = layer.bias.name if layer.bias is not None else f"zeros{channels[0]}"
    return ctx.weights(recipe, Channels(groups, width), channels, name)


def geometry(x: View, out: tuple[int, int]) -> dict[str, ArgumentValue]:
    """A map's strides and size, and the size of what is made of it."""
    _, _, height, width = x.shape
    image, _, line, pixel = x.strides
    return {
        "x": x,
        "image": image,
        "line": line,
        "pixel": pixel,
        "height": height,
        "width": width,
        "out_height": out[0],
        "out_width": out[1],
    }


def result_strides(y: View) -> dict[str, ArgumentValue]:
    """Where the pixels of a result lie."""
    image, _, line, pixel = y.strides
    return {"y_image": image, "y_line": line, "y_pixel": pixel}


def window(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> dict[str, ArgumentValue]:
    return {
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": stride[0],
        "stride_w": stride[1],
        "pad_top": padding[0],
        "pad_left": padding[1],
    }


def enough_chunks(ctx: Lowering, layer: Layer, tasks: int, panels: int) -> int:
    """Into how many chunks to split the panels of `tasks` tasks: none while there are tasks enough,
    since each chunk repeats what goes before its products."""
    if layer.choice.chunks:
        return min(panels, layer.choice.chunks)
    if ctx.threads == 1 or tasks >= ctx.threads:
        return 1
    return min(panels, -(-ctx.threads // tasks)) if tasks else 1


def feeds_attention(layer: Layer) -> bool:
    """Whether a split attention reads the result, and so its channel sums."""
    result = layer.result
    return any(isinstance(u.op, SplitAttention) and u.inputs[0] is result for u in result.users)


def sums_view(ctx: Lowering, layer: Layer, parts: int) -> View:
    """Where the channel sums go, [image][part of the image][channel]."""
    n, channels, *_ = ctx.shape(layer.result)
    strides = (parts * channels, channels, 1)
    sums = ctx.allocate(f"{layer.result.name}.sums", (n, parts, channels), strides)
    ctx.sums[layer.result] = sums
    return sums
