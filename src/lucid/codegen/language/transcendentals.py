"""Exponentials, logarithms, trigonometry and the error function on vectors, with rounding.

All are minimax or Chebyshev fits on the ranges named beside them. Largest errors measured on each
target, in units in the last place: exp, log, pow and expm1 1, sin, cos, erf, sigmoid and
softplus 2, tanh 3, mish 4 (`tests/codegen/language/test_vector_math.py`).
Denormal arguments count as zero, as everywhere in generated code, and denormal results are zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import I32, Vector

# -- comparisons that keep NaN --------------------------------------------------------------------


def at_least(k: Kernel, x: Vector, low: float) -> Vector:
    """max(x, low) that keeps NaN, in one instruction."""
    bound = x.like(low)
    return k.pick(bound.compare(">", x), bound, x)


def at_most(k: Kernel, x: Vector, high: float) -> Vector:
    """min(x, high) that keeps NaN, in one instruction."""
    bound = x.like(high)
    return k.pick(bound.compare("<", x), bound, x)


# -- pieces ---------------------------------------------------------------------------------------


def polynomial(k: Kernel, x: Vector, coefficients: Sequence[float]) -> Vector:
    """Horner's rule; `coefficients` from the constant term up."""
    result = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = k.fma(result, x, x.like(c))
    return result


def integer_type(x: Vector) -> ir.Type:
    return I32 if x.lanes == 1 else ir.VectorType(I32, x.lanes)


def integers(x: Vector, value: int) -> Any:
    """A 32-bit integer in each lane of `x`."""
    return ir.Constant(integer_type(x), value if x.lanes == 1 else [value] * x.lanes)


def float_bits(k: Kernel, x: Vector) -> Any:
    """The floats' bits as 32-bit integers."""
    return k.builder.bitcast(x.raw, integer_type(x))


MAGIC = 12582912.0
"""1.5 * 2^23: adding it rounds a small float to the nearest integer, in its low bits."""
WIDE_MAGIC = 6755399441055744.0
"""1.5 * 2^52, the same for doubles."""


def _power_of_two(k: Kernel, x: Vector, n: Any) -> Vector:
    """2^n as floats like those of `x`, n integers from -126 to 127; 0 for -127."""
    biased = k.builder.add(n, integers(x, 127))
    return Vector(k.builder, k.builder.bitcast(k.builder.shl(biased, integers(x, 23)), x.raw.type))


def _times_power(k: Kernel, x: Vector, n: Any) -> Vector:
    """x * 2^n, n integers from -252 to 252: in two factors, because n = 128 and the numbers below
    2^-126 are no single power of two."""
    b = k.builder
    half = b.ashr(n, integers(x, 1))
    for part in (half, b.sub(n, half)):
        x = x * _power_of_two(k, x, part)
    return x


# -- rounding -------------------------------------------------------------------------------------


def rounded(k: Kernel, x: Vector) -> Vector:
    """The nearest integer, of two the even one; x itself from 2^23 on, where all are integers."""
    size, large = k.math("fabs", x), x.like(8388608.0)
    near = k.math("copysign", (size + large) - large, x)
    return k.pick(size.compare("<", large), near, x)


def floor(k: Kernel, x: Vector) -> Vector:
    """The largest integer not above x. (Its own instruction is none that every target has.)"""
    near = rounded(k, x)
    return k.pick(near.compare(">", x), near - 1.0, near)


# -- exponentials ---------------------------------------------------------------------------------

EXP_REMAINDER = (0.5, 0.16666576266, 0.041666463017, 0.0083633484319, 0.0013933902374)
"""(exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2."""


def _exp_parts(k: Kernel, x: Vector) -> tuple[Any, Vector]:
    """n and exp(r) - 1, where exp(x) = 2^n exp(r): n by the rounding trick, r in two parts."""
    shifted = k.fma(x, x.like(1 / math.log(2)), x.like(MAGIC))
    n = shifted - MAGIC
    r = k.fma(n, x.like(-0.693359375), x)
    r = k.fma(n, x.like(2.12194440e-4), r)
    whole = k.builder.sub(float_bits(k, shifted), integers(x, 0x4B400000))
    return whole, k.fma(polynomial(k, r, EXP_REMAINDER), r * r, r)


