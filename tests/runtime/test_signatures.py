"""Compiled models of any signature: inputs and outputs of all kinds, with a batch or without."""

import pickle
from collections import namedtuple

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.errors import InputError
from lucid.frontend.sources import GivenGraph
from lucid.ir.batch import obstacle
from lucid.ir.graph import Graph
from lucid.ir.interpret import interpret
from lucid.ir.samples import sample_inputs, sample_payload
from lucid.ir.structure import Structure
from lucid.ir.text import parse_graph
from lucid.ir.types import DTYPES, TensorType, batch_of
from lucid.runtime.planner import MAX_BATCH

BATCHES = (1, 3, MAX_BATCH, MAX_BATCH + 1, 0)


def graph(text: str) -> Graph:
    made = parse_graph(f"graph {text}")
    made.payload = sample_payload(made)
    return made


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def assert_right(made: Graph, compiled: lucid.CompiledModel, batch: int) -> None:
    """Right, and no result in the memory of an input."""
    inputs = sample_inputs(made, batch)
    results = as_tuple(compiled(*inputs))
    wanted = interpret(made, inputs)
    for result, exact, value in zip(results, wanted, made.outputs, strict=True):
        assert (result.shape, result.dtype) == (exact.shape, DTYPES[value.type.dtype])
        np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-6)
        assert not any(np.may_share_memory(result, x) for x in inputs)
    assert len({r.__array_interface__["data"][0] for r in results if r.size}) == sum(
        r.size > 0 for r in results
    )


MIXING = {
    "softmax(%x: f32[N,4]) -> f32[N,4] { %y = softmax(%x) {axis=0} : f32[N,4] return %y }": (
        "batch: %y = softmax mixes rows, so that it is run whole"
    ),
    "sum(%x: f32[N,4]) -> f32[4], f32[N,4] { %y = sum(%x) {axes=(0)} : f32[4] return %y, %x }": (
        "batch: %y = sum mixes rows, so that it is run whole"
    ),
    "turn(%x: f32[N,4]) -> f32[4,N] { %z = permute(%x) {axes=(1,0)} : f32[4,N] return %z }": (
        "batch: the batch is not in front of %z: f32[4,N], so that it is run whole"
    ),
    "wide(%x: f32[3,N]) -> f32[3,N] { %z = relu(%x) : f32[3,N] return %z }": (
        "batch: the batch is not in front of %x: f32[3,N], so that it is run whole"
    ),
}
APART = [
    "one(%x: f32[N,4], %y: f32[4]) -> f32[N,4] { %z = add(%x, %y) : f32[N,4] return %z }",
    "two(%x: f32[2N,4], %y: f32[N,8]) -> f32[N,8] { %r = reshape(%x) {shape=(N,8)} : f32[N,8]"
    " %z = add(%r, %y) : f32[N,8] return %z }",
    "kept(%x: f32[N,2], %t: i64[3]) -> f32[4], f32[N,2], f32[4], f32[N,2], i64[3]"
    " { param @w: f32[4] return @w, %x, @w, %x, %t }",
    "table(%x: f32[N,2], %t: f32[4]) -> f32[N,2], f32[4]"
    " { %y = relu(%x) : f32[N,2] %z = relu(%t) : f32[4] return %y, %z }",
]
FIXED = [
    "fixed(%x: f32[4,3]) -> f32[4,3] { %z = relu(%x) : f32[4,3] return %z }",
    "scalars(%x: f32[], %y: f32[]) -> f32[], f32[] { %z = add(%x, %y) : f32[] return %z, %x }",
    "none() -> f32[4], f32[2] { param @w: f32[4] %y = relu(@w) : f32[4]"
    " %c = constant() {value=(1.0,2.0)} : f32[2] return %y, %c }",
    "empty(%x: f32[0,3], %y: f32[3,0]) -> f32[0,0], f32[3,3] { %z = matmul(%x, %y) : f32[0,0]"
    " %w = matmul(%y, %x) : f32[3,3] return %z, %w }",
]


@pytest.mark.parametrize(("text", "told"), MIXING.items())
def test_a_batch_of_dependent_rows_is_never_sliced(text: str, told: str) -> None:
    made = graph(text)
    compiled = lucid.compile(made, threads=1)
    for batch in BATCHES:
        assert_right(made, compiled, batch)
        shapes = made.input_shapes(batch)
        assert compiled.prepare(shapes).batch == batch
    assert str(compiled.explanation()).splitlines()[1].strip() == told


