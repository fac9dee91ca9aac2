"""Every argument of every operator of PyTorch's that has an emitter is read by it, or may be
ignored for a reason that is given here.

Nothing is listed but those reasons: what is registered is looked up in torch's schemas, and what an
emitter reads in its code.
"""

import dis
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision", reason="its operators have emitters, too")

import lucid.frontend.torch  # noqa: E402, F401  # needs torch
from lucid.frontend.torch.writer import EMITTERS, emitter_of  # noqa: E402
from lucid.ir.ops import OPS  # noqa: E402

NAMESAKES = [
    f"aten.{cls.torch}.{overload}"
    for cls in OPS.values()
    if cls.torch
    for overload in getattr(torch.ops.aten, cls.torch).overloads()
    if emitter_of(f"aten.{cls.torch}.{overload}") is not None
]
"""Operators that need no emitter, since an op names them."""
NAMES = sorted({*EMITTERS, *NAMESAKES})

NO_MATTER = {
    "memory_format": "where elements lie in torch's memory",
    "layout": "where elements lie in torch's memory",
    "pin_memory": "where elements lie in torch's memory",
    "device": "where torch computes",
    "non_blocking": "when torch copies",
    "cudnn_enabled": "by what torch computes",
    "cudnn_enable": "by what torch computes",
    "half_to_float": "which floating dtype torch computes in: here it is f32",
    "momentum": "of running statistics, which only training changes",
    "padding_idx": "whose gradient training leaves out",
    "scale_grad_by_freq": "of gradients",
    "sparse": "of gradients",
    "sparse_grad": "of gradients",
    "sorted": "whether torch may give them in another order than the sorted one",
    "stable": "whether torch may give equal elements in another order than their own",
    "unsafe": "what torch checks beforehand",
    "implicit": "torch's own mark of who asked for the operator",
}
"""Arguments of any operator that change no element of its result."""
OF_SHAPE = "the result's shape says it, which torch has found"
OF_DTYPE = "the result's dtype says it, which torch has found"
NO_MATTER_TO = {
    OF_SHAPE: """
        view.size _unsafe_view.size view_copy.size _reshape_copy.size reshape.shape view_as.other
        reshape_as.other flatten.start_dim flatten.end_dim unflatten.dim unflatten.sizes
        unsqueeze.dim squeeze.dim logsumexp.keepdim kthvalue.keepdim
        expand.size broadcast_to.size expand_as.other as_strided.size as_strided_copy.size
        repeat_interleave.output_size adaptive_avg_pool1d.output_size
        adaptive_avg_pool2d.output_size _adaptive_avg_pool2d.output_size
        adaptive_avg_pool3d.output_size _adaptive_avg_pool3d.output_size
        adaptive_max_pool1d.output_size adaptive_max_pool2d.output_size
        adaptive_max_pool3d.output_size
        upsample_nearest1d.output_size _upsample_nearest_exact1d.output_size
        upsample_nearest2d.output_size _upsample_nearest_exact2d.output_size
        upsample_nearest3d.output_size _upsample_nearest_exact3d.output_size
        upsample_linear1d.output_size upsample_bilinear2d.output_size
        upsample_trilinear3d.output_size
        upsample_bicubic2d.output_size _upsample_bicubic2d_aa.output_size
        _upsample_bilinear2d_aa.output_size
        native_group_norm.N native_group_norm.C native_group_norm.HxW
    """,
    OF_DTYPE: """
        _to_copy.dtype to.dtype to.other type_as.other
        dequantize_per_tensor.out_dtype dequantize_per_channel.out_dtype
    """,
    "what is within it is dequantised as what is not": """
        dequantize_per_tensor.quant_min dequantize_per_tensor.quant_max
        dequantize_per_channel.quant_min dequantize_per_channel.quant_max
    """,
    "no element of it is left": "copy.self fill.self",
    "values are never shared in a graph": "to.copy",
}
"""Arguments of single operators that change no element beyond what else is known of the result."""


def schema(name: str) -> Any:
    """Of the overload that is registered as `name`."""
    namespace, packet, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload)._schema


def names_read(code: CodeType) -> Iterator[str]:
    """The local variables that a function loads, those within it too."""
    for step in dis.get_instructions(code):
        if step.opname.startswith("LOAD_"):
            yield from step.argval if isinstance(step.argval, tuple) else [str(step.argval)]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_read(constant)


def unread(emitter: Callable[..., Any], count: int) -> list[int]:
    """Which of the `count` arguments of an operator an emitter does not read."""
    signature = inspect.signature(emitter)
    signature.bind(None, *range(count))  # raises TypeError where they do not fit
    parameters = list(signature.parameters.values())[1:]
    read = set(names_read(emitter.__code__))
    return [i for i in range(count) if parameters[min(i, len(parameters) - 1)].name not in read]


def may_be_ignored(name: str, argument: str) -> bool:
    packet = name.split(".")[1]
    listed = any(f"{packet}.{argument}" in names.split() for names in NO_MATTER_TO.values())
    return argument in NO_MATTER or listed


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_read_or_may_be_ignored(name: str) -> None:
    arguments = schema(name).arguments
    ignored = [arguments[i].name for i in unread(emitter_of(name), len(arguments))]
    wrong = [a for a in ignored if not may_be_ignored(name, a)]
    assert not wrong, f"the emitter of {name} neither reads nor checks {', '.join(wrong)}"


def test_unread_arguments_are_found() -> None:
    def swallows(w: Any, x: Any, *options: Any) -> Any:
        return w, x

    def leaves(w: Any, x: Any, beta: float, threshold: float) -> Any:
        return (lambda: x * beta)()

    def passes_on(w: Any, x: Any, *options: Any) -> Any:
        return leaves(w, x, *options)

    assert unread(swallows, 3) == [1, 2]
    assert unread(leaves, 3) == [2]
    assert unread(passes_on, 3) == []
    with pytest.raises(TypeError):
        unread(leaves, 4)


def test_no_reason_is_left_over() -> None:
    """Every argument that may be ignored is one that some emitter does ignore."""
    found = set()
    for name, emitter in EMITTERS.items():
        arguments = schema(name).arguments
        for i in unread(emitter, len(arguments)):
            found |= {arguments[i].name, f"{name.split('.')[1]}.{arguments[i].name}"}
    listed = {n for names in NO_MATTER_TO.values() for n in names.split()}
    assert listed | set(NO_MATTER) <= found
