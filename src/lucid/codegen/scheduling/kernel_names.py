"""The names of the kernels that layers may have."""

from __future__ import annotations

BF16_SUFFIX = "_bf16"
"""How kernels that multiply floats rounded to bfloat16 are named, after those of float32."""
PARTS_SUFFIX = "_parts"
"""How kernels are named that multiply floats as the sums of bfloat16 parts, by tiles of matrices.
Where the target has none they are those of float32."""
BY_ROWS = ("pointwise", "direct")
KERNELS = (
    *(*BY_ROWS, "winograd2x2", "winograd4x4", "depthwise", "strassen"),
    *(kernel + BF16_SUFFIX for kernel in (*BY_ROWS, "winograd2x2")),
    *(kernel + PARTS_SUFFIX for kernel in BY_ROWS),
)
"""The names by which kernels of convolutions are chosen and forced."""
MATRIX_KERNELS = ("pointwise", "strassen", "pointwise" + BF16_SUFFIX, "pointwise" + PARTS_SUFFIX)
"""Those that linear layers may have."""

ROUNDING = ("winograd4x4", "strassen")
"""Those whose sums round more than direct ones."""


def algorithm_of(kernel: str) -> str:
    """The kernel's name, whatever numbers it multiplies."""
    return kernel.removesuffix(BF16_SUFFIX).removesuffix(PARTS_SUFFIX)


def winograd_m(kernel: str) -> int:
    """The m of F(m x m), of which a kernel of Winograd's is."""
    return int(algorithm_of(kernel)[-1])