@pytest.mark.parametrize("text", APART)
def test_independent_rows_run_in_slices(text: str) -> None:
    made = graph(text)
    compiled = lucid.compile(made, threads=1)
    for batch in BATCHES:
        assert_right(made, compiled, batch)
        assert compiled.prepare(made.input_shapes(batch)).batch == max(1, min(batch, MAX_BATCH))
    told = f"batch: rows are independent, run in slices of {MAX_BATCH}"
    assert compiled.explanation().batch == told
    inputs = sample_inputs(made, MAX_BATCH + 5)
    for whole, other in zip(
        as_tuple(compiled(*inputs)),
        as_tuple(lucid.compile(made, threads=2)(*inputs)),
        strict=True,
    ):
        np.testing.assert_array_equal(whole, other)


@pytest.mark.parametrize("text", FIXED)
def test_no_batch(text: str) -> None:
    made = graph(text)
    compiled = lucid.compile(made, threads=1)
    assert_right(made, compiled, 1)
    assert compiled.explanation().batch == "no batch: all sizes are fixed"
    assert compiled.input_shapes == made.input_shapes(1)


def test_a_fixed_batch_is_no_other() -> None:
    compiled = lucid.compile(graph(FIXED[0]), threads=1)
    with pytest.raises(InputError, match=r"^x wants f32\[4,3\] .*float32\[5,3\].* has one size: "):
        compiled(np.zeros((5, 3), np.float32))
    with pytest.raises(InputError, match=r"float32\[4\]"):
        compiled(np.zeros(4, np.float32))


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "bf16"])
def test_arrays_of_any_dtype(name: str) -> None:
    made = graph(
        f"any(%x: {name}[N,4], %s: {name}[], %e: {name}[0,3])"
        f" -> {name}[N,4], {name}[], {name}[4,N], {name}[0,3]"
        f" {{ %z = permute(%x) {{axes=(1,0)}} : {name}[4,N] return %x, %s, %z, %e }}"
    )
    compiled = lucid.compile(made, threads=1)
    assert {spec.dtype for spec in (*compiled.inputs, *compiled.outputs)} == {str(DTYPES[name])}
    for batch in (2, 0):
        assert_right(made, compiled, batch)
    wrong = np.zeros((2, 4), np.complex64)
    advice = rf"convert it with x.astype\(np.{DTYPES[name]}\)$"
    with pytest.raises(InputError, match=rf"^x wants {name}\[N,4\] .*{advice}"):
        compiled(wrong, *sample_inputs(made, 1)[1:])


BFLOAT = (
    "h(%x: bf16[N,4]) -> bf16[N,2] { %y = slice(%x) {axis=1,start=2,stop=4} : bf16[N,2] return %y }"
)


def test_bfloat16_arrays() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    compiled = lucid.compile(graph(BFLOAT), threads=1)
    assert str(compiled.inputs[0]) == "x: bfloat16[N,4]"
    x = np.array([[1.5, -2, 0, 3e38]] * 20, ml_dtypes.bfloat16)
    y = compiled(x)
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y.view(np.uint16), x.view(np.uint16)[:, 2:])
    np.testing.assert_array_equal(compiled(x.view(np.uint16)), y)
    out = np.zeros_like(y)
    assert compiled(x, out=out) is out
    np.testing.assert_array_equal(out, y)
    with pytest.raises(InputError, match=r"x.astype\(ml_dtypes.bfloat16\)"):
        compiled(x.astype(np.float32))
    torch = pytest.importorskip("torch")
    t = torch.tensor(x.astype(np.float32)).to(torch.bfloat16)
    assert torch.equal(compiled(t), t[:, 2:])


def test_bfloat16_without_a_package_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    compiled = lucid.compile(graph(BFLOAT), threads=1)
    y = compiled(np.full((1, 4), 0x3FC0, np.uint16))
    np.testing.assert_array_equal(y, np.full((1, 2), 1.5, np.float32))


def test_numbers_for_scalars() -> None:
    made = graph(
        "s(%x: f32[], %i: i32[], %b: bool[]) -> f32[], i32[], bool[] { return %x, %i, %b }"
    )
    compiled = lucid.compile(made, threads=1)
    x, i, b = compiled(2, 7, True)
    assert (x.shape, x.dtype, float(x), int(i), bool(b)) == ((), np.float32, 2.0, 7, True)
    for given in ((1.0, 2.5, True), (1.0, 1 << 40, True), (1.0, float("nan"), True), (1.0, 1, 2)):
        with pytest.raises(InputError, match=r"^(i|b) wants (i32|bool)\[\] .*a scalar.*is no "):
            compiled(*given)
    with pytest.raises(InputError, match=r"^x wants f32\[\] \(float32, a scalar\), got"):
        compiled(np.zeros((1,), np.float32), 1, True)