def exp(k: Kernel, x: Vector) -> Vector:
    n, p = _exp_parts(k, at_least(k, at_most(k, x, 89.0), -104.0))
    return _times_power(k, p + 1.0, n)


def half_exp(k: Kernel, x: Vector) -> Vector:
    """exp(x) / 2 for x >= 0, infinite only where that is too large."""
    n, p = _exp_parts(k, at_most(k, x, 90.0))
    return _times_power(k, p + 1.0, k.builder.sub(n, integers(x, 1)))


def exp_below(k: Kernel, x: Vector) -> Vector:
    """exp(x) for x <= 88, with one factor 2^n: where n is -127 that is 0."""
    n, p = _exp_parts(k, at_least(k, x, -88.0))
    return (p + 1.0) * _power_of_two(k, x, n)


def exp_bounded(k: Kernel, x: Vector) -> Vector:
    """exp(x), but never more than exp(88)."""
    return exp_below(k, at_most(k, x, 88.0))


def expm1_below(k: Kernel, x: Vector) -> Vector:
    """exp(x) - 1 where x <= 0, and 0 above: 2^n (exp(r) - 1) + (2^n - 1), the latter exact."""
    n, p = _exp_parts(k, at_least(k, at_most(k, x, 0.0), -20.0))
    power = _power_of_two(k, x, n)
    return k.fma(p, power, power - 1.0)


def sigmoid(k: Kernel, x: Vector) -> Vector:
    return 1.0 / (exp_bounded(k, -x) + 1.0)


TANH_SMALL = (-0.33333328366, 0.13332617287, -0.053828053176, 0.020891090855, -0.0059462366626)
"""(tanh(x) / x - 1) / x^2 in x^2, for |x| <= 0.64."""


def tanh(k: Kernel, x: Vector) -> Vector:
    square = x * x
    small = k.fma(x * square, polynomial(k, square, TANH_SMALL), x)
    large = 1.0 - 2.0 / (exp_bounded(k, x + x) + 1.0)
    return k.pick(k.math("fabs", x).compare(">", 0.64), large, small)


def mish(k: Kernel, x: Vector) -> Vector:
    """x tanh(ln(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2); the quotient is 1 from 20 on."""
    power = exp_below(k, at_most(k, x, 20.0))
    n = power * (power + 2.0)
    return x * (n / (n + 2.0))


ERF_SMALL = (
    0.128379151225,
    -0.376124888659,
    0.11281734705,
    -0.0267631560564,
    0.00498753180727,
    -0.00059597415384,
)
"""erf(x) / x - 1 in x^2, for |x| <= 0.93."""
ERFC_LOGARITHM = (
    0.000300268788123,
    -1.13015508652,
    -0.63195621967,
    -0.109960801899,
    0.0263551212847,
    -0.00473695062101,
    0.000592092750594,
    -4.5512773795e-05,
    1.61024036061e-06,
)
"""log(1 - erf(x)) for 0.9 <= x <= 4; above 4, erf(x) is 1 in float32."""


def erf(k: Kernel, x: Vector) -> Vector:
    square, size = x * x, k.math("fabs", x)
    small = k.fma(x, polynomial(k, square, ERF_SMALL), x)
    tail = 1.0 - exp_below(k, polynomial(k, at_most(k, size, 4.0), ERFC_LOGARITHM))
    return k.pick(size.compare(">", 0.92), k.math("copysign", tail, x), small)


GELU_ROOT = (
    0.398940076061,
    0.238793166311,
    -0.0442910560123,
    -0.0720831281092,
    0.00115661549031,
    0.0235293615683,
    -0.00893934888414,
    0.00104186157946,
)
"""(1 - (1 - erf(a sqrt 2))^(1/4)) / a for 0 <= a <= 2.6, as close as makes 5e-8 of erf / 2; beyond,
times a it rises to 1 and on."""


