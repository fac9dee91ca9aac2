"""Recipes that passes build: small expressions over parameters."""

from __future__ import annotations

from lucid.ir.graph import Parameter, Value
from lucid.ir.ops import Add, Expand, Mul, Op, Reshape, Rsqrt, Sub
from lucid.ir.recipe import Apply, Literal, Recipe


def are_parameters(*values: Value) -> bool:
    return all(isinstance(v, Parameter) for v in values)


def recipe_of(value: Value) -> Recipe:
    """The recipe of a value known to be a parameter."""
    assert isinstance(value, Parameter), f"{value} is no parameter"
    return value.recipe


def apply(op: Op, *arguments: Recipe) -> Recipe:
    return Apply(op, arguments)


def add(a: Recipe, b: Recipe) -> Recipe:
    return apply(Add(), a, b)


def sub(a: Recipe, b: Recipe) -> Recipe:
    return apply(Sub(), a, b)


def mul(a: Recipe, b: Recipe) -> Recipe:
    return apply(Mul(), a, b)


def rsqrt(a: Recipe) -> Recipe:
    return apply(Rsqrt(), a)


def reshape(a: Recipe, *shape: int) -> Recipe:
    """`a` in another shape of as many elements."""
    return a if a.type.shape == shape else apply(Reshape(shape), a)


def expand(a: Recipe, *shape: int) -> Recipe:
    """`a` broadcast to `shape`."""
    return a if a.type.shape == shape else apply(Expand(shape), a)


def along(a: Recipe, axis: int, rank: int) -> Recipe:
    """A vector as a tensor of `rank` axes that lies along one of them."""
    (length,) = ints(a.type.shape)
    return reshape(a, *(length if i == axis else 1 for i in range(rank)))


def zeros(length: int) -> Recipe:
    return expand(Literal(0.0), length)


def ints(shape: tuple[object, ...]) -> tuple[int, ...]:
    """A shape without the batch, which is what every parameter has."""
    assert all(isinstance(d, int) for d in shape), f"{shape} depends on the batch"
    return tuple(d for d in shape if isinstance(d, int))


def size(recipe: Recipe, most: int) -> int:
    """How many ops the recipe applies, counted up to `most`."""
    if not isinstance(recipe, Apply):
        return 0
    total = 1
    for argument in recipe.arguments:
        if total >= most:
            break
        total += size(argument, most - total)
    return total
