"""From text to a graph. The grammar stands in `lucid.ir.text`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from lucid.errors import ShapeError
from lucid.ir.graph import Graph, Value
from lucid.ir.lexer import Token, error_at, tokenize
from lucid.ir.ops import OPS, Op
from lucid.ir.recipe import Apply, Literal, Recipe, Source
from lucid.ir.types import DTYPES, Dim, TensorType

T = TypeVar("T")
Types = Mapping[str, TensorType]
Unresolved = Callable[[Types], Recipe]
"""A recipe read before all of its sources are declared."""

KEYWORDS = {"true": True, "false": False, "none": None}


def parse_graph(text: str) -> Graph:
    """The graph a text describes, without a payload. Raises ParseError."""
    parser = _Parser(text)
    graph = parser.graph()
    parser.expect("end", what="nothing more after the graph")
    return graph


def parse_op(text: str) -> Op:
    """The op that `print_op` printed: `conv2d{stride=(2,2)}`. Raises ParseError."""
    parser = _Parser(text)
    op = parser.op(parser.expect("name", what="an op"), parser.attributes())
    parser.expect("end", what="nothing more after the op")
    return op


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.position = 0

    # -- tokens -----------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        raise error_at(self.text, (token or self.token).start, message)

    def at(self, kind: str, text: str | None = None) -> bool:
        return self.token.kind == kind and text in (None, self.token.text)

    def accept(self, kind: str, text: str | None = None) -> Token | None:
        if not self.at(kind, text):
            return None
        self.position += 1
        return self.tokens[self.position - 1]

    def expect(self, kind: str, text: str | None = None, what: str = "") -> Token:
        token = self.accept(kind, text)
        if token is None:
            self.fail(f"expected {what or repr(text)}, found {self.token}")
        return token

    def list_until(self, end: str, item: Callable[[], T]) -> list[T]:
        """Items separated by commas, up to and with the closing sign."""
        items: list[T] = []
        while not self.accept("sign", end):
            if items:
                self.expect("sign", ",", what=f"',' or {end!r}")
            items.append(item())
        return items

    def list_of(self, item: Callable[[], T]) -> list[T]:
        """One item or more, separated by commas."""
        items = [item()]
        while self.accept("sign", ","):
            items.append(item())
        return items

    # -- graph ------------------------------------------------------------------------------

    def graph(self) -> Graph:
        self.expect("name", "graph")
        name = self.accept("name") or self.expect("string", what="the name of the graph")
        graph = Graph(name.plain)
        scope: dict[str, Value] = {}
        self.expect("sign", "(")
        self.list_until(")", lambda: self.input(graph, scope))
        self.expect("sign", "->")
        arrow = self.token
        empty = self.accept("sign", "(") and self.expect("sign", ")")
        types = [] if empty else self.list_of(self.type)
        self.expect("sign", "{")
        self.parameters(graph)
        while self.at("value"):
            self.node(graph, scope)
        if self.accept("name", "return"):
            graph.outputs = self.list_of(lambda: self.operand(graph, scope))
        self.expect("sign", "}", what="a node (%name = op(...)), 'return' or '}'")
        given = [v.type for v in graph.outputs]
        if given != types:
            shown = ", ".join(map(str, given)) or "nothing"
            self.fail(f"the graph states other types than it returns ({shown})", arrow)
        return graph

    def input(self, graph: Graph, scope: dict[str, Value]) -> None:
        token = self.expect("value", what="an input (%name: type)")
        self.define(token, scope)
        self.expect("sign", ":")
        scope[token.plain] = graph.add_input(self.type(), token.plain)

    def define(self, token: Token, scope: dict[str, Value]) -> None:
        if token.plain in scope:
            self.fail(f"{token.text} is defined twice", token)

    def parameters(self, graph: Graph) -> None:
        """The `source` and `param` lines. Recipes may name sources declared after them."""
        sources: dict[str, TensorType] = {}
        recipes: dict[str, tuple[Token, TensorType, Unresolved]] = {}
        while keyword := self.accept("name", "source") or self.accept("name", "param"):
            token = self.expect("ref", what="a name such as @conv1.weight")
            name = token.plain
            self.expect("sign", ":")
            kind = self.type()
            resolve: Unresolved | None = None
            if keyword.text == "param":
                if name in recipes:
                    self.fail(f"parameter {token.text} is defined twice", token)
                if self.accept("sign", "="):
                    resolve = self.recipe()
                recipes[name] = token, kind, resolve or _plain(Source(name, kind))
            if resolve is None:
                if name in sources:
                    self.fail(f"source {token.text} is declared twice", token)
                sources[name] = kind
        for name, (token, kind, resolve) in recipes.items():
            recipe = resolve(sources)
            if recipe.type != kind:
                self.fail(f"the recipe of {token.text} gives {recipe.type}, not {kind}", token)
            graph.add_parameter(name, recipe)

    def recipe(self) -> Unresolved:
        if token := self.accept("number"):
            return _plain(Literal(float(token.text)))
        if token := self.accept("ref"):
            return lambda sources: self.source(token, sources)
        start = self.expect("name", what="an op, a source (@name) or a number")
        self.expect("sign", "(")
        arguments = self.list_until(")", self.recipe)
        op = self.op(start, self.attributes())

        def apply(sources: Types) -> Recipe:
            recipe = Apply(op, tuple(argument(sources) for argument in arguments))
            self.checked(lambda: recipe.type, start)
            return recipe

        return apply

    def source(self, token: Token, sources: Types) -> Source:
        if token.plain not in sources:
            self.fail(
                f"no source is named {token.text}; declare it (source {token.text}: f32[...])",
                token,
            )
        return Source(token.plain, sources[token.plain])

    # -- nodes ------------------------------------------------------------------------------

    def node(self, graph: Graph, scope: dict[str, Value]) -> None:
        results = self.list_of(lambda: self.expect("value", what="a result (%name)"))
        for i, token in enumerate(results):
            self.define(token, scope)
            if token.plain in (t.plain for t in results[:i]):
                self.fail(f"{token.text} is defined twice", token)
        self.expect("sign", "=")
        start = self.expect("name", what="an op")
        self.expect("sign", "(")
        operands = self.list_until(")", lambda: self.operand(graph, scope))
        op = self.op(start, self.attributes())
        self.expect("sign", ":", what="':' and the type of the result")
        types = tuple(self.list_of(self.type))
        origin = self.expect("string").plain if self.accept("name", "at") else ""
        fused_from: list[str] = []
        if self.accept("name", "from"):
            self.expect("sign", "(")
            fused_from = self.list_until(")", lambda: self.expect("string").plain)
        inferred = self.checked(lambda: op.result_types(*(v.type for v in operands)), start)
        if inferred != types:
            self.fail(f"{op.name} gives {', '.join(map(str, inferred))} here", start)
        if len(results) != len(types):
            self.fail(f"{op.name} has {len(types)} results, {len(results)} are named", results[0])
        names = [t.plain for t in results]
        fields: dict[str, Any] = {"origin": origin, "fused_from": tuple(fused_from)}
        node = graph.append(op, operands, names=names, **fields)
        scope.update(zip(names, node.outputs, strict=True))

    def operand(self, graph: Graph, scope: dict[str, Value]) -> Value:
        token = self.accept("value") or self.expect("ref", what="an operand (%value or @param)")
        known: Mapping[str, Value] = scope if token.kind == "value" else graph.parameters
        if token.plain not in known:
            self.fail(f"{token.text} is not defined{_suggest(token.plain, known)}", token)
        return known[token.plain]

    # -- ops and their attributes -----------------------------------------------------------

    def op(self, token: Token, attributes: dict[str, Any]) -> Op:
        if token.text not in OPS:
            self.fail(f"no op is named {token.text!r}{_suggest(token.text, OPS)}", token)
        declared = dataclasses.fields(OPS[token.text])
        names = [f.name for f in declared]
        for name in attributes:
            if name not in names:
                known = ", ".join(names) or "none"
                self.fail(f"{token.text} has no attribute {name!r}; it has: {known}", token)
        for field in declared:
            if field.name not in attributes and field.default is dataclasses.MISSING:
                self.fail(f"{token.text} needs the attribute {field.name!r}", token)
        return self.checked(lambda: OPS[token.text](**attributes), token)

    def checked(self, build: Callable[[], T], token: Token) -> T:
        """What `build` gives; its complaints become errors at `token`."""
        try:
            return build()
        except ShapeError as error:
            self.fail(str(error), token)
        except (TypeError, AttributeError) as error:  # an attribute of a wrong kind: stride=2
            self.fail(f"{token.text}: an attribute is of the wrong kind ({error})", token)

    def attributes(self) -> dict[str, Any]:
        """`{name=value, ...}`, or nothing."""
        found: dict[str, Any] = {}

        def attribute() -> None:
            token = self.expect("name", what="the name of an attribute")
            if token.text in found:
                self.fail(f"attribute {token.text!r} is given twice", token)
            self.expect("sign", "=")
            found[token.text] = self.value()

        if self.accept("sign", "{"):
            self.list_until("}", attribute)
        return found

    def value(self) -> Any:
        if self.accept("sign", "("):
            return tuple(self.list_until(")", self.value))
        if token := self.accept("string"):
            return token.plain
        if self.at("number"):
            return self.number()
        if self.at("name", "graph"):
            return self.graph()
        token = self.expect("name", what="a value")
        if token.text in KEYWORDS:
            return KEYWORDS[token.text]
        if token.text in OPS or self.at("sign", "{"):
            return self.op(token, self.attributes())
        return Dim(1, token.text)

    def number(self) -> int | float | Dim:
        """An int, a float, or a multiple of the batch such as `2N`."""
        token = self.expect("number")
        if not token.text.lstrip("-").isdecimal():
            return float(token.text)
        if self.at("name") and self.token.start == token.end:
            return Dim(int(token.text), self.expect("name").text)
        return int(token.text)

    # -- types ------------------------------------------------------------------------------

    def type(self) -> TensorType:
        token = self.expect("name", what="a type such as f32[N,3,224,224]")
        if token.text not in DTYPES:
            self.fail(f"{token.text!r} is no dtype; those are {', '.join(DTYPES)}", token)
        self.expect("sign", "[")
        return TensorType(token.text, tuple(self.list_until("]", self.dimension)))

    def dimension(self) -> int | Dim:
        if token := self.accept("name"):
            return Dim(1, token.text)
        start = self.token
        size = self.number() if self.at("number") else -1
        if isinstance(size, float) or (isinstance(size, int) and size < 0):
            self.fail(f"expected a dimension such as 7, N or 2N, found {start}", start)
        return size


def _plain(recipe: Recipe) -> Unresolved:
    return lambda _: recipe


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    """`; did you mean ...?` where a known name is close."""
    from difflib import get_close_matches  # only errors need it

    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
