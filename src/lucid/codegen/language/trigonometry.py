"""The tangent, the inverses of trigonometric functions, and the hyperbolic ones, on vectors.

Chebyshev fits on the ranges named beside them. Largest errors measured on each target, in units in
the last place: acos and cosh 1.3, sinh and asinh 1.6, asin, acosh and atanh 2, atan 2.1, tan 3.2
(`tests/codegen/language/test_vector_math.py`).
"""

from __future__ import annotations

import math

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.transcendentals import (
    at_most,
    half_exp,
    integers,
    log,
    log_one_more,
    polynomial,
    sine_and_cosine,
)
from lucid.codegen.language.values import Vector


def tangent(k: Kernel, x: Vector) -> Vector:
    """sin r / cos r, or in every second quarter -cos r / sin r."""
    b = k.builder
    sin, cos, n = sine_and_cosine(k, x)
    even = b.icmp_signed("==", b.and_(n, integers(x, 1)), integers(x, 0))
    return k.pick(even, sin, -cos) / k.pick(even, cos, sin)


# -- inverses -------------------------------------------------------------------------------------

ASIN_REMAINDER = (
    0.166667514889,
    0.0749535333964,
    0.0454624991133,
    0.0242205100315,
    0.0420950379651,
)
"""(asin(x) / x - 1) / x^2 in x^2, for |x| <= 1/2."""
ATAN_REMAINDER = (
    -0.333333142347,
    0.199984227974,
    -0.14242726381,
    0.105884334142,
    -0.0606570483827,
)
"""(atan(x) / x - 1) / x^2 in x^2, for |x| <= tan(pi / 8)."""
HALF_PI, HALF_PI_LOW = 1.5707963705062866, -4.371139000186241e-08
"""pi / 2 as a float, and what that lacks."""


def _arcs(k: Kernel, x: Vector) -> tuple[Vector, Vector]:
    """asin |x| up to 1/2, and beyond it acos |x|, which is 2 asin sqrt((1 - |x|) / 2); and |x|."""
    size = k.math("fabs", x)
    near = size.compare("<=", 0.5)
    square = k.pick(near, size * size, (1.0 - size) * 0.5)
    root = k.pick(near, size, k.math("sqrt", square))
    arc = k.fma(root * square, polynomial(k, square, ASIN_REMAINDER), root)
    return k.pick(near, arc, arc + arc), size


def arc_sine(k: Kernel, x: Vector) -> Vector:
    arc, size = _arcs(k, x)
    other = (HALF_PI - arc) + HALF_PI_LOW
    return k.math("copysign", k.pick(size.compare("<=", 0.5), arc, other), x)


def arc_cosine(k: Kernel, x: Vector) -> Vector:
    arc, size = _arcs(k, x)
    signed = k.math("copysign", arc, x)
    middle = (HALF_PI - signed) + HALF_PI_LOW
    below = (2 * HALF_PI - arc) + 2 * HALF_PI_LOW
    outer = k.pick(x.compare("<", 0.0), below, arc)
    return k.pick(size.compare("<=", 0.5), middle, outer)


def arc_tangent(k: Kernel, x: Vector) -> Vector:
    """Of |x|, or of 45 or 90 degrees less than that angle, so that what is left is small."""
    size = k.math("fabs", x)
    middle, large = (
        size.compare(">", math.tan(math.pi / 8)),
        size.compare(">", math.tan(3 * math.pi / 8)),
    )
    above = k.pick(large, x.like(-1.0), k.pick(middle, size - 1.0, size))
    below = k.pick(large, size, k.pick(middle, size + 1.0, x.like(1.0)))
    t = above / below
    square = t * t
    arc = k.fma(t * square, polynomial(k, square, ATAN_REMAINDER), t)
    base, low = (
        k.pick(large, x.like(c), k.pick(middle, x.like(c / 2), x.like(0.0)))
        for c in (HALF_PI, HALF_PI_LOW)
    )
    return k.math("copysign", base + (arc + low), x)


# -- hyperbolic functions -------------------------------------------------------------------------

SINH_REMAINDER = (0.166666664933, 0.00833335028204, 0.000198361246352, 2.81712274361e-06)
"""(sinh(x) / x - 1) / x^2 in x^2, for |x| <= 1."""


def hyperbolic_sine(k: Kernel, x: Vector) -> Vector:
    size, square = k.math("fabs", x), x * x
    half = half_exp(k, size)
    large = k.math("copysign", half - 0.25 / half, x)
    small = k.fma(x * square, polynomial(k, square, SINH_REMAINDER), x)
    return k.pick(size.compare(">", 1.0), large, small)


def hyperbolic_cosine(k: Kernel, x: Vector) -> Vector:
    half = half_exp(k, k.math("fabs", x))
    return half + 0.25 / half


LARGE = 1e9
"""Beyond it x^2 + 1 is x^2 in float32, and may soon be infinite."""


def area_sine(k: Kernel, x: Vector) -> Vector:
    """asinh x = ln(|x| + sqrt(x^2 + 1)), with the sign of x."""
    size = k.math("fabs", x)
    bounded = at_most(k, size, LARGE)
    square = bounded * bounded
    more = bounded + square / (k.math("sqrt", square + 1.0) + 1.0)
    return k.math("copysign", _or_log_of_double(k, size, log_one_more(k, more)), x)


def area_cosine(k: Kernel, x: Vector) -> Vector:
    """acosh x = ln(x + sqrt(x^2 - 1)); NaN below 1."""
    less = at_most(k, x, LARGE) - 1.0
    more = less + k.math("sqrt", less * (less + 2.0))
    found = _or_log_of_double(k, x, log_one_more(k, more))
    return k.pick(x.compare("<", 1.0), x.like(math.nan), found)


def area_tangent(k: Kernel, x: Vector) -> Vector:
    """atanh x = ln(1 + 2|x| / (1 - |x|)) / 2, with the sign of x; NaN beyond 1."""
    size = k.math("fabs", x)
    half = log_one_more(k, (size + size) / (1.0 - size)) * 0.5
    return k.math("copysign", half, x)


def _or_log_of_double(k: Kernel, x: Vector, found: Vector) -> Vector:
    """What was found, or ln 2x where x is large."""
    return k.pick(x.compare(">", LARGE), log(k, x) + math.log(2), found)