def gelu(k: Kernel, x: Vector) -> Vector:
    """x (1 + erf(x / sqrt 2)) / 2, to 1.5e-7 of x. With a = |x| / 2: x / 2 + a erf(a sqrt 2),
    and the fourth root of 1 - erf is nearly straight: a short polynomial and two squares, and no
    division. v (2 - v) = 1 - (1 - v)^2 is such a square, and keeps the digits of what is small.
    Results of -0 are 0."""
    half = x * 0.5
    a = k.math("fabs", half)
    bend = at_most(k, a * polynomial(k, a, GELU_ROOT), 1.0)
    for _ in range(2):
        bend = bend * (2.0 - bend)
    return k.fma(a, bend, half)


# -- logarithms -----------------------------------------------------------------------------------

LOG_REMAINDER = (
    0.33333311934554564,
    -0.24999986429000706,
    0.20002146014689978,
    -0.16669215814671986,
    0.1422002262878021,
    -0.12385562464487406,
    0.11865135965411742,
    -0.11780641189347926,
    0.069209656904503995,
)
"""(log(1 + f) - f + f^2 / 2) / f^3 for sqrt(1/2) <= 1 + f <= sqrt(2)."""


def _log_parts(k: Kernel, x: Vector) -> tuple[Any, Vector]:
    """e and m, where x = 2^e m and m lies between sqrt(1/2) and sqrt(2); x positive and finite."""
    b = k.builder
    bits = float_bits(k, x)
    e = b.ashr(b.sub(bits, integers(x, 0x3F3504F3)), integers(x, 23))
    m = b.sub(bits, b.shl(e, integers(x, 23)))
    return e, Vector(k.builder, b.bitcast(m, x.raw.type))


def _log_positive(k: Kernel, x: Vector) -> Vector:
    """ln x for x positive and finite."""
    e, m = _log_parts(k, x)
    n = Vector(k.builder, k.builder.sitofp(e, x.raw.type))
    f = m - 1.0
    square = f * f
    tail = k.fma(n, x.like(-2.12194440e-4), f * square * polynomial(k, f, LOG_REMAINDER))
    return k.fma(n, x.like(0.693359375), f + k.fma(square, x.like(-0.5), tail))


def log(k: Kernel, x: Vector) -> Vector:
    y = k.pick(x.compare("<", math.inf), _log_positive(k, x), x)  # infinity and NaN as they are
    y = k.pick(x.compare("<", 0.0), x.like(math.nan), y)
    return k.pick(x.compare("==", 0.0), x.like(-math.inf), y)


def log_one_more(k: Kernel, x: Vector) -> Vector:
    """ln(1 + x), where what rounding 1 + x lost is added back."""
    one_more = x + 1.0
    lost = (x - (one_more - 1.0)) / one_more
    finite = k.math("fabs", one_more).compare("<", math.inf)
    return log(k, one_more) + k.pick(finite, lost, x.like(0.0))


def softplus(k: Kernel, x: Vector) -> Vector:
    """ln(1 + e^x) = max(x, 0) + ln(1 + t), t = e^-|x|; what rounding 1 + t lost is added back."""
    t = exp_below(k, -k.math("fabs", x))
    one_more = t + 1.0
    lost = (t - (one_more - 1.0)) / one_more
    return at_least(k, x, 0.0) + (_log_positive(k, one_more) + lost)


# -- powers ---------------------------------------------------------------------------------------

LOG2_REMAINDER = (
    0.9617966939259086,
    0.57707801651875932,
    0.41219851874719592,
    0.32060817087418167,
    0.26170616861383243,
    0.23982262877879892,
)
"""(log2((1 + s) / (1 - s)) / s - 2 / ln 2) / s^2 in s^2, for |s| <= 0.1716."""
EXP2 = (
    0.99999999995955016,
    0.69314718053502584,
    0.24022651213575136,
    0.055504109760693522,
    0.0096180256051773304,
    0.0013333422701700304,
    0.00015469731409383003,
    1.5316445611243107e-5,
)
"""2^f for |f| <= 1/2."""


