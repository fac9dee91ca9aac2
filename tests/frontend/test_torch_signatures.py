"""PyTorch modules of any signature: inputs, outputs, dtypes, sizes; what is exported how often."""

import dataclasses
import gc
import tempfile
import weakref
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lucid
from lucid.errors import InputError, TraceError, UnsupportedError
from lucid.ir.printer import print_graph
from lucid.runtime.planner import MAX_BATCH

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

from lucid.frontend.torch import exported, import_torch  # noqa: E402  # needs torch

r = torch.randn
Pair = namedtuple("Pair", "first second")


class Of(nn.Module):
    """A function of a module and any arguments as a module, perhaps with parts."""

    def __init__(self, function: Any, **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *xs: Any, **named: Any) -> Any:
        return self.function(self, *xs, **named)


def flat(nested: Any) -> list[Any]:
    if isinstance(nested, dict):
        nested = list(nested.values())
    return [v for k in nested for v in flat(k)] if isinstance(nested, tuple | list) else [nested]


def agrees(function: Any, *calls: tuple[Any, ...], **parts: Any) -> Any:
    """The compiled module, which gives for all calls what the module does, of the same dtypes."""
    module = Of(function, **parts).eval()
    fast = lucid.compile(module, example_inputs=calls[0], threads=1)
    for call in calls:
        with torch.no_grad():
            wanted = module(*call)
        got = fast(*flat(call))
        assert isinstance(got, dict) == isinstance(wanted, dict)
        for g, w in zip(flat(got), flat(wanted), strict=True):
            if not isinstance(w, torch.Tensor):
                assert g == w
                continue
            small = w.dtype in (torch.float16, torch.bfloat16)
            tolerance = 1e-2 if small else 1e-5
            torch.testing.assert_close(torch.as_tensor(g), w, rtol=tolerance, atol=tolerance)
    return fast


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shapes that torch.export is called with."""
    called: list[Any] = []
    real = exported.exported_program

    def counted(module: Any, calling: Any, shapes: Any, axes: Any) -> Any:
        called.append(shapes)
        return real(module, calling, shapes, axes)

    monkeypatch.setattr(exported, "exported_program", counted)
    return called


# -- inputs -------------------------------------------------------------------------------------


def test_several_inputs_by_position_and_by_name() -> None:
    class Net(nn.Module):
        def forward(self, image: Any, mask: Any, *, scale: Any, shift: int = 0) -> Any:
            return image * scale[:, None, None] + mask.float() + shift

    image, mask, scale = r(2, 3, 4), r(2, 3, 4) > 0, r(2)
    named = {"shift": 3, "scale": scale}
    fast = lucid.compile(Net(), example_inputs=(image, mask), kwargs=named, threads=1)
    assert [i.name for i in fast.inputs] == ["image", "mask", "scale"]
    wanted = Net()(image, mask, **named)
    torch.testing.assert_close(fast(image, mask, scale), wanted)
    torch.testing.assert_close(fast(image, mask=mask, scale=scale), wanted)
    with pytest.raises(InputError, match="image, mask, scale"):
        fast(image, mask, size=scale)


def test_nested_inputs_are_named_after_their_place() -> None:
    class Net(nn.Module):
        def forward(self, pair: Any, options: Any, *more: Any) -> Any:
            return pair[0] + pair[1][0] * options["gain"] + more[0] - more[1]

    given = ((r(2, 3), [r(2, 3)]), {"gain": r(2, 3), "mode": "fast"}, r(2, 3), r(2, 3))
    fast = lucid.compile(Net(), example_inputs=given, threads=1)
    names = [i.name for i in fast.inputs]
    assert names == ["pair_0", "pair_1_0", "options_gain", "more_0", "more_1"]
    tensors = [t for t in flat(given) if isinstance(t, torch.Tensor)]
    torch.testing.assert_close(fast(*tensors), Net()(*given))


@pytest.mark.parametrize(
    "kind", ["float16", "bfloat16", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]
)
def test_inputs_and_outputs_of_every_dtype(kind: str) -> None:
    x = torch.arange(-4, 8).reshape(3, 4).to(getattr(torch, kind))
    fast = agrees(lambda m, x: (x, x.float() * 2, torch.cat([x, x], 1)), (x,), (x[:2],))
    assert fast.inputs[0].dtype == kind == fast.outputs[2].dtype


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_floats(kind: Any) -> None:
    agrees(lambda m, x: m.c(x), (r(2, 3, 5, 5).to(kind),), c=nn.Conv2d(3, 4, 3).to(kind))


def test_scalars_and_tokens() -> None:
    agrees(lambda m, x, t: x * t + t, (r(2, 3), torch.tensor(2.5)), (r(4, 3), torch.tensor(-1.0)))
    words = [(torch.randint(0, 9, (n, length)),) for n, length in ((2, 5), (3, 7))]
    agrees(lambda m, t: m.e(t).mean(1), *words, e=nn.Embedding(9, 4))


# -- integers -----------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "arithmetic": lambda m, a, b: (a + b, a * 3 - b, -a, a.abs(), a + True, 7 - a),
    "division": lambda m, a, b: (a // 3, a % 5, torch.div(a, 7, rounding_mode="trunc"), a / 2),
    "comparison": lambda m, a, b: (a > b, a == b, a != a, a >= 0, a < 2**55),
    "bits": lambda m, a, b: (a & b, a | 3, a ^ b, ~a, a << 1, a >> 2),
    "choice": lambda m, a, b: (torch.where(a > b, a, b), a.clamp(0, 10), torch.maximum(a, b)),
    "reduction": lambda m, a, b: (a.sum(1), a.amax(1), (a > b).sum(1), a.float().mean(1)),
    "rounding": lambda m, a, b: (a.floor(), a.ceil(), a.round(), a.trunc(), a.relu(), a.sign()),
    "conversion": lambda m, a, b: (a.to(torch.int32) + 1, (a > b) + a, a.bool(), a.double()),
}


@pytest.mark.parametrize("name", WHOLE)
def test_integers_stay_exact(name: str) -> None:
    """Beyond 2^24 as well, where float32 has no odd numbers."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randint(-(2**60), 2**60, (3, 5), generator=generator) for _ in "ab")
    agrees(WHOLE[name], (a, b))


