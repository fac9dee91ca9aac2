"""ONNX files that cannot be read at once: shapes and elements that are known when they run, control
flow, sequences, strings, and operators that run in NumPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import lucid
from lucid.errors import HostOpsWarning, InputError, LucidError, UnsupportedError

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper
from onnx_models import array, node

F32, I64, BOOL, STRING = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)


def file(nodes, inputs, outputs, constants=(), opset=21):
    """A model: inputs and outputs as (name, element type, shape)."""
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in dict(constants).items()]
    infos = ([helper.make_tensor_value_info(*v) for v in values] for values in (inputs, outputs))
    graph = helper.make_graph(nodes, "net", *infos, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def body(nodes, inputs, outputs):
    infos = ([helper.make_tensor_value_info(*v) for v in values] for values in (inputs, outputs))
    return helper.make_graph(nodes, "body", *infos)


def compiled(proto, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HostOpsWarning)
        return lucid.compile(proto, **options)


# -- elements that are wanted -------------------------------------------------------------------


def reshaping():
    nodes = [node("Relu", "x", "a"), node("Reshape", "a shape", "b"), node("Neg", "b")]
    inputs = [("x", F32, [2, 6]), ("shape", I64, [2])]
    return file(nodes, inputs, [("y", F32, None)])


def test_a_shape_that_is_an_input():
    """The model is specialised on it: nothing runs in NumPy, and each shape is compiled once."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", HostOpsWarning)
        model = lucid.compile(reshaping())
        x = array(2, 6)
        for shape in ([3, 4], [4, 3], [3, 4], [1, -1]):
            wanted = -np.maximum(x, 0).reshape(shape)
            np.testing.assert_array_equal(model(x, np.array(shape)), wanted)
    assert len(model.further_stages) == 3


def test_a_shape_that_does_not_fit():
    with pytest.raises(LucidError, match="cannot be reshaped to 5x5"):
        compiled(reshaping())(array(2, 6), np.array([5, 5]))


def test_few_integers_are_computed_while_reading():
    """A count that is computed of an input is known when the input is."""
    nodes = [
        node("Min", "k most", "least"),
        node("Reshape", "least one", "v"),
        node("Slice", "x start v axis"),
    ]
    constants = {"most": np.array(2), "one": [1], "start": [0], "axis": [0]}
    model = compiled(file(nodes, [("x", F32, [3]), ("k", I64, [])], [("y", F32, None)], constants))
    x = array(3)
    np.testing.assert_array_equal(model(x, np.array(1)), x[:1])
    np.testing.assert_array_equal(model(x, np.array(9)), x[:2])


# -- on the host --------------------------------------------------------------------------------


def positives():
    """The squares of what is above 0."""
    nodes = [
        node("Greater", "x zero", "above"),
        node("Compress", "x above", "p"),
        node("Unique", "p", "u"),
        node("Mul", "u u"),
    ]
    return file(nodes, [("x", F32, [8])], [("y", F32, None)], {"zero": np.float32(0)})


def test_shapes_that_depend_on_data():
    model = compiled(positives())
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal(8).astype(np.float32)
        np.testing.assert_allclose(model(x), np.unique(x[x > 0]) ** 2, rtol=1e-6)
    assert model(-np.ones(8, np.float32)).shape == (0,)


def test_what_runs_in_numpy_is_warned_of_and_refused():
    with pytest.warns(HostOpsWarning, match="Unique"):
        lucid.compile(positives())
    with pytest.raises(UnsupportedError, match="Unique"):
        lucid.compile(positives(), options=lucid.CompileOptions(host_ops="refuse"))


def test_float64_reaches_the_host_unrounded():
    nodes = [node("Unique", "x")]
    x = np.array([1.0, 1.0 + 1e-12])
    model = compiled(
        file(nodes, [("x", TensorProto.DOUBLE, [2])], [("y", TensorProto.DOUBLE, None)])
    )
    assert model(x).tolist() == x.tolist()


def test_an_operand_that_the_host_refuses():
    nodes = [node("Det", "x")]
    model = compiled(file(nodes, [("x", F32, ["a", "b"])], [("y", F32, [])]), input_shape=(2, 3))
    with pytest.raises(LucidError, match="Det 'y' runs by the reference of the package onnx"):
        model(array(2, 3))


def test_random_numbers_are_refused():
    nodes = [node("Bernoulli", "x")]
    with pytest.raises(UnsupportedError, match="draws random numbers"):
        compiled(file(nodes, [("x", F32, [2])], [("y", F32, [2])]))