# -- how a call gives its inputs ------------------------------------------------------------------


def test_one_mapping_is_all_inputs_by_name() -> None:
    made = graph(APART[0])
    compiled = lucid.compile(made, threads=1)
    x, y = sample_inputs(made, 2)
    wanted = compiled(x, y)
    np.testing.assert_array_equal(compiled({"y": y, "x": x}), wanted)
    with pytest.raises(InputError, match=r"^one takes 2 inputs \(x, y\), got x, z by name$"):
        compiled({"x": x, "z": y})
    alone = lucid.compile(graph(FIXED[0]), threads=1)
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(alone({"x": x}), alone(x))
    with pytest.raises(InputError, match=r"takes 1 input \(x\), got 0 by position$"):
        alone()
    with pytest.raises(InputError, match=r"takes 0 inputs, got 1 by position"):
        lucid.compile(graph(FIXED[2]), threads=1)(x)


def test_sizes_that_contradict_each_other() -> None:
    compiled = lucid.compile(graph(APART[1]), threads=1)
    x, y = np.zeros((6, 4), np.float32), np.zeros((2, 8), np.float32)
    message = r"have one batch, got 6 of x \(which is 2N\), 2 of y$"
    with pytest.raises(InputError, match=message):
        compiled(x, y)
    with pytest.raises(InputError, match=message):
        compiled.prepare([x.shape, y.shape])
    with pytest.raises(InputError, match=r"input x has one size: f32\[2N,4\]$"):
        compiled(x[:5], y)


def test_examples_and_shapes_say_what_a_model_is_compiled_for() -> None:
    made = graph(APART[0])
    x, y = sample_inputs(made, 3)
    for how in (
        {"example_inputs": (x, y)},
        {"example_inputs": (x,), "kwargs": {"y": y}},
        {"kwargs": {"y": y, "x": x}},
        {"shapes": {"x": (3, 4), "y": (4,)}},
        {"shapes": {"x": (3, 4)}},
        {"input_shape": [(3, 4), (4,)]},
    ):
        assert lucid.compile(made, threads=1, **how).input_shapes == ((3, 4), (4,))
    image = np.zeros((2, 3, 8, 8), np.float32)
    assert lucid.compile(nn.ReLU(), example_inputs=[image]).input_shapes == ((2, 3, 8, 8),)
    for how, message in (
        ({"input_shape": [(3, 4), (4,)], "shapes": {}}, "^input_shape and shapes both say"),
        ({"shapes": {}, "kwargs": {}}, "^shapes and kwargs both say"),
        ({"shapes": {"z": (4,)}}, r"takes 2 inputs \(x, y\), got shapes of z$"),
        ({"shapes": {"x": 5}}, "a shape must be integers, batch first"),
        ({"shapes": [(3, 4)]}, "^shapes is a mapping by the names of inputs, not a list$"),
        ({"example_inputs": x}, "^example_inputs is a tuple of arrays or tensors"),
        ({"example_inputs": (x,)}, r"takes 2 inputs \(x, y\), got 1 by position$"),
        ({"example_inputs": (x, "y")}, "is an array or tensor, not a str$"),
        ({"kwargs": {"x": x, "z": y}}, r"takes 2 inputs \(x, y\), got x, z by name$"),
    ):
        with pytest.raises(InputError, match=message):
            lucid.compile(made, **how)
    with pytest.raises(InputError, match=r"without names: give input_shape or example_inputs$"):
        lucid.compile(nn.ReLU(), shapes={"x": (1, 4)})


# -- what a call gives back -----------------------------------------------------------------------


def test_several_arrays_to_write_to() -> None:
    made = graph(list(MIXING)[1])
    compiled = lucid.compile(made, threads=1)
    (x,) = sample_inputs(made, 3)
    total, same = compiled(x)
    for outs in (
        (np.zeros(4, np.float32), np.zeros((3, 4), np.float32)),
        [np.zeros(4, np.float32), x.copy()],
    ):
        got = compiled(x, out=outs)
        assert got[0] is outs[0]
        assert got[1] is outs[1]
        np.testing.assert_array_equal(got[0], total)
        np.testing.assert_array_equal(got[1], same)
    named = {"x": np.zeros((3, 4), np.float32), "y": np.zeros(4, np.float32)}
    assert compiled(x, out=named)[1] is named["x"]
    both = np.zeros((3, 4), np.float32)
    for out, message in (
        ([total], r"each of the outputs \(y, x\), got 1 by position$"),
        ({"y": total, "z": same}, r"each of the outputs \(y, x\), got y, z by name$"),
        ([total, total], r"^out of x wants an array float32\[3, 4\], contiguous"),
        ([both[0], both], "^out of y and out of x share memory: give two arrays$"),
    ):
        with pytest.raises(InputError, match=message):
            compiled(x, out=out)


