"""Seeded miscompiles of quantised layers and of kernels over bytes."""

from __future__ import annotations

from .mutant import EVERY, TILES, C, K, L, Mutant, P

BYTES = "tests/codegen/kernels/test_kernels_bytes.py"
"""Where bounds are met to the unit, and neighbouring groups differ: random bytes do neither."""
QUANTISED_PRODUCTS = [
    Mutant(
        "signed bytes are read as unsigned ones",
        f"{K}.integer_rows:_less",
        "k.builder.sext if signed",
        "k.builder.zext if signed",
        ("product", "direct"),
    ),
    Mutant(
        "the second half of a pair of weights is its first",
        f"{K}.packing:PairPanels.arrange",
        "block[:, number :: self.together]",
        "block[:, 0 :: self.together]",
    ),
    Mutant(
        "a line of several segments begins in the middle of a pair",
        f"{L}.direct:direct",
        "steps = -(-segment //",
        "steps = max(1, segment //",
    ),
    Mutant(
        "a byte's zero point is added before it is kept in range",
        "lucid.codegen.language.saturation:saturated",
        "int(bounds.min) - zero_point",
        "int(bounds.min)",
        EVERY,
    ),
    Mutant(
        "a result narrower than its panel lacks its last number",
        "lucid.codegen.language.partial:store_first",
        "count.minimum(lanes), lanes",
        "(count - 1).minimum(lanes), lanes",
        TILES,
    ),
]

BYTE_PRODUCTS = [
    Mutant(
        "negative weights do not overflow",
        f"{K}.byte_products:limits",
        "for sign in (1, -1)",
        "for sign in (1, 1)",
    ),
    Mutant(
        "a sum of products of bytes may be 2^15",
        f"{K}.byte_products:limits",
        "LARGEST**2",
        "(LARGEST + 1) ** 2",
        tests=BYTES,
    ),
    Mutant(
        "limits are those of a lane's first step",
        f"{K}.byte_products:limits",
        ".sum((2, 5)).max((2, 3))",
        "[:, :, 0].sum(4).max((2, 3))",
    ),
    Mutant(
        "the peak of some rows is that of the first one",
        f"{K}.byte_products:_store_peaks",
        "for row in rows[1:]",
        "for row in rows[1:1]",
        ("product",),
    ),
    Mutant(
        "the peak of a group is that of its first lane",
        f"{K}.byte_products:_store_peaks",
        "for lane in (0, 1)",
        "for lane in (0, 0)",
        ("product",),
    ),
    Mutant(
        "the peak of a group is that of its first step",
        f"{K}.byte_products:_lanes",
        "return steps + other",
        "return steps",
        ("product",),
    ),
    Mutant(
        "every other group of bytes goes by its neighbour's limit",
        f"{K}.arithmetic:Bytes._checked",
        "number = at // GROUP",
        "number = at // GROUP // 2 * 2",
        ("tile",),
        BYTES,
    ),
    Mutant(
        "odd bytes of a row are signed",
        f"{C}.language.quads:_halves",
        "widen = build.ashr if signed",
        "widen = build.ashr if True",
        ("tile",),
    ),
    Mutant(
        "bytes are multiplied as they are whatever their zero point",
        f"{L}.product:_of_bytes",
        "(ctx.target.dot or not layer.zero_point)",
        "True",
    ),
]

QUANTISED_LAYERS = [
    Mutant(
        "sums of Winograd on integers are shifted by one less",
        f"{K}.winograd_transforms:shift",
        "bit_length() - 1",
        "bit_length() - 2",
        ("integer_winograd",),
    ),
    Mutant(
        "Winograd on integers keeps the zero points",
        f"{K}.integer_winograd:_Emitter._transform_columns",
        "if (i, j) == (1, 1):",
        "if False:",
        ("integer_winograd",),
    ),
    Mutant(
        "borders of Winograd on integers are 0, not the zero point",
        f"{K}.integer_winograd:_Emitter.blank_pixel",
        "self.frame.zero_point.raw",
        "k.int(0).raw",
        ("integer_winograd",),
    ),
    Mutant(
        "the last channels of Winograd on integers are left out",
        f"{K}.integer_winograd:_Emitter._transform",
        "last = (channels - self.lanes).maximum(0)",
        "last = (channels - self.lanes - 1).maximum(0)",
        ("integer_winograd",),
    ),
    Mutant(
        "the points of Winograd on integers are in the wrong order",
        f"{K}.winograd_panels:matrix",
        "WHOLE_FILTERS[m] if dtype",
        "WHOLE_FILTERS[m][::-1] if dtype",
    ),
    Mutant(
        "depthwise integers forget the zero point",
        f"{L}.depthwise:_kernel",
        "layer.zero_point != 0",
        "layer.zero_point > 99",
    ),
    Mutant(
        "depthwise integers pair their last line with the first column",
        f"{K}.packing:TapPairs.arrange",
        "lines[:, ::2], lines[:, 1::2]",
        "lines[:, ::2], lines[:, : width // 2]",
    ),
    Mutant(
        "the last vector of depthwise integers is not moved back",
        f"{K}.integer_depthwise:IntegerDepthwise.each_vector",
        "loop.index.minimum(channels - k.vector)",
        "loop.index.minimum(channels - k.vector + 1)",
        ("integer_depthwise",),
    ),
    Mutant(
        "the columns beside a line of depthwise integers are 0, not the zero point",
        f"{K}.integer_depthwise:IntegerDepthwise.spread",
        "Vector(k.builder, f.zero_bytes)",
        "Vector(k.builder, k.every_lane(k.builder.trunc(k.int(0).raw, I8), k.vector))",
        ("integer_depthwise",),
    ),
]

QUANTISED_MAPS = [
    Mutant(
        "zero points are added to a sum once more",
        f"{K}.pooling:_PoolEmitter._finish",
        "total - total.of(",
        "total + total.of(",
        ("pool",),
    ),
    Mutant(
        "a table of signed bytes begins elsewhere",
        f"{K}.lookup:Lookup.emit",
        "constant(x.element, 128)",
        "constant(x.element, 64)",
        ("lookup",),
    ),
    Mutant(
        "the second half of a table is looked for in the first",
        f"{C}.language.tables:ByteTable.at",
        "b.xor(places, constant(self.kind, 128))",
        "places",
        ("lookup",),
    ),
    Mutant(
        "the last bytes of a row are forgotten",
        f"{C}.language.builder:Kernel.each_piece",
        "with self.loop(whole, last, narrow) as loop:",
        "with self.loop(whole, last - narrow + 1, narrow) as loop:",
        EVERY,
    ),
    Mutant(
        "interleaved columns are in the opposite order",
        f"{K}.transpose:Interleave._rows",
        "[i * lanes + row for",
        "[(self.columns - 1 - i) * lanes + row for",
        ("interleave",),
    ),
    Mutant(
        "squares of bytes repeat their first half",
        f"{K}.transpose:interleaved",
        "high = [half + n for n in low]",
        "high = low",
        ("transpose",),
    ),
    Mutant(
        "a quantize that is spelled out has no zero point",
        f"{P}.spell_quantize:as_quotient",
        "step.zero_point",
        "0",
    ),
    Mutant(
        "the zero point of a dequantize is added",
        f"{P}.spell_quantize:_floats",
        "float(step.zero_point)",
        "float(-step.zero_point)",
    ),
]

QUANTISED = [*QUANTISED_PRODUCTS, *BYTE_PRODUCTS, *QUANTISED_LAYERS, *QUANTISED_MAPS]
