"""What a file says of an operator is read, or it is refused: against the schemas of every version.

A reader is tested by being registered. Here every attribute of its operator, in every version, must
be looked at (or named in `Call.ignore`) by some small model; what the readers do not know stands in
REFUSED.
"""

import contextlib
from itertools import product

import numpy as np
import pytest

from lucid.errors import LucidError, UnsupportedError
from lucid.frontend.onnx import OLDEST, import_onnx
from lucid.onnx.call import Call, schema_defaults
from lucid.onnx.reader import reader_of
from lucid.onnx.table import READERS, operators

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, defs, helper, numpy_helper
from onnx_models import array, model, node

ATTRIBUTE = defs.OpSchema.AttrType
REFUSED = {
    "Constant": {"sparse_value", "value_string", "value_strings"},
}
"""Attributes that no reader knows: where they are given, the message names them."""


def versions():
    """(operator, the versions of the standard where its schema changed, from OLDEST on)."""
    changed = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in operators():
            changed.setdefault(schema.name, set()).add(max(OLDEST, schema.since_version))
    return [(kind, opset) for kind in sorted(changed) for opset in sorted(changed[kind])]


def value_of(schema, attribute):
    """A value that many operators accept."""
    match attribute.type:
        case ATTRIBUTE.INT:
            return 1
        case ATTRIBUTE.FLOAT:
            return 0.5
        case ATTRIBUTE.INTS:
            return [1, 1, 1, 1] if attribute.name in ("pads", "split") else [1, 1]
        case ATTRIBUTE.STRING:
            return attribute.default_value.s
        case ATTRIBUTE.TENSOR:
            return numpy_helper.from_array(np.ones(1, np.float32))
        case ATTRIBUTE.GRAPH:
            info = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
            return helper.make_graph([], attribute.name, [], [info])
    return None


OPERANDS = [
    array(4, 4, 3, 3),
    array(4),
    array(4, 4),
    np.array([1]),
    np.array(1),
    np.array(1.0, np.float32),
]
"""What the operands behind the first may be."""


def probes(kind, opset):
    """Small models of the operator, of an input or of weights: with its required attributes, with
    windows of a pixel, and with all attributes."""
    schema = defs.get_schema(kind, opset, "")
    values = {n: v for n, a in schema.attributes.items() if (v := value_of(schema, a)) is not None}
    some = {n: v for n, v in values.items() if schema.attributes[n].required}
    windows = some | {n: v for n, v in values.items() if n == "kernel_shape"}
    counts = range(schema.min_input, min(schema.max_input, schema.min_input + 2) + 1)
    for attributes, first, count in product((some, windows, values), "xkm", counts):
        for operand in OPERANDS:
            names = [first, *(f"o{i}" for i in range(1, count))][:count]
            constants = {"k": array(2, 4, 6, 6), "m": array(4, 4)}
            constants |= dict.fromkeys(names[1:], operand)
            nodes = [node(kind, " ".join(names), **attributes), node("Relu", "x", "z")]
            yield model(nodes, constants, (2, 4, 6, 6), outputs="y z", opset=opset)


class Looks:
    """What a reader has looked at in all probes, and the defaults that it took."""

    def __init__(self, kind, opset, monkeypatch):
        self.attributes = set()
        self.defaults = {}
        read, attribute = reader_of(kind), Call._attribute

        def reading(call):
            try:
                return read(call)
            finally:
                self.attributes.update(call._read)

        def asked(call, name, number, field, default):
            if call.kind == kind and not (name in call._attributes or default is None):
                self.defaults.setdefault(name, set()).add(default)
            return attribute(call, name, number, field, default)

        monkeypatch.setitem(READERS, kind, reading)
        monkeypatch.setattr(Call, "_attribute", asked)


@pytest.mark.parametrize(("kind", "opset"), versions())
def test_every_attribute_is_looked_at(kind, opset, monkeypatch):
    """And where it is not given, its default is that of the version."""
    wanted = set(defs.get_schema(kind, opset, "").attributes) - REFUSED.get(kind, set())
    looks = Looks(kind, opset, monkeypatch)
    for proto in probes(kind, opset):
        with contextlib.suppress(LucidError):
            import_onnx(proto)
        if wanted <= looks.attributes:
            break
    missing = wanted - looks.attributes
    assert not missing, f"the reader of {kind} passes over {sorted(missing)} in version {opset}"
    for name, default in schema_defaults(kind, opset).items():
        value = helper.get_attribute_value(default) if default.type else None
        value = value.decode() if isinstance(value, bytes) else value
        for taken in looks.defaults.get(name, ()):
            assert value is None or taken == (pytest.approx(value) if value else value), name


# -- what is passed over ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("Relu", "x", alpha=0.5)], {}, r"Relu x1 \(with alpha=0.5\): 'y'"),
        ([node("Elu", "x w")], {"w": array(3)}, r"Elu x1 \(with operand 1\)"),
        ([node("Clip", "x", min=0.0)], {}, r"Clip x1 \(with min=0.0\)"),
        ([node("ReduceSum", "x a", axes=[1])], {"a": [2]}, r"ReduceSum x1 \(with operand 1\)"),
        ([node("Constant", "", "c", value_string="no"), node("Add", "x c")], {}, "of strings"),
    ],
)
def test_what_a_reader_passes_over_is_refused(nodes, constants, message):
    with pytest.raises(UnsupportedError, match=message):
        import_onnx(model(nodes, constants))


def test_a_new_reader_is_covered(monkeypatch):
    """It forgets the attribute, whose default may be written down, and nothing else."""
    monkeypatch.setitem(READERS, "LRN", lambda call: call.operand(0))
    call = {"size": 3}
    with pytest.raises(UnsupportedError, match=r"with size=3"):
        import_onnx(model([node("LRN", "x", **call)]))
    monkeypatch.setitem(READERS, "LRN", lambda call: call.integer("size", 1) and call.operand(0))
    import_onnx(model([node("LRN", "x", **call)]))
    import_onnx(model([node("LRN", "x", bias=1.0, **call)]))
    with pytest.raises(UnsupportedError, match=r"with bias=0\.25"):
        import_onnx(model([node("LRN", "x", bias=0.25, **call)]))