def power(k: Kernel, a: Vector, b: Vector) -> Vector:
    """a^b, with the special cases of C's pow. In doubles: an error of the logarithm counts as often
    as the result has binary digits before its point."""
    size = k.math("fabs", a)
    result = _power_of_size(k, size, b)
    result = k.pick(size.compare("==", 1.0), a.like(1.0), result)  # to infinity as well
    half = b * 0.5
    whole = floor(k, b).compare("==", b)
    odd = k.both(whole, k.builder.not_(floor(k, half).compare("==", half)))
    result = k.pick(odd, k.math("copysign", result, a), result)
    negative = k.both(a.compare("<", 0.0), size.compare("<", math.inf))
    result = k.pick(k.both(negative, k.builder.not_(whole)), a.like(math.nan), result)
    result = k.pick(a.compare("ord", b), result, a + b)
    one = k.builder.or_(a.compare("==", 1.0), b.compare("==", 0.0))
    return k.pick(one, a.like(1.0), result)


def _power_of_size(k: Kernel, x: Vector, b: Vector) -> Vector:
    """x^b for x >= 0, but for what is NaN."""
    e, m = _log_parts(k, x)
    wide = k.widen(m)
    s = (wide - 1.0) / (wide + 1.0)
    square = s * s
    scaled = k.fma(polynomial(k, square, LOG2_REMAINDER), square, s.like(2 / math.log(2)))
    logarithm = k.fma(scaled, s, Vector(k.builder, k.builder.sitofp(e, wide.raw.type)))
    logarithm = k.pick(x.compare("==", math.inf), s.like(math.inf), logarithm)
    logarithm = k.pick(x.compare("==", 0.0), s.like(-math.inf), logarithm)
    exponent = at_least(k, at_most(k, logarithm * k.widen(b), 129.0), -151.0)
    shifted = exponent + WIDE_MAGIC
    f = exponent - (shifted - WIDE_MAGIC)
    return _times_power(k, k.narrow(polynomial(k, f, EXP2)), k.low_bits(shifted))


# -- trigonometry ---------------------------------------------------------------------------------

HALF_PI = (1.5707963109016418, 1.5893254712295857e-08, 6.123233995736766e-17)
"""pi / 2 in three parts, the first two of 26 bits each: their products with integers up to 2^27
are exact."""
SIN_REMAINDER = (
    -0.16666666641858361,
    0.0083333294053451992,
    -0.00019839339764460147,
    2.7183503620499929e-6,
)
"""(sin r - r) / r^3 in r^2, for |r| <= pi / 4."""
COS_REMAINDER = (0.041666647120103289, -0.0013887377909205166, 2.4439483028888101e-5)
"""(cos r - 1 + r^2 / 2) / r^4 in r^2, for |r| <= pi / 4."""


def sine_and_cosine(k: Kernel, x: Vector) -> tuple[Vector, Vector, Any]:
    """The sine and the cosine of r, and n, where x = n * pi / 2 + r. The remainder is taken in
    doubles, which is right up to 2^27; beyond, it loses digits with every doubling."""
    wide = k.widen(x)
    shifted = k.fma(wide, wide.like(2 / math.pi), wide.like(WIDE_MAGIC))
    n = shifted - WIDE_MAGIC
    for part in HALF_PI:
        wide = k.fma(n, wide.like(-part), wide)
    r = k.narrow(wide)
    square = r * r
    sin = k.fma(r * square, polynomial(k, square, SIN_REMAINDER), r)
    cos = k.fma(square * square, polynomial(k, square, COS_REMAINDER), 1.0 - 0.5 * square)
    return sin, cos, k.low_bits(shifted)


def sine(k: Kernel, x: Vector, quarters: int = 0) -> Vector:
    """sin(x + quarters * pi / 2), so that one quarter is the cosine."""
    b = k.builder
    sin, cos, n = sine_and_cosine(k, x)
    quarter = b.add(n, integers(x, quarters))
    zero = integers(x, 0)
    even = b.icmp_signed("==", b.and_(quarter, integers(x, 1)), zero)
    first = b.icmp_signed("==", b.and_(quarter, integers(x, 2)), zero)
    y = k.pick(even, sin, cos)
    return k.pick(first, y, -y)
