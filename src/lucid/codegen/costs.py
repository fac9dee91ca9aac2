"""What kernels reach at a level of an instruction set: the measured facts of the cost model.

They are shares and cycles rather than times, so that they carry over to other processors of the
level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple


class Transforms(NamedTuple):
    """Cycles that transforms take for a vector of input channels, and for one of output channels:
    Winograd's of a tile, Strassen's of a pair of rows."""

    input: float
    output: float


@dataclass(frozen=True)
class Costs:
    """Shares are of the peak of multiply-adds.

    `multiply_adds`: vectors of them in a cycle. `streamed`: bytes of weights that one core takes
    from memory in a cycle while it computes. `products`, `direct`, `short`, `winograd`: the shares
    that 1x1 products reach, convolutions over taps, those whose segments are unrolled, and
    Winograd's products. `transforms4`, `transforms2`: of floats, by F(4x4) and F(2x2). `tiles`:
    output tiles in a Winograd block, where L2 holds what they need: larger blocks reuse the weights
    more often, and leave L2 in the end. `shared_tiles`: those that blocks have at least which are
    cut for each thread to have one, rather than some columns of all. `expanded`: the share of L2
    that an inverted bottleneck's input may fill, and half of it a panel of the expanded map, for
    that to be made panel by panel, all lines in one task; 0: it is made by bands. `tasks`: blocks
    of rows of a product for each thread, and half of its chunks of panels: threads seldom run
    equally fast on a busy processor, and wait for each other's last task. `strassen`: cycles for a
    pair of rows of Strassen's products: to sum up a vector of each half of its channels, and to sum
    up and store two vectors of its results; `strassen_convolutions`: whether 1x1 convolutions gain
    by them as well as linear layers. `bf16`: multiply-adds of bfloat16 in the time of one of
    float32; without an instruction for them they are two of these, after shifts. `parts`: those of
    float32 by tiles of matrices, of the sums of bfloat16 parts, in the time of one by vectors; 0:
    none are.
    """

    multiply_adds: float
    streamed: float
    products: float
    direct: float
    short: float
    winograd: float
    transforms4: Transforms
    transforms2: Transforms
    tiles: int
    shared_tiles: int
    expanded: float
    tasks: int
    strassen: Transforms
    strassen_convolutions: bool
    bf16: float
    parts: float

    def transforms(self, m: int) -> Transforms:
        """Those of F(m x m)."""
        return {4: self.transforms4, 2: self.transforms2}[m]


AVX512 = Costs(
    multiply_adds=2.0,
    # F(4x4) at 14x14, 512 columns: 0.89 ms for 9.4 MB; F(2x2) at 7x7: 1.6 ms for 16.8 MB; 3.6 GHz.
    streamed=3.0,
    products=0.85,
    # 1.64 ms at 7x7, 512 to 1024 in two groups, where rows and panels together exceed L2.
    direct=0.6,
    # 0.94 ms for 3 to 64 channels at 224x224, where F(4x4) takes 1.48, most of it for transforms of
    # vectors with three channels in them.
    short=0.75,
    winograd=0.8,
    # Operations, loads and stores.
    transforms4=Transforms(144 + 72, 100 + 88),
    transforms2=Transforms(32 + 32, 24 + 24),
    # ResNeSt-50's layers, L2 of 2 MB: 17.2 ms with 16, 15.6 with 25, 13.6 with 49, 13.9 with 98,
    # 15.3 with 196.
    tiles=49,
    shared_tiles=98,  # smaller ones for each thread were not tried
    expanded=0.0,  # not measured
    tasks=4,
    strassen=Transforms(60, 90),  # as AVX2 had it once; not measured
    strassen_convolutions=False,  # not measured
    bf16=0.7,
    parts=0.0,  # not measured
)
"""Two cores of an Intel Xeon with AVX-512. Levels that nobody has measured have these too."""

AVX512_BF16 = replace(AVX512, bf16=1.0)
"""With vdpbf16ps on processors that nobody has measured: as many products as of float32."""

AVX512_TILES = replace(AVX512, bf16=8.0)
"""With Intel's AMX, which nobody has measured: its products of bfloat16 at half of their nominal
rate."""

AVX512_HALVES = Costs(
    multiply_adds=1.0,
    # 512 to 512 channels at 7x7, F(4x4): 1.88 ms for 37.7 MB; a head of 2048 by 1000, 0.41 for 8.2.
    streamed=5.4,
    # ResNet-50's layers reach 0.91 to 0.98, 0.92 to 0.94 and 0.92.
    products=0.95,
    direct=0.9,
    short=0.9,
    # 64 to 64 channels at 56x56, 128 at 28x28, 256 at 14x14 by F(4x4): 0.62, 0.58 and 0.74 ms, by
    # F(2x2) 1.02, 0.96 and 0.95. 3 to 64 at 224x224 take 2.3 by F(4x4) and 1.9 over windows.
    winograd=0.93,
    transforms4=Transforms(110, 340),
    transforms2=Transforms(30, 110),
    # VGG-16: 110.1 ms with 49, 109.3 with 98, 108.7 with 25.
    tiles=49,
    # 128 to 128 channels at 28x28, two threads: 0.29 ms, and 0.32 where they share 49.
    shared_tiles=25,
    expanded=0.0,
    tasks=4,
    # 1x1 with 256 to 1024 channels at 14x14: 0.85 ms on one thread and 0.45 on two, 0.91 and 0.47
    # as a plain product; 384 to 512 at 28x28 2.53 and 1.29, 2.77 and 1.39. But 1024 to 256 take
    # 0.87 and 0.50, 0.91 and 0.46: two threads read rows that the other one summed up.
    strassen=Transforms(120, 35),
    strassen_convolutions=True,
    bf16=0.7,
    parts=0.0,
)
"""Two cores of an AMD EPYC (Zen 4), which does vectors of AVX-512 in two halves: 118 GFLOP/s each,
as many as with AVX2. ResNet-50 on one thread, least times of calls."""

AVX512_HALVES_BF16 = replace(AVX512_HALVES, bf16=2.0)
"""The same with vdpbf16ps: 236 GFLOP/s."""

AVX2 = Costs(
    multiply_adds=2.0,
    # F(4x4) at 7x7: 1.83 ms for 21.2 MB of weights, 384 columns, and 3.36 for 37.7, 512.
    streamed=4.0,
    # 512 to 128 channels at 28x28, 1024 to 256 at 14x14: 1.18 and 1.21 ms.
    products=0.85,
    # Up to 0.87 where columns fill panels (256 to 256 channels, 2.68 ms at 14x14, 0.70 at 7x7), and
    # 0.5 to 0.6 in groups of 24 at 7x7. With shares from 0.6 to 0.75 the fastest is chosen of all
    # layers measured; with 0.85 it takes layers of 5x5 and 7x7 that F(2x2) does in 0.8 of the time.
    direct=0.7,
    # 2.40 ms for 3 to 64 channels at 224x224, where F(4x4) takes 7.5; VGG-16 takes 191 for 205.
    short=0.75,
    # These fit 66 layers of 3 to 512 channels at 2x2 to 112x112, in 1 to 38 groups, to 20% on
    # average: what is written lies in more places than what is read.
    winograd=0.78,
    transforms4=Transforms(110, 320),
    transforms2=Transforms(30, 150),
    # L2 of 512 KB: 64 to 64 channels at 56x56, 0.98 ms with 49, 0.93 with 33, 0.97 with 22 and 1.09
    # with 8; 128 to 128 at 28x28, 0.86 with 49, 1.06 with 25; 256 to 256 at 14x14, 1.44 with all 16
    # and 1.98 with 8.
    tiles=49,
    # 128 to 128 channels at 28x28, two threads: 0.43 to 0.50 ms with 25 each, 0.47 to 0.63 where
    # each computes half of the columns of all 49, and so transforms them all; 512 to 512 6.8 and
    # 7.3. But at 14x14 eight each take 1.03 to 1.14 times as long.
    shared_tiles=25,
    # Two threads, minima of 40 turns beside bands and two steps: MobileNetV2 takes 0.94 of the
    # time, MobileNetV4-conv-S 0.93. Bottlenecks at 28x28, 32 to 192 channels, take 100 us for 128.
    expanded=0.5,
    # Two threads beside others wait for each other for 3% of ResNeXt-50's time, and for 4% with 4.
    tasks=8,
    # A Zen 4 by code for AVX2, one thread and two: 512 to 1024 channels at 14x14, with a residual,
    # 1.73 and 0.92 ms, 1.84 and 1.01 as a plain product; 1024 to 512 1.72 and 0.87, 1.82 and 0.93;
    # 728 to 728 at 19x19 3.24 and 1.74, 3.47 and 1.77. But 256 to 256 at 75x75
    # takes 6.8 ms on one thread, and 6.6 as a plain product.
    strassen=Transforms(60, 45),
    strassen_convolutions=True,
    bf16=0.6,
    parts=0.0,
)
"""Two cores of an AMD EPYC (Zen 3), whose peak is 98 GFLOP/s each: chains of like layers with
weights of their own, one thread, least times of calls in turns."""