def test_numbers_beyond_a_small_dtype() -> None:
    x = torch.tensor([[0, 200, 255]], dtype=torch.uint8)
    agrees(lambda m, x: (x > -1, x == 256, x + 100, x.to(torch.int16) - 300), (x,))


# -- outputs ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Found:
    boxes: Any
    count: Any = None


torch.export.register_dataclass(Found, serialized_type_name="Found")


def test_outputs_come_back_as_they_nest() -> None:
    def nested(m: Any, x: Any) -> Any:
        return {"pair": Pair(x + 1, [x * 2, {"deep": x.sum(1)}]), "none": None, "three": 3}

    y = agrees(nested, (r(2, 3),))(r(2, 3))
    assert list(y) == ["pair", "none", "three"]
    assert type(y["pair"]).__name__ == "Pair"
    assert isinstance(y["pair"].second, list)
    one = lucid.compile(Of(lambda m, x: [x * 2]), (2, 3), threads=1)(r(2, 3))
    assert isinstance(one, list)
    found = lucid.compile(Of(lambda m, x: Found(x * 2, 5)), (2, 3), threads=1)(r(2, 3))
    assert set(found) == {"boxes", "count"}
    assert found["count"] == 5


def test_outputs_that_are_not_computed_from_the_batch() -> None:
    parts = {"c": nn.Linear(3, 4), "anchors": nn.Parameter(r(6, 4))}
    agrees(
        lambda m, x: (m.c(x), m.anchors.detach(), x, torch.arange(5), x.mean(), x > 0, x.shape[1]),
        (r(2, 3),),
        (r(4, 3),),
        **parts,
    )


