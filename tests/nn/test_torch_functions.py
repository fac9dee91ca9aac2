"""Functions and layers of `lucid.nn` give what PyTorch's of the same name and arguments give.

The rows of `tests/data/torch_ops.npz` name the ops that they become; here is what makes those ops.
"""

import numpy as np
import pytest
from data.torch_ops import cases

import lucid
from lucid import Tensor, nn
from lucid.errors import LucidError, ShapeError
from lucid.ir import ops
from lucid.nn import functional as F

X = np.random.default_rng(0).standard_normal((2, 6, 5, 7)).astype(np.float32)


def call(op):
    """The function that makes this op, as a user calls it; None where there is none."""
    match op:
        case ops.Unary() if hasattr(F, op.name):
            return lambda x: getattr(F, op.name)(x, *vars(op).values())
        case ops.LayerNorm(axes=(3,)):
            return lambda x, *w: F.layer_norm(x, x.shape[3:], *w, eps=op.eps)
        case ops.LayerNorm(axes=(2, 3)):
            return lambda x, *w: F.layer_norm(x, x.shape[2:], *w, eps=op.eps)
        case ops.RmsNorm():
            return lambda x, *w: F.rms_norm(x, [x.shape[a] for a in op.axes], *w, eps=op.eps)
        case ops.GroupNorm():
            return lambda x, *w: F.group_norm(x, op.groups, *w, eps=op.eps)
        case ops.LocalResponseNorm():
            return nn.LocalResponseNorm(op.size, op.alpha, op.beta, op.k)
        case ops.AdaptiveAvgPool2d():
            return nn.AdaptiveAvgPool2d(op.size)
        case ops.AdaptiveMaxPool2d():
            return nn.AdaptiveMaxPool2d(op.size)
        case ops.Pad():
            mode = {"edge": "replicate"}.get(op.mode, op.mode)
            pads = [p for pair in zip(op.before, op.after, strict=True) for p in reversed(pair)]
            return lambda x: F.pad(x, pads[::-1], mode, float(op.value))
        case ops.Resize():
            return nn.Upsample(**resized(op))
    return None


def resized(op):
    told = {"size": op.size} if op.scale is None else {"scale_factor": op.scale}
    if op.mode == "bilinear":
        return told | {"mode": "bilinear", "align_corners": op.coordinates == "align_corners"}
    return told | {"mode": "nearest" if op.coordinates == "asymmetric" else "nearest-exact"}


CASES = [case for case in cases() if call(case.op)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_functions_are_those_of_pytorch(case):
    with np.errstate(all="ignore"):
        result = call(case.op)(*map(Tensor, case.operands)).numpy()
    np.testing.assert_allclose(result, case.result, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (nn.LeakyReLU(0.5), lambda x: np.where(x > 0, x, 0.5 * x)),
        (nn.PReLU(), lambda x: np.where(x > 0, x, 0.25 * x)),
        (nn.PReLU(6, 0.5), lambda x: np.where(x > 0, x, 0.5 * x)),
        (nn.Softplus(2.0), lambda x: np.log(1 + np.exp(2 * x)) / 2),
        (nn.LayerNorm(7, 0.1), lambda x: standard(x, 3, 0.1)),
        (nn.LayerNorm((5, 7), bias=False), lambda x: standard(x, (2, 3))),
        (nn.LayerNorm([7], elementwise_affine=False), lambda x: standard(x, 3)),
        (nn.RMSNorm(7), lambda x: x / np.sqrt((x**2).mean(3, keepdims=True) + 2.0**-23)),
        (nn.RMSNorm((7,), 0.5, False), lambda x: x / np.sqrt((x**2).mean(3, keepdims=True) + 0.5)),
        (nn.GroupNorm(6, 6), lambda x: standard(x, (2, 3))),
        (nn.GroupNorm(1, 6, affine=False), lambda x: standard(x, (1, 2, 3))),
        (nn.Upsample(scale_factor=2), lambda x: x.repeat(2, 2).repeat(2, 3)),
        (nn.AdaptiveMaxPool2d((1, None)), lambda x: x.max(2, keepdims=True)),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else None,
)
def test_layers_run_and_are_traced(layer, wanted):
    expected = wanted(X.astype(np.float64))
    np.testing.assert_allclose(layer(Tensor(X)).numpy(), expected, rtol=1e-4, atol=1e-5)
    graph = lucid.trace(layer, X.shape)
    np.testing.assert_allclose(
        lucid.ir.interpret(graph, [X], dtype=np.float64)[0], expected, rtol=1e-6, atol=1e-6
    )


def standard(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def test_scales_near_one_and_two_give_way_to_the_sizes():
    x = Tensor(X[:, :, :3, :3])
    np.testing.assert_array_equal(F.interpolate(x, scale_factor=1.1).numpy(), x.numpy())
    twice = F.interpolate(x, scale_factor=2.2).numpy()
    np.testing.assert_array_equal(twice, x.numpy().repeat(2, 2).repeat(2, 3))


def test_sizes_are_recomputed_where_asked():
    x = Tensor(X)
    again = F.interpolate(x, None, 1.7, "bilinear", False, True).numpy()
    np.testing.assert_array_equal(again, F.interpolate(x, (8, 11), mode="bilinear").numpy())


def test_negative_pads_cut():
    result = F.pad(Tensor(X), (-2, 1, 0, -1)).numpy()
    np.testing.assert_array_equal(result[..., :-1], X[:, :, :-1, 2:])
    assert (result[..., -1] == 0).all()
    assert F.pad(Tensor(X), (0, 0)).shape == X.shape


def test_a_bias_without_a_weight():
    result = F.layer_norm(Tensor(X), [7], bias=np.ones(7, np.float32)).numpy()
    np.testing.assert_allclose(result, standard(X, 3) + 1, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda x: F.layer_norm(x, [6]), ShapeError, r"does not end in normalized_shape \(6,\)"),
        (lambda x: F.rms_norm(x, []), ShapeError, "rms_norm: .* does not end in"),
        (lambda x: F.group_norm(x, 4), ShapeError, "6 channels cannot be split into 4 groups"),
        (lambda x: F.group_norm(Tensor([1.0]), 1), ShapeError, "group_norm: x must be"),
        (lambda x: nn.GroupNorm(4, 6), ShapeError, "must be a multiple of num_groups 4"),
        (lambda x: nn.PReLU(5)(x), ShapeError, "prelu: shapes"),
        (lambda x: F.pad(x, (1, 1), "circular"), LucidError, "mode must be one of constant"),
        (lambda x: F.pad(x, (1, 1, 1)), ShapeError, "is not two numbers"),
        (lambda x: F.pad(x, (7, 0), "reflect"), ShapeError, "too short for reflect padding"),
        (lambda x: F.interpolate(x, 3, 2.0), ShapeError, "one of size and scale_factor"),
        (lambda x: F.interpolate(x), ShapeError, "one of size and scale_factor"),
        (lambda x: F.interpolate(x, 3, mode="bicubic"), LucidError, "got 'bicubic'"),
        (lambda x: F.interpolate(x, 3, align_corners=True), LucidError, "align_corners is for"),
        (lambda x: F.interpolate(x, scale_factor=[2.0] * 3), ShapeError, "one or two numbers"),
        (lambda x: F.adaptive_avg_pool2d(x, (0, 1)), ShapeError, "must be positive"),
        (lambda x: F.adaptive_max_pool2d(x, 1, True), LucidError, "return_indices"),
        (lambda x: nn.AdaptiveMaxPool2d(1, True), LucidError, "return_indices"),
    ],
)
def test_what_does_not_fit_is_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make(Tensor(X))
