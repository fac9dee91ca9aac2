"""One operator of a file, as its reading function sees it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir import recipe
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.interpret import Tensors
from lucid.ir.ops import Array, Elementwise, Expand, Op, Reshape
from lucid.ir.types import Dim, Shape
from lucid.onnx.known import Held, Known, Operand, fold, known
from lucid.onnx.operator import Operator, origin, schema_of
from lucid.onnx.tensors import External

if TYPE_CHECKING:
    import onnx

FEW = 8
"""Elements of a table of factors for sizes: there are as many as axes."""


class DemandError(UnsupportedError):
    """An operator cannot be read before the elements of its operand `index` are known."""

    def __init__(self, index: int) -> None:
        super().__init__(f"operand {index} is computed when the model runs")
        self.index = index


class Import(Protocol):
    """What an operator needs of the import that it is read by (`Reader` in `reader.py`).

    `external` reads the files next to the model; `image_by_image`: what the file says of one image
    holds for each of a batch; `weights`: values computed from weights alone.
    """

    graph: Graph
    types: dict[str, int]
    external: External
    image_by_image: bool
    payload: dict[str, Any]
    weights: set[Value]

    def value(self, operand: Operand) -> Value:
        """The operand as a value of the graph."""

    def parameter(self, operand: Known, name: str) -> Parameter:
        """Known numbers, of this name in the file, as a parameter of their dtype."""

    def stored(self, proto: onnx.TensorProto, name: str) -> Held:
        """A tensor of the file."""

    def fresh_prefix(self, operator: Operator) -> str:
        """What names are put in front of those of a subgraph that is written out."""


class Call:
    """`kind`: the operator's name. `opset`: the version of the operators that the file speaks.
    `outputs`: how many results it has; `results`: up to the last one that has a name.

    Operands and attributes that are missing or of the wrong kind raise ModelFileError; operands
    that should be known when the model is read and are not, UnsupportedError. What the file says
    and the reader has neither looked at nor named in `ignore` is refused: see `unread`.
    """

    def __init__(self, operator: Operator, reader: Import, operands: Sequence[Held | None]) -> None:
        proto = operator.proto
        self.operator = operator
        self.kind, self.opset = proto.op_type, operator.opset
        self.reader = reader
        self.origin = origin(proto)
        self.result = next(iter(proto.output), "")
        self.outputs = len(proto.output)
        self.results = max((i + 1 for i, name in enumerate(proto.output) if name), default=0)
        self._operands = list(operands)
        while self._operands and self._operands[-1] is None:
            self._operands.pop()
        self._attributes = {a.name: a for a in proto.attribute}
        self._read: set[str | int] = set()

    # -- what is read -----------------------------------------------------------------------

    def ignore(self, *names: str | int) -> None:
        """Attributes, and operands by index, that change no result of what is being read."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """The attributes and operands that the reader has passed over, in words; not attributes
        that have the default that ONNX says."""
        defaults = schema_defaults(self.kind, self.opset)
        attributes = [
            f"{name}={_text(a)}"
            for name, a in self._attributes.items()
            if name not in self._read and _content(a) != _content(defaults.get(name))
        ]
        indices = (i for i in range(len(self._operands)) if self.has(i))
        return attributes + [f"operand {i}" for i in indices if i not in self._read]

    # -- operands ---------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        return index < len(self._operands) and self._operands[index] is not None

    def operand(self, index: int) -> Operand:
        self._read.add(index)
        return self.as_operand(self.held(index))

    def as_operand(self, held: Held) -> Operand:
        """A tensor of numbers. Raises UnsupportedError for anything else."""
        if not isinstance(held, Value | Known):
            raise UnsupportedError("takes what is no tensor of numbers")
        return held

    def held(self, index: int) -> Held:
        """An operand of any kind."""
        self._read.add(index)
        given = self._operands[index] if self.has(index) else None
        if given is None:
            raise ModelFileError(f"operand {index} is missing")
        return given

    def all_held(self) -> list[Held]:
        """All operands, of any kind; none may be left out."""
        return [self.held(i) for i in range(len(self._operands))]

    def element(self, index: int) -> int:
        """The element type that an operand has in the file, by ONNX's number."""
        return self.reader.types.get(self.operator.proto.input[index], 0)

    def operands(self) -> list[Operand]:
        """All of them; none may be left out."""
        return [self.operand(i) for i in range(len(self._operands))]

    def shape(self, index: int = 0) -> Shape:
        return self.operand(index).type.shape

    def rank(self, index: int = 0) -> int:
        return self.operand(index).type.rank

    def elements(self, index: int) -> Array:
        """The elements of an operand that is known when the model is read."""
        operand = self.operand(index)
        if isinstance(operand, Known) and not operand.step:
            return operand.array
        if isinstance(operand, Parameter):
            graph = self.reader.graph
            return recipe.evaluate(operand.recipe, Tensors(graph.payload, graph))
        raise DemandError(index)

    def sizes(self, index: int) -> Shape:
        """The elements of a vector of sizes, some of which may depend on the batch."""
        array = self.elements(index)
        if array.ndim > 1:
            raise ModelFileError(f"operand {index} should be a vector, has the shape {array.shape}")
        return tuple(d if isinstance(d, Dim) else int(d) for d in array.reshape(-1))

    def integers(self, index: int) -> tuple[int, ...]:
        """The elements of a vector of integers."""
        sizes = self.sizes(index)
        if not all(isinstance(d, int) for d in sizes):
            raise UnsupportedError(
                f"operand {index} depends on the batch: {', '.join(map(str, sizes))}"
            )
        return tuple(d for d in sizes if isinstance(d, int))

    def scalar(self, index: int) -> float:
        """The element of an operand that has one."""
        array = self.elements(index)
        if array.size != 1:
            raise ModelFileError(
                f"operand {index} should be one number, has the shape {array.shape}"
            )
        return float(array.reshape(()))

    # -- attributes -------------------------------------------------------------------------

    def states(self, name: str) -> bool:
        """Whether there is an attribute of this name."""
        self._read.add(name)
        return name in self._attributes

    def integer(self, name: str, default: int) -> int:
        return int(self._attribute(name, 2, "i", default))

    def number(self, name: str, default: float) -> float:
        return float(self._attribute(name, 1, "f", default))

    def text(self, name: str, default: str) -> str:
        value: bytes | str = self._attribute(name, 3, "s", default)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """A text that is one of these, of which the first is the default."""
        value = self.text(name, choices[0])
        if value not in choices:
            raise ModelFileError(f"has the {name} {value!r}: ONNX has {', '.join(choices)}")
        return value

    def integer_list(self, name: str) -> tuple[int, ...] | None:
        values: Any = self._attribute(name, 7, "ints", None)
        return None if values is None else tuple(map(int, values))

    def floats(self, name: str) -> tuple[float, ...] | None:
        values: Any = self._attribute(name, 6, "floats", None)
        return None if values is None else tuple(map(float, values))

    def texts(self, name: str) -> tuple[str, ...] | None:
        values: Any = self._attribute(name, 8, "strings", None)
        if values is None:
            return None
        return tuple(value.decode(errors="replace") for value in values)

    def tensor(self, name: str) -> onnx.TensorProto | None:
        tensor: onnx.TensorProto | None = self._attribute(name, 4, "t", None)
        return tensor

    def subgraph(self, name: str) -> onnx.GraphProto:
        graph: onnx.GraphProto | None = self._attribute(name, 5, "g", None)
        if graph is None:
            raise ModelFileError(f"has no {name}")
        return graph

    def _attribute(self, name: str, number: int, field: str, default: Any) -> Any:
        self._read.add(name)
        proto = self._attributes.get(name)
        if proto is None:
            return default
        if proto.ref_attr_name or proto.type not in (number, 0):  # old files do not say the type
            raise ModelFileError(f"attribute {name} is of another type than ONNX says")
        return getattr(proto, field)

    # -- axes -------------------------------------------------------------------------------

    def axis(self, default: int | None = None, rank: int | None = None) -> int:
        """The attribute `axis`, counted from 0. `rank`: of the first operand where None."""
        rank = self.rank() if rank is None else rank
        if default is None and not self.states("axis"):
            raise ModelFileError("has no axis")
        return self.counted(self.integer("axis", default or 0), rank)

    def counted(self, axis: int, rank: int) -> int:
        """An axis counted from 0; negative ones count from the end."""
        if not -rank <= axis < rank:
            raise ModelFileError(f"axis {axis} is not one of {rank}")
        return axis % rank

    def axes(self, index: int = 1, rank: int | None = None) -> tuple[int, ...] | None:
        """Axes, an attribute in older versions and operand `index` in newer; None where neither."""
        given = self.integer_list("axes")
        if given is None and self.has(index):
            given = self.integers(index)
        if given is None:
            return None
        axes = tuple(self.counted(a, self.rank() if rank is None else rank) for a in given)
        if len(set(axes)) < len(axes):
            raise ModelFileError(f"names an axis twice: {list(given)}")
        return axes

    # -- the graph --------------------------------------------------------------------------

    def apply(self, op: Op, *operands: Operand | float) -> Operand:
        """The one result of an op; see `apply_all`."""
        (result,) = self.apply_all(op, *operands)
        return result

    def apply_all(self, op: Op, *operands: Operand | float) -> list[Operand]:
        """The op's results: of a new node of the graph, or elements where all operands are known.

        Raises ShapeError where the op does not accept the operands.
        """
        given = [o if isinstance(o, Value | Known) else known(o) for o in operands]
        if any(isinstance(o, Known) and o.array.size > 1 for o in given):
            given = [self._table(o) for o in given]
        constants = [o for o in given if isinstance(o, Known)]
        counting = any(constant.step for constant in constants)
        if len(constants) == len(given) and (counting or not _names_batch(op)):
            return list(fold(op, constants))
        if isinstance(op, Elementwise):
            rank = max(o.type.rank for o in given if isinstance(o, Value))
            given = [_scalar(o, rank) for o in given]
        values = [self.value(operand) for operand in given]
        results = self.reader.graph.append(op, values, origin=self.origin).outputs
        if all(map(self.is_weight, values)):
            self.reader.weights.update(results)
        return list(results)

    def node(self, op: Op, *operands: Value) -> Value:
        """The op's result as a value of the graph."""
        return self.value(self.apply(op, *operands))

    def _table(self, operand: Operand) -> Operand:
        """A few weights that meet a known vector as known too: factors of sizes, most likely."""
        if isinstance(operand, Parameter) and prod(operand.type.concrete(1)) <= FEW:
            return Known(np.asarray(self.reader.payload[operand.name], np.float32))
        return operand

    def value(self, operand: Operand) -> Value:
        """The operand as a value of the graph."""
        return self.reader.value(operand)

    def parameter(self, index: int, operand: Known, form: str = "") -> Parameter:
        """The operand at `index`, or what has been made of it, as a parameter of its dtype.
        `form`: what that is called, behind the operand's name."""
        name = self.operator.proto.input[index]
        return self.reader.parameter(operand, f"{name}.{form}" if form else name)

    def is_weight(self, operand: Operand) -> bool:
        """Whether it is computed of parameters and constants alone."""
        return isinstance(operand, Known | Parameter) or operand in self.reader.weights

    def stored(self, proto: onnx.TensorProto) -> Held:
        """A tensor of the file that this operator gives."""
        return self.reader.stored(proto, self.result)

    def reshape(self, operand: Operand, shape: Shape) -> Operand:
        """The operand in another shape, which names every dimension; itself where it has it."""
        return operand if operand.type.shape == shape else self.apply(Reshape(shape), operand)

    def expand(self, operand: Operand, shape: Shape) -> Operand:
        """The operand broadcast to a shape, which names every dimension."""
        return operand if operand.type.shape == shape else self.apply(Expand(shape), operand)

    def integer_dims(self, *dims: int | Dim) -> list[int]:
        """Dimensions of which none may depend on the batch."""
        if any(isinstance(d, Dim) for d in dims):
            raise UnsupportedError("needs a size that depends on the batch")
        return [d for d in dims if isinstance(d, int)]

    @property
    def image_by_image(self) -> bool:
        """Whether the file's fixed batch of 1 stands for a batch of any size."""
        return self.reader.image_by_image


