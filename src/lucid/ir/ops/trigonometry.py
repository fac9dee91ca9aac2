"""Tangents, inverse trigonometric and hyperbolic functions."""

from __future__ import annotations

import numpy as np

from lucid.ir.ops.base import Array, op
from lucid.ir.ops.elementwise import Unary


@op("tan")
class Tan(Unary):
    """y = tan x, NaN for the infinities."""

    onnx, torch = "Tan", "tan"
    ulps, domain = 4, (-1.3e8, 1.3e8)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.tan(x)
        return y


@op("asin")
class Asin(Unary):
    """y = arcsin x; NaN where |x| > 1."""

    onnx, torch = "Asin", "asin"
    ulps, domain = 3, (-1, 1)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.arcsin(x)
        return y


@op("acos")
class Acos(Unary):
    """y = arccos x; NaN where |x| > 1."""

    onnx, torch = "Acos", "acos"
    never_negative = True
    ulps, domain = 3, (-1, 1)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.arccos(x)
        return y


@op("atan")
class Atan(Unary):
    """y = arctan x."""

    onnx, torch = "Atan", "atan"
    ulps, domain = 3, (-1e20, 1e20)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.arctan(x)
        return y


@op("sinh")
class Sinh(Unary):
    """y = (exp(x) - exp(-x)) / 2."""

    onnx, torch = "Sinh", "sinh"
    ulps, domain = 3, (-89, 89)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.sinh(x)
        return y


@op("cosh")
class Cosh(Unary):
    """y = (exp(x) + exp(-x)) / 2."""

    onnx, torch = "Cosh", "cosh"
    never_negative = True
    ulps, domain = 3, (-89, 89)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.cosh(x)
        return y


@op("asinh")
class Asinh(Unary):
    """y = ln(x + sqrt(x^2 + 1)), the inverse of sinh."""

    onnx, torch = "Asinh", "asinh"
    ulps, domain = 3, (-1e20, 1e20)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.arcsinh(x)
        return y


@op("acosh")
class Acosh(Unary):
    """y = ln(x + sqrt(x^2 - 1)), the inverse of cosh; NaN where x < 1."""

    onnx, torch = "Acosh", "acosh"
    never_negative = True
    ulps, domain = 3, (1, 1e20)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.arccosh(x)
        return y


@op("atanh")
class Atanh(Unary):
    """y = ln((1 + x) / (1 - x)) / 2, the inverse of tanh; NaN where |x| > 1."""

    onnx, torch = "Atanh", "atanh"
    ulps, domain = 3, (-1, 1)

    def evaluate(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y: Array = np.arctanh(x)
        return y