Point = namedtuple("Point", "near far")


class Nested(GivenGraph):
    """A graph whose model returns more than a tuple."""

    structure = Structure.of(
        {"a": [0.5, None], "b": (Point(np.float32(1), np.float32(2)),)},
        lambda part: isinstance(part, np.float32),
    )


def test_outputs_come_in_the_structure_of_the_model(tmp_path) -> None:
    made = graph("g(%x: f32[N,4]) -> f32[N,4], f32[N,4] { %y = relu(%x) : f32[N,4] return %x, %y }")
    compiled = lucid.compile(Nested(made), threads=1)
    x = np.array([[-1, 2, -3, 4]], np.float32)
    compiled.save(tmp_path / "m.lucid")
    for model in (
        compiled,
        lucid.load(tmp_path / "m.lucid", 1),
        pickle.loads(pickle.dumps(compiled)),
        lucid.compile(tmp_path / "m.lucid", threads=1),
    ):
        result = model(x)
        assert result["a"] == [0.5, None]
        ((point,), kind) = (result["b"], type(result["b"][0]))
        assert (kind.__name__, kind._fields) == ("Point", ("near", "far"))
        np.testing.assert_array_equal(point.near, x)
        np.testing.assert_array_equal(point.far, np.maximum(x, 0))


def test_the_text_and_the_data_of_structures() -> None:
    structure = Nested.structure
    assert str(structure) == "{a: [0.5, None], b: (Point(near: 0, far: 1),)}"
    assert structure.outputs() == [0, 1]
    assert Structure.from_json(structure.to_json()) == structure
    row = structure.to_json()
    for change in ({"kind": "code"}, {"keys": []}, {"kind": "output", "value": -1}):
        with pytest.raises(ValueError, match=r"kind|keys|number"):
            Structure.from_json(row | change)
    with pytest.raises(TypeError, match="an output of the type set"):
        Structure.of([{1}], lambda part: False)


# -- kept and loaded ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*MIXING, *APART, *FIXED])
def test_every_signature_is_saved(text: str, tmp_path) -> None:
    made = graph(text)
    compiled = lucid.compile(made, threads=1)
    compiled.save(tmp_path / "m.lucid", weights="both")
    for model in (
        lucid.load(tmp_path / "m.lucid", 1),
        lucid.compile(tmp_path / "m.lucid", threads=1),
    ):
        assert (model.inputs, model.outputs) == (compiled.inputs, compiled.outputs)
        for batch in (1, 3, MAX_BATCH + 1) if "N" in text else (1,):
            assert_right(made, model, batch)


# -- the analysis ---------------------------------------------------------------------------------


def test_the_batch_of_shapes() -> None:
    types = list(map(TensorType.parse, ("f32[2N,3]", "f32[N]", "i64[5]", "f32[]")))
    assert batch_of(types, ((8, 3), (4,), (5,), ())) == 4
    assert batch_of(types, ((0, 3), (0,), (5,), ())) == 0
    for shapes in (
        ((8, 3), (3,), (5,), ()),
        ((7, 3), (4,), (5,), ()),
        ((8, 3), (4,), (6,), ()),
        ((8, 3), (4,), (5,), (1,)),
        ((8, 3), (4,), (5,)),
    ):
        assert batch_of(types, shapes) is None
    assert batch_of(types[2:], ((5,), ())) == 1


def test_what_forbids_slices_by_its_place_in_the_model() -> None:
    made = graph(next(iter(MIXING)))
    made.nodes[0].origin = "head.probabilities"
    assert obstacle(made) == "%y = softmax (head.probabilities) mixes rows"


def test_a_first_call_that_fails_leaves_nothing_behind() -> None:
    torch = pytest.importorskip("torch")
    model = lucid.compile(torch.nn.Linear(4, 2), threads=1)
    x = np.ones((3, 4), np.float32)
    for wrong in ((x.astype(np.float64),), (x[:, :3],), (x, x)):
        with pytest.raises(lucid.errors.LucidError):
            model(*wrong)
    assert model(x).shape == (3, 2)
    assert model.inputs[0].dtype == "float32"
    with pytest.raises(InputError, match="wants f32"):
        model(x.astype(np.float64))