@cache
def schema_defaults(kind: str, opset: int) -> dict[str, onnx.AttributeProto]:
    """The defaults of an operator's attributes, those that have one; none of an operator that this
    version of ONNX does not know."""
    schema = schema_of(kind, opset, "")
    if schema is None:
        return {}
    return {name: a.default_value for name, a in schema.attributes.items()}


def _content(attribute: onnx.AttributeProto | None) -> bytes:
    """What an attribute says, whatever it is called; nothing where there is none."""
    if attribute is None:
        return b""
    content = type(attribute)()
    content.CopyFrom(attribute)
    for name in ("name", "doc_string", "type"):
        content.ClearField(name)
    return bytes(content.SerializeToString(deterministic=True))


def _text(attribute: onnx.AttributeProto) -> str:
    """The value of an attribute as messages show it."""
    from onnx.helper import get_attribute_value

    value = get_attribute_value(attribute) if attribute.type else "..."
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) < 40 else "..."


def _names_batch(op: Op) -> bool:
    """Whether the op makes a result for each image of what does not depend on the batch."""
    return isinstance(op, Expand | Reshape) and any(isinstance(d, Dim) for d in op.shape)


def _scalar(operand: Operand, rank: int) -> Operand:
    """A single number without axes, where these change no result's rank."""
    if isinstance(operand, Known) and operand.array.size == 1 and operand.array.ndim <= rank:
        return Known(operand.array.reshape(()))
    return operand