# -- sizes --------------------------------------------------------------------------------------


def test_one_export_serves_every_batch_and_later_compilations(exports: list[Any]) -> None:
    module = nn.Conv2d(3, 4, 3).eval()
    x = r(5, 3, 8, 9)
    for shape in ((2, 3, 8, 9), (1, 3, 8, 9)):
        fast = lucid.compile(module, shape, threads=1)
        torch.testing.assert_close(fast(x), module(x).detach(), rtol=1e-5, atol=1e-5)
    assert len(exports) == 1
    with torch.no_grad():
        module.weight.mul_(2)
    fast = lucid.compile(module, (2, 3, 8, 9), threads=1)
    torch.testing.assert_close(fast(x), module(x).detach(), rtol=1e-5, atol=1e-5)
    assert len(exports) == 1


def test_from_the_second_size_on_an_export_serves_all(exports: list[Any]) -> None:
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(3))
    module = nn.Sequential(*layers).eval()
    graphs = {}
    for height, width in ((8, 9), (10, 9), (12, 12), (15, 7)):
        graphs[height, width] = import_torch(module, (2, 3, height, width))
    assert len(exports) == 2
    for (height, width), graph in graphs.items():
        exported._kept.clear()
        again = import_torch(module, (2, 3, height, width))
        assert print_graph(again) == print_graph(graph)


def test_a_size_outside_of_what_torch_has_seen_is_exported_anew(exports: list[Any]) -> None:
    def branches(m: Any, x: Any) -> Any:
        return x.sum(2) if x.shape[2] > 6 else x[:, :, :1].reshape(x.shape[0], -1) * 2

    fast = agrees(branches, (r(2, 3, 8),), (r(2, 3, 9),), (r(2, 3, 10),), (r(2, 3, 5),))
    agreed = len(exports)
    torch.testing.assert_close(fast(r(2, 3, 1)).shape, torch.Size([2, 3]))
    assert agreed == 3
    assert len(exports) > agreed


def test_a_changed_module_is_exported_anew(exports: list[Any]) -> None:
    def changes() -> Iterator[Any]:
        module = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.1), Of(lambda m, x: x))
        yield module
        module[1].negative_slope = 0.5
        yield module
        module[2].function = lambda m, x: x * 2
        yield module
        module[0] = nn.Linear(3, 5)
        yield module
        module[0].register_forward_hook(lambda m, given, y: y + 1)
        yield module

    x = r(2, 3)
    for count, module in enumerate(changes()):
        fast = lucid.compile(module, (2, 3), threads=1)
        torch.testing.assert_close(fast(x), module.eval()(x).detach(), rtol=1e-5, atol=1e-5)
        assert len(exports) == count + 1


def test_programs_go_with_their_module() -> None:
    module = nn.Linear(3, 4)
    import_torch(module, (2, 3))
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x.reshape(2, 3, -1).softmax(0),
        lambda m, x: x - x.mean(0),
        lambda m, x: x.sort(0)[0],
        lambda m, x: x / x.shape[0],
    ],
)
def test_batches_that_mix_or_are_fixed(function: Any) -> None:
    agrees(function, (r(2, 3, 4),))


def test_a_fixed_batch_leaves_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fast = agrees(lambda m, x: x.view(3, 4, -1) * 2, (r(3, 4, 5),))
    with pytest.raises(TraceError, match=r"for an input of \(2, 5, 7\).*'\[3, 4, -1\]' is invalid"):
        fast(r(2, 5, 7))
    assert len(list(tmp_path.iterdir())) == 1  # of the second, which torch cannot export