# -- control flow -------------------------------------------------------------------------------


def test_a_branch_that_is_chosen_when_the_model_runs():
    nodes = [
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "c"),
        node(
            "If",
            "c",
            then_branch=body([node("Relu", "x", "t")], [], [("t", F32, None)]),
            else_branch=body([node("Neg", "x", "e")], [], [("e", F32, None)]),
        ),
    ]
    model = compiled(file(nodes, [("x", F32, [3])], [("y", F32, None)], {"zero": np.float32(0)}))
    up, down = np.float32([1, -2, 3]), np.float32([-1, -2, 1])
    np.testing.assert_array_equal(model(up), np.maximum(up, 0))
    np.testing.assert_array_equal(model(down), -down)


def doubling(rounds):
    """x doubled until it is above 100, at most so many times."""
    inner = body(
        [node("Add", "v v", "w"), node("Less", "w most", "more"), node("Identity", "w", "row")],
        [("i", I64, []), ("c", BOOL, []), ("v", F32, [])],
        [("more", BOOL, []), ("w", F32, []), ("row", F32, [])],
    )
    nodes = [node("Loop", f"{'rounds' if rounds is not None else '-'} yes x", "y rows", body=inner)]
    constants = {"most": np.float32(100), "yes": np.array(True)}
    if rounds is not None:
        constants["rounds"] = np.array(rounds)
    return file(nodes, [("x", F32, [])], [("y", F32, []), ("rows", F32, None)], constants)


def doubling_for(rounds):
    """x doubled so many times, an input."""
    inner = body(
        [node("Add", "v v", "w"), node("Identity", "c", "d"), node("Identity", "w", "row")],
        [("i", I64, []), ("c", BOOL, []), ("v", F32, [])],
        [("d", BOOL, []), ("w", F32, []), ("row", F32, [])],
    )
    nodes = [node("Loop", f"{rounds} - x", "y rows", body=inner)]
    inputs = [("x", F32, []), (rounds, I64, [])]
    return file(nodes, inputs, [("y", F32, []), ("rows", F32, [None])])


def test_a_loop_that_ends_by_what_it_computes():
    y, rows = compiled(doubling(None))(np.float32(30))
    assert (y, rows.tolist()) == (120, [60, 120])
    y, rows = compiled(doubling(1))(np.float32(30))
    assert (y, rows.tolist()) == (60, [60])


def test_a_loop_without_end_stops(monkeypatch):
    monkeypatch.setenv("LUCID_LOOP_LIMIT", "50")
    with pytest.raises(UnsupportedError, match="still goes on after 50 rounds"):
        compiled(doubling(None))(np.float32(0))


def test_a_loop_that_is_written_out():
    """It goes round a number of times that is known: nothing is left of it."""
    inner = body(
        [node("Mul", "v x", "w"), node("Identity", "c", "d")],
        [("i", I64, []), ("c", BOOL, []), ("v", F32, [2])],
        [("d", BOOL, []), ("w", F32, [2])],
    )
    nodes = [node("Loop", "m - x", body=inner)]
    proto = file(nodes, [("x", F32, [2])], [("y", F32, [2])], {"m": np.array(3)})
    model = lucid.compile(proto, options=lucid.CompileOptions(host_ops="refuse"))
    np.testing.assert_allclose(model(np.float32([2, 3])), [16, 81])


@pytest.mark.parametrize("rounds", [0, -1])
def test_a_loop_that_goes_round_no_time(rounds):
    value, rows = lucid.compile(doubling_for("rounds"))(np.float32(3), np.array(rounds))
    assert value == 3
    assert rows.shape == (0,)


def test_a_scan_is_written_out():
    inner = body(
        [node("Add", "s v", "t"), node("Identity", "t", "row")],
        [("s", F32, [2]), ("v", F32, [2])],
        [("t", F32, [2]), ("row", F32, [2])],
    )
    nodes = [node("Scan", "zero x", "total y", body=inner, num_scan_inputs=1)]
    outputs = [("total", F32, [2]), ("y", F32, [4, 2])]
    proto = file(nodes, [("x", F32, [4, 2])], outputs, {"zero": np.zeros(2, np.float32)})
    model = lucid.compile(proto, options=lucid.CompileOptions(host_ops="refuse"))
    x = array(4, 2)
    total, y = model(x)
    np.testing.assert_allclose(y, np.cumsum(x, 0), rtol=1e-6)
    np.testing.assert_allclose(total, x.sum(0), rtol=1e-6)


