"""The arithmetic of Winograd's convolution: F(4x4, 3x3) and F(2x2, 3x3).

y = A^T [ (G g G^T) * (B^T d B) ] A, by Cook-Toom on the points 0, +-a, +-b, infinity (Lavin and
Gray, "Fast algorithms for convolutional neural networks", 2015). With a = 2/3, b = 3/2 the rounding
error is half that of the usual 1, 2 (simulated rms 1.06e-6 against 2.3e-6 at 512 channels), and
a b = 1 saves the multiplications by a^2 b^2. Filters are transformed in `winograd_panels.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lucid.codegen.kernels.winograd_panels import A, B
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import Integers, Vector

Transform = Callable[[Kernel, Sequence[Vector]], list[Vector]]


def _input4(k: Kernel, d: Sequence[Vector]) -> list[Vector]:
    """B^T d on six values: twelve operations, the pair of rows +-p sharing its halves."""
    a2, b2 = A * A, B * B

    def pair(p: float, q2: float) -> tuple[Vector, Vector]:
        even = k.fma(d[2], d[2].like(-q2), d[4])
        odd = k.fma(d[1], d[1].like(-q2), d[3])
        return k.fma(odd, odd.like(p), even), k.fma(odd, odd.like(-p), even)

    center = -(a2 + b2)
    first = k.fma(d[2], d[2].like(center), d[0] + d[4])
    last = k.fma(d[3], d[3].like(center), d[1] + d[5])
    return [first, *pair(A, b2), *pair(B, a2), last]


def _output4(k: Kernel, m: Sequence[Vector]) -> list[Vector]:
    """A^T m: six values to four."""
    s1, d1, s2, d2 = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]

    def blend(x: Vector, p: float, y: Vector, q: float) -> Vector:
        return k.fma(x, x.like(p), y * q)

    return [
        m[0] + (s1 + s2),
        blend(d1, A, d2, B),
        blend(s1, A**2, s2, B**2),
        blend(d1, A**3, d2, B**3) + m[5],
    ]


def _input2(k: Kernel, d: Sequence[Vector]) -> list[Vector]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output2(k: Kernel, m: Sequence[Vector]) -> list[Vector]:
    return [m[0] + (m[1] + m[2]), (m[1] - m[2]) - m[3]]


INPUT: dict[int, Transform] = {4: _input4, 2: _input2}
OUTPUT: dict[int, Transform] = {4: _output4, 2: _output2}


# -- on integers ----------------------------------------------------------------------------------
#
# Without fractions, and exact: on the points 0, +-1, +-2, infinity (of m = 2 without +-2), with the
# rows of G scaled to integers. All of it is arithmetic modulo 2^32. Only what is multiplied has to
# fit 16 bits, and does: inputs are at most 100 times the largest |x - zero point|, weights 49 times
# the largest |w|, numbers of 8 or 9 bits. Rows of the result come times RESULT_SCALES, so that a
# result is 2^shift times too large, and 9 times besides for m = 4. Times the inverse of 9 modulo
# 2^32, and shifted right, it is exact where it is less than 2^(31 - shift).

WholeTransform = Callable[[Sequence[Integers]], list[Integers]]

RESULT_SCALES: dict[int, tuple[int, ...]] = {4: (24, 12, 12, 12), 2: (2, 2)}
INVERSE_OF_9 = pow(9, -1, 1 << 32)
ONES: dict[int, int] = {4: 36, 2: 4}
"""What the point (1, 1) of the input transform is of a tile of ones; all other points are 0."""


def shift(m: int, i: int, j: int) -> int:
    """The power of two by which a result is scaled; it is multiplied by 9 besides for m = 4."""
    scale = RESULT_SCALES[m][i] * RESULT_SCALES[m][j]
    return (scale & -scale).bit_length() - 1


def exact_below(m: int) -> int:
    """Results less than this, and more than its negative, are exact."""
    return 1 << 31 - shift(m, 0, 0)


def _whole_input4(d: Sequence[Integers]) -> list[Integers]:
    """B^T d: six values to six."""
    even, odd = d[4] - d[2], d[3] - d[1]
    twice = odd + odd
    even4, odd4 = d[4] - d[2] * 4, d[3] - d[1] * 4
    first, last = (d[0] - d[2]) * 4 + even, (d[5] - d[3]) - (twice + twice)
    return [first, even4 + odd4, even4 - odd4, even + twice, even - twice, last]


def _whole_output4(m: Sequence[Integers]) -> list[Integers]:
    """A^T m: six values to four."""
    s1, d1, s2, d2 = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [m[0] + s1 * 2 + s2, d1 + d2, s1 + s2 * 2, d1 + d2 * 4 + m[5] * 2]


def _whole_input2(d: Sequence[Integers]) -> list[Integers]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _whole_output2(m: Sequence[Integers]) -> list[Integers]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


WHOLE_INPUT: dict[int, WholeTransform] = {4: _whole_input4, 2: _whole_input2}
WHOLE_OUTPUT: dict[int, WholeTransform] = {4: _whole_output4, 2: _whole_output2}