def test_an_export_that_takes_too_long_is_given_up(
    exports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the sizes are fixed then."""
    monkeypatch.setattr(exported, "PATIENCE", -1e9)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    for size in (8, 9, 10):
        import_torch(module, (2, 3, size, size))
    assert len(exports) == 5


# -- sizes that depend on elements ----------------------------------------------------------------

boxes = torch.tensor([[0.0, 0, 9, 9], [1, 1, 10, 10], [20, 20, 30, 30], [21, 20, 30, 31]])


def found(m: Any, x: Any) -> Any:
    y = m.c(x).flatten(2)[0].T
    keep = (y[:, 0] > 0).nonzero()[:, 0]
    return {"rows": m.l(y[keep]) * 2, "keep": keep}


STAGED: dict[str, tuple[Any, list[Any], dict[str, Any]]] = {
    "nonzero": (lambda m, x: (x > 0).nonzero(), [(r(2, 3),), (r(3, 5),)], {}),
    "mask": (lambda m, x: m.l(x[x[:, 0] > 0]), [(r(6, 3),), (r(7, 3),)], {"l": nn.Linear(3, 2)}),
    "nothing": (lambda m, x: x[x > 1e9] + 1, [(r(6, 3),)], {}),
    "one mask for several": (
        lambda m, x: (x[(k := x[:, 0] > 0)] * 2, (x + 1)[k].relu(), x.sum(1)[k]),
        [(r(6, 3),), (r(6, 3),), (r(6, 3),)],
        {},
    ),
    "masked_select": (lambda m, x: x.masked_select(x[:, :1] > 0) * 2, [(r(6, 3),)], {}),
    "bfloat16": (
        lambda m, x: (x.bfloat16()[x[:, 0] > 0] * 2).float(),
        [(r(6, 3),), (r(6, 3),), (r(6, 3),)],
        {},
    ),
    "unique": (
        lambda m, x: torch.unique((x * 2).int(), return_inverse=True),
        [(r(6, 3),), (r(6, 3),)],
        {},
    ),
    "twice": (lambda m, x: (y := x[x > 0] * 2)[y < 1].cos(), [(r(6, 3),), (r(6, 3),)], {}),
    "number": (lambda m, x: (x * x.sum().item(), x[0, 1:].relu()), [(r(2, 3),), (r(2, 3),)], {}),
    "count": (
        lambda m, x: x / (n := (x > 0).sum().item()) + torch.full((2, 3), n),
        [(r(2, 3).exp(),), (r(2, 3).abs(),)],
        {},
    ),
    "in the middle": (
        found,
        [(r(1, 3, 6, 6),), (r(1, 3, 6, 6),), (r(1, 3, 7, 5),)],
        {"c": nn.Conv2d(3, 4, 3), "l": nn.Linear(4, 2)},
    ),
}


@pytest.mark.parametrize("name", STAGED)
def test_sizes_that_depend_on_elements(name: str) -> None:
    function, calls, parts = STAGED[name]
    agrees(function, *calls, **parts)


def test_boxes_that_are_kept() -> None:
    torchvision = pytest.importorskip("torchvision")
    scores = [torch.tensor(s) for s in ([0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4])]
    classes = torch.tensor([0, 1, 0, 0])
    nms, batched_nms = torchvision.ops.nms, torchvision.ops.batched_nms
    agrees(lambda m, b, s: nms(b, s, 0.5), *((boxes, s) for s in scores))
    agrees(
        lambda m, b, s, c: (k := batched_nms(b, s, c, 0.5), b[k] * 2, s[k]),
        *((boxes, s, classes) for s in scores),
    )


def test_what_runs_in_torch_is_refused_where_that_is_wanted() -> None:
    """A number that is read of a tensor is nothing that runs."""
    options = lucid.CompileOptions(host_ops="refuse")
    module = Of(lambda m, x: x.relu().nonzero() + 1)
    with pytest.raises(UnsupportedError, match=r"1 operator of Of would run .*\n  aten\.nonzero"):
        lucid.compile(module, example_inputs=(r(2, 3),), threads=1, options=options)
    module = Of(lambda m, x: x * x.sum().item())
    fast = lucid.compile(module, example_inputs=(r(2, 3),), threads=1, options=options)
    np.testing.assert_array_equal(fast(np.full((2, 3), 2, np.float32)), np.full((2, 3), 24.0))


def test_one_graph_cannot_be_had_of_them() -> None:
    with pytest.raises(UnsupportedError, match="depends on the elements of a tensor, by aten"):
        import_torch(Of(lambda m, x: x[x > 0]), (2, 3))


# -- what is said -------------------------------------------------------------------------------


def test_inputs_that_the_forward_does_not_take() -> None:
    class Two(nn.Module):
        def forward(self, image: Any, mask: Any = None) -> Any:
            return image * 2

    takes = r"the forward of Two takes image, mask \(optional\), got "
    x = r(2, 3)
    with pytest.raises(InputError, match=takes + r"1 by position and masks by name"):
        lucid.compile(Two(), example_inputs=(x,), kwargs={"masks": x})
    with pytest.raises(InputError, match=takes + "3 by position"):
        lucid.compile(Two(), example_inputs=(x, x, x))
    with pytest.raises(InputError, match=r"a tensor, an array, .*; got a set"):
        lucid.compile(Two(), example_inputs=({x},))
    with pytest.raises(InputError, match=r"input image is of torch\.complex64"):
        lucid.compile(Two(), example_inputs=(x.to(torch.complex64),))


def test_a_forward_that_branches_on_elements() -> None:
    module = Of(lambda m, a, b: a * 2 if b.sum() > 0 else a)
    with pytest.raises(TraceError, match=r"for inputs of \(2, 3\) and \(4\).*must not branch"):
        lucid.compile(module, example_inputs=(r(2, 3), r(4)))


def test_floats_of_other_dtypes_than_the_weights() -> None:
    fast = lucid.compile(nn.Linear(3, 4))
    with pytest.raises(InputError, match=r"Linear multiplies float32 by float64.*convert its inp"):
        fast(np.ones((2, 3)))


def test_arrays_are_examples_too() -> None:
    given = (np.ones((2, 3), np.float32), np.array([[1], [2]], np.int32))
    fast = lucid.compile(Of(lambda m, x, i: x * i), example_inputs=given, threads=1)
    assert [i.dtype for i in fast.inputs] == ["float32", "int32"]
    np.testing.assert_array_equal(fast(*given), given[0] * given[1])


@pytest.mark.parametrize("function", [lambda _, x: x * 2j, lambda _, x: x.to(torch.complex64)])
def test_complex_numbers_are_refused(function):
    with pytest.raises(UnsupportedError, match="its result is of complex numbers"):
        lucid.compile(Of(function), example_inputs=(r(2, 3),))


@pytest.mark.parametrize("axis", [0, 2])
def test_numbers_that_depend_on_sizes_are_not_those_of_another_size(axis):
    fast = lucid.compile(Of(lambda _, x: (x * 2, x.shape[axis])), example_inputs=(r(2, 3, 4),))
    x = np.ones((2, 3, 4), np.float32)
    assert fast(x)[1] == x.shape[axis]
    with pytest.raises(TraceError, match="depend on the sizes of its inputs"):
        fast(np.ones((5, 3, 6), np.float32))
    assert fast(x)[1] == x.shape[axis]


class Weighted(nn.Module):
    def forward(self, rows, weights):
        return rows * weights


@pytest.mark.parametrize("size", [1, MAX_BATCH])
def test_slices_of_the_shapes_of_a_graph_without_a_batch(size):
    """A slice of a batch may have the shapes that a graph without a batch was compiled for: its
    results are written to the rows of the slice all the same."""
    torch.manual_seed(0)
    weights = torch.randn(size)
    fast = lucid.compile(Weighted(), example_inputs=(torch.zeros(size, size), weights), threads=1)
    for batch in (size, MAX_BATCH + 1, 2 * MAX_BATCH + size, 3, 0, size):
        rows = torch.randn(batch, size)
        np.testing.assert_array_equal(fast(rows.numpy(), weights.numpy()), rows * weights)
    assert fast.profile((np.zeros((2 * MAX_BATCH + 1, size), np.float32), weights.numpy())).calls