# -- sequences and strings ----------------------------------------------------------------------


def test_a_sequence_that_is_known_while_reading():
    nodes = [
        node("SequenceConstruct", "x z", "s"),
        node("SequenceInsert", "s x", "t"),
        node("SequenceAt", "t one", "z2"),
        node("ConcatFromSequence", "t", "whole", axis=0),
        node("Add", "whole z2"),
    ]
    inputs = [("x", F32, [1, 3]), ("z", F32, [1, 3])]
    model = lucid.compile(
        file(nodes, inputs, [("y", F32, None)], {"one": np.array(1)}),
        options=lucid.CompileOptions(host_ops="refuse"),
    )
    x, z = array(1, 3), array(1, 3) + 1
    np.testing.assert_allclose(model(x, z), np.concatenate([x, z, x]) + z, rtol=1e-6)


def test_strings_and_sequences_in_and_out():
    graph = helper.make_graph(
        [node("StringConcat", "a b", "c"), node("SequenceInsert", "s x", "t")],
        "net",
        [
            helper.make_tensor_value_info("a", STRING, [2]),
            helper.make_tensor_value_info("b", STRING, [2]),
            helper.make_tensor_sequence_value_info("s", F32, None),
            helper.make_tensor_value_info("x", F32, [2]),
        ],
        [
            helper.make_tensor_value_info("c", STRING, [2]),
            helper.make_tensor_sequence_value_info("t", F32, None),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    x = array(2)
    text, items = compiled(proto)(np.array(["a", "b"]), np.array(["c", "d"]), [x, x[:1]], x)
    assert text.tolist() == ["ac", "bd"]
    assert [item.tolist() for item in items] == [x.tolist(), x[:1].tolist(), x.tolist()]


# -- signatures ---------------------------------------------------------------------------------


def test_sizes_that_contradict_each_other():
    nodes = [node("Concat", "a b", axis=0)]
    inputs = [("a", F32, [2, "width"]), ("b", F32, [3, "width"])]
    model = compiled(file(nodes, inputs, [("y", F32, None)]))
    assert model(array(2, 4), array(3, 4)).shape == (5, 4)
    with pytest.raises(
        InputError, match="'a' and 'b' of net contradict each other: the size width"
    ):
        model(array(2, 4), array(3, 5))


def test_a_file_without_inputs():
    nodes = [node("Add", "a b")]
    model = compiled(
        file(nodes, [], [("y", F32, [2])], {"a": np.float32([1, 2]), "b": np.float32(3)})
    )
    np.testing.assert_array_equal(model(), [4, 5])


def test_functions_of_onnx_are_written_out():
    """Attention has no op, and needs none."""
    shapes = [("q", F32, [2, 3, 4, 8]), ("k", F32, [2, 3, 6, 8]), ("v", F32, [2, 3, 6, 8])]
    proto = file([node("Attention", "q k v")], shapes, [("y", F32, None)], opset=23)
    model = lucid.compile(proto, options=lucid.CompileOptions(host_ops="refuse"))
    q, k, v = (array(*shape) for _, _, shape in shapes)
    scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(8))
    wanted = scores / scores.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(model(q, k, v), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
)
def test_every_dtype_goes_in_and_out(dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = compiled(file([node("Add", "x x")], [("x", kind, [3])], [("y", kind, [3])]))
    x = np.array([1, 2, 3], dtype)
    result = model(x)
    assert (result.dtype, result.tolist()) == (x.dtype, [2, 4, 6])


def test_a_size_that_is_called_by_no_name():
    """Some exporters call all that they do not know "?"."""
    proto = file([node("Relu", "x")], [("x", F32, ["?", "?", "?"])], [("y", F32, None)])
    assert compiled(proto, input_shape=(1, 3, 4))(array(2, 3, 4)).shape == (2, 3, 4)


def test_arrays_of_test_data():
    """`onnx.TensorProto`s, which files of test data hold, are taken and given."""
    proto = file([node("Neg", "x")], [("x", F32, [3])], [("y", F32, [3])])
    x = array(3)
    result = lucid.compile(proto)(numpy_helper.from_array(x))
    assert result == numpy_helper.from_array(-x, "y")
    with pytest.raises(InputError, match="x wants"):
        lucid.compile(proto)(numpy_helper.from_array(x.astype(np.int32)))
