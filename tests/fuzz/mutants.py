"""Seeded miscompiles: small wrong changes to the compiler, each in the text of one function.

`old` is what stands in the function's source, `new` what it is replaced by. `families`: of kernels
whose code it changes, so that none may come from the cache; `EVERY` for all.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY = ("",)
PRODUCTS = ("product", "stage")
TILES = ("tile", "window_tile", "matmul")


@dataclass(frozen=True)
class Mutant:
    """One wrong change, in `module:function` or `module:Class.method`."""

    name: str
    where: str
    old: str
    new: str
    families: tuple[str, ...] = ()


P, L, K = "lucid.ir.passes", "lucid.codegen.lowering", "lucid.codegen.kernels"
C, R = "lucid.codegen", "lucid.runtime"

PASSES = [
    Mutant(
        "batch norm forgets its mean",
        f"{P}.fold_batch_norm:scale_and_shift",
        "sub(bias, mul(mean, scale))",
        "bias",
    ),
    Mutant(
        "batch norm folds into a convolution that pads",
        f"{P}.fold_batch_norm:into_next_weights",
        "if padded is not None:",
        "if False:",
    ),
    Mutant(
        "padding by any value counts as zeros",
        f"{P}.fold_pads:_pad",
        " or op.value not in values",
        "",
    ),
    Mutant(
        "reflections count as zeros",
        f"{P}.fold_pads:_pad",
        'op.mode != "constant" or ',
        "",
    ),
    Mutant(
        "the rim of a pool has the divisor of its middle",
        f"{P}.fold_scales:_depends_on_size",
        "if not op.count_include_pad and op.divisor is None:",
        "if False:",
    ),
    Mutant(
        "a softmax of two the other way round",
        f"{P}.fold_scales:_difference",
        "sub(first, second)",
        "sub(second, first)",
    ),
    Mutant(
        "a layer scale leaves the bias",
        f"{P}.fold_scales:factor_into_weights",
        "scaled = mul(recipe_of(bias), vector)",
        "scaled = recipe_of(bias)",
    ),
    Mutant(
        "a merged shortcut loses its bias",
        f"{P}.merge_shortcut:_bias",
        "return add(*recipes)",
        "return recipes[0]",
    ),
    Mutant(
        "a merged shortcut's weights change places",
        f"{P}.merge_shortcut:_merge",
        "(recipe_of(w) for w in weights))",
        "(recipe_of(w) for w in weights[::-1]))",
    ),
    Mutant(
        "a shuffle is undone instead of done",
        f"{P}.fold_shuffles:_picked",
        "return Picked(parts, order)",
        "return Picked(parts, np.argsort(order))",
    ),
    Mutant(
        "every part of a cut layer has the first rows",
        f"{P}.cut_layers:by_slices",
        "Slice(0, reader.op.start, reader.op.stop)",
        "Slice(0, 0, reader.op.stop - reader.op.start)",
    ),
    Mutant(
        "merged branches lose their biases",
        f"{P}.merge_branches:_shift",
        "return [bias.recipe if term.scale is None else mul(bias.recipe, term.scale)]",
        "return []",
    ),
    Mutant(
        "a smaller kernel lies in the corner of a larger one",
        f"{P}.merge_branches:_kernel",
        "Pad((0, 0, top, left), (0, 0, bottom, right))",
        "Pad((0, 0, 0, 0), (0, 0, top + bottom, left + right))",
    ),
    Mutant(
        "any product with a sigmoid is a swish",
        f"{P}.canonicalise:swish",
        "if same is x and",
        "if same.type == x.type and",
    ),
    Mutant(
        "a reduction keeps its axes when the image is turned",
        f"{P}.sink_permutes:past_reduction",
        "tuple(sorted(LAST[a] for a in op.axes))",
        "tuple(sorted(op.axes))",
    ),
    Mutant(
        "a product with one is what is left out, and one with zero",
        f"{P}.canonicalise:neutral_constant",
        "neutral = 0 if isinstance(node.op, (Add, Sub)) else 1",
        "neutral = 0.5 if isinstance(node.op, (Add, Sub)) else 1",
    ),
]

SCHEDULE_AND_PLAN = [
    Mutant(
        "Winograd takes strides",
        f"{C}.scheduling.schedule:legal_kernels",
        "(3, 3) and op.stride == (1, 1) and phased",
        "(3, 3) and phased",
    ),
    Mutant(
        "Winograd pads dilated windows by any number",
        f"{C}.scheduling.schedule:legal_kernels",
        " and phased",
        "",
    ),
    Mutant(
        "joined values overlap by a channel",
        f"{L}.placement:_starts",
        "starts.append(total)",
        "starts.append(max(0, total - 1))",
    ),
    Mutant(
        "lifetimes that touch do not overlap",
        f"{C}.program.plan:Lifetime.overlaps",
        "self.first <= other.last and other.first <= self.last",
        "self.first < other.last and other.first < self.last",
    ),
    Mutant(
        "a buffer dies when it has been written",
        f"{C}.program.plan:lifetimes",
        "Lifetime(known.first, number)",
        "Lifetime(known.first, known.first)",
    ),
    Mutant(
        "pads of the wrong side",
        f"{L}.arguments:window",
        '"pad_top": padding[0]',
        '"pad_top": padding[2]',
    ),
    Mutant(
        "one stride for both axes",
        f"{L}.arguments:window",
        '"stride_h": stride[0]',
        '"stride_h": stride[1]',
    ),
    Mutant(
        "biases are dropped",
        f"{L}.arguments:bias_of",
        "recipe = layer.bias.recipe if layer.bias is not None else None",
        "recipe = None",
    ),
    Mutant(
        "operands of a fused body change places",
        f"{L}.epilogue:to_body",
        "tuple(numbers[v] for v in node.inputs)",
        "tuple(numbers[v] for v in node.inputs[::-1])",
    ),
    Mutant(
        "the last images of a batch have no Winograd tiles",
        f"{L}.winograd:Tiling.of",
        "image_blocks * -(-n // block_images)",
        "image_blocks * max(1, n // block_images)",
    ),
    Mutant(
        "the last block of a product is left out",
        f"{L}.product:product",
        "split.blocks * split.chunks * groups,",
        "max(1, split.blocks * split.chunks * groups - 1),",
    ),
    Mutant(
        "a mean over one pixel more",
        f"{L}.attention:_mean_rows",
        "scale = 1.0 / (height * width)",
        "scale = 1.0 / (height * width + 1)",
    ),
    Mutant(
        "all images have the first one's gate",
        f"{L}.attention:_combine",
        '"gate_image": gate.strides[0]',
        '"gate_image": 0',
    ),
    Mutant(
        "padding never counts where windows hang over",
        f"{L}.pooling:divisor_kind",
        'return "padded" if op.count_include_pad else "inside"',
        'return "inside"',
    ),
    Mutant(
        "a pool divides by the square of one side",
        f"{L}.pooling:_divisor",
        "op.kernel[0] * op.kernel[1]",
        "op.kernel[0] ** 2",
    ),
    Mutant(
        "slices step by one",
        f"{L}.shapes:_slice",
        "(op.step if i == op.axis else 1)",
        "1",
    ),
    Mutant(
        "borders are zero",
        f"{L}.resample:_pad_map",
        '"value": op.value',
        '"value": 0.0',
    ),
    Mutant(
        "a mean in two phases is scaled once",
        f"{L}.reduction:_reduction",
        "scale = 1.0 / parts if isinstance(op, ops.Mean) else 1.0",
        "scale = 1.0",
    ),
    Mutant(
        "scratch for half of the padded map",
        f"{L}.direct:direct",
        "scratch=scratch_bytes(size * map_numbers, ",
        "scratch=scratch_bytes(size * map_numbers // 2, ",
    ),
]

VIEWS = [
    Mutant(
        "the innermost dimension is the one that repeats itself",
        f"{L}.strided:outermost_first",
        "-abs(strides[i]) if strides[i] else -math.inf",
        "-abs(strides[i])",
    ),
    Mutant(
        "dimensions are joined as the leader steps over them",
        f"{L}.strided:merged",
        "for s, t in zip(steps, strides, strict=True)):",
        "for s, t in [(steps[leader], strides[leader])]):",
    ),
    Mutant(
        "dimensions are joined whatever lies between them",
        f"{L}.strided:merged",
        "s[-1] == t[i] * shape[i]",
        "s[-1] >= t[i] * shape[i] > 0",
    ),
    Mutant(
        "a repeated dimension is as dense as any other",
        f"{L}.strided:merged",
        "s[-1] == t[i] * shape[i]",
        "s[-1] in (0, t[i] * shape[i])",
    ),
    Mutant(
        "a broadcast goes on in memory",
        f"{L}.strided:broadcast",
        "0 if s == 1 else t",
        "t",
    ),
    Mutant(
        "indices that go down go up",
        f"{L}.resample:_even",
        "return (int(numbers[0]), step) if step > 0 else None",
        "return (int(numbers.min()), abs(step)) if step else None",
    ),
    Mutant(
        "evenly spaced indices begin at the first",
        f"{L}.resample:_take",
        "x.offset + first * x.strides[axis]",
        "x.offset",
    ),
    Mutant(
        "rows are as far apart as their innermost dimension says",
        f"{L}.context:row_stride",
        "elif between != rows * stride:",
        "elif False:",
    ),
    Mutant(
        "rows of features need not be contiguous",
        f"{L}.context:row_stride",
        "if features > 1 and step != 1:",
        "if False:",
    ),
    Mutant(
        "rows are counted from the wrong axis",
        f"{L}.context:row_stride",
        "rows *= size",
        "rows *= features",
    ),
    Mutant(
        "a reshape takes dimensions together that lie apart",
        f"{L}.shapes:reshaped",
        "elif at != step * covered:",
        "elif at < step * covered:",
    ),
    Mutant(
        "a permuted view lies as before",
        f"{L}.shapes:_permute",
        "source.strides[a] for a in op.axes",
        "source.strides[a] for a in sorted(op.axes)",
    ),
    Mutant(
        "a slice begins where the whole does",
        f"{L}.shapes:_slice",
        "(first[0] if len(first) else 0)",
        "0",
    ),
    Mutant(
        "pixels always have their channels side by side",
        f"{L}.maps:pixels",
        "view.strides[1] == 1 else",
        "view.strides[1] >= 1 else",
    ),
    Mutant(
        "an image's pixels are evenly spaced",
        f"{L}.normalisation:_by_moments",
        "len(along.sizes) > 1 or ",
        "",
    ),
    Mutant(
        "softmax looks where it writes alone",
        f"{L}.reduction:softmax",
        "x.strides[axis] == out.strides[axis] == 1 or",
        "out.strides[axis] == 1 or",
    ),
    Mutant(
        "a matrix that repeats its columns has them side by side",
        f"{L}.matmul:_side_by_side",
        "column == 1 or columns == 1",
        "column in (0, 1) or columns == 1",
    ),
    Mutant(
        "a norm over the batch is one of each image",
        f"{P}.recognise_layers:into_norm",
        "if any(isinstance(x.type.shape[a], Dim) for a in axes):",
        "if False:",
    ),
    Mutant(
        "a norm that is recognised has the usual epsilon",
        f"{P}.recognise_layers:into_norm",
        "RmsNorm(axes, eps) if centred is None else LayerNorm(axes, eps)",
        "RmsNorm(axes) if centred is None else LayerNorm(axes)",
    ),
    Mutant(
        "a local response norm adds to one",
        f"{L}.normalisation:_local_response",
        '"offset": op.k',
        '"offset": 1.0',
    ),
]

PACKING = [
    Mutant(
        "weights of the group before",
        f"{C}.kernels.packing:Panels.pack",
        "steps[group, first:last]",
        "steps[group - 1, first:last]",
    ),
    Mutant(
        "whole panels lack their last column",
        f"{C}.kernels.packing:each_panel",
        "min(first + width, columns)",
        "min(first + width - 1, columns)",
    ),
    Mutant(
        "biases of groups in the wrong order",
        f"{C}.kernels.packing:Channels.pack",
        "rows = array.reshape(self.groups, -1)",
        "rows = array.reshape(self.groups, -1)[::-1]",
    ),
    Mutant(
        "depthwise kernels are flipped",
        f"{C}.kernels.packing:Taps.pack",
        "steps = array.reshape(channels, group, -1)",
        "steps = array.reshape(channels, group, -1)[..., ::-1]",
    ),
    Mutant(
        "Winograd's filters are transposed",
        f"{C}.kernels.packing:WinogradPanels.pack",
        "filters = array.reshape(self.groups, columns, inner, 3, 3)",
        "filters = array.reshape(self.groups, columns, inner, 3, 3).swapaxes(3, 4)",
    ),
    Mutant(
        "negative indices are zero",
        f"{C}.kernels.packing:Indices.pack",
        "np.where(flat < 0, flat + self.size, flat)",
        "np.maximum(flat, 0)",
    ),
]

KERNELS = [
    Mutant(
        "a tail mask that is one short",
        f"{C}.language.builder:Kernel.first_lanes",
        "bounded = count.minimum(width).maximum(0)",
        "bounded = (count - 1).minimum(width).maximum(0)",
        EVERY,
    ),
    Mutant(
        "a short tile goes one row too far",
        f"{C}.kernels.microkernels:_TileEmitter._row",
        "(self.rows - 1).minimum(r)",
        "self.rows.minimum(r)",
        ("tile", "window_tile"),
    ),
    Mutant(
        "only the last chain of a sum counts",
        f"{C}.kernels.accumulation:total",
        "k.load(sums + i * k.vector, align=align) + v",
        "v",
        TILES,
    ),
    Mutant(
        "chains do not begin at zero",
        f"{C}.kernels.accumulation:put_by",
        "return [k.zero() for _ in tile]",
        "return tile",
        TILES,
    ),
    Mutant(
        "Winograd reads a line below the map",
        f"{K}.winograd:WinogradEmitter._fill_patch",
        "y < height,",
        "y < height + 1,",
        ("winograd",),
    ),
    Mutant(
        "Winograd's interior is a column too wide",
        f"{K}.winograd:WinogradEmitter._rows",
        "left + self.a <= width",
        "left + self.a <= width + 1",
        ("winograd",),
    ),
    Mutant(
        "two points of an output transform change places",
        f"{C}.kernels.winograd_transforms:_output4",
        "blend(s1, A**2, s2, B**2)",
        "blend(s1, B**2, s2, A**2)",
        ("winograd",),
    ),
    Mutant(
        "a direct convolution reads a line below the map",
        f"{K}.direct:DirectEmitter._copy",
        "line < f.height",
        "line < f.height + 1",
        ("direct",),
    ),
    Mutant(
        "depthwise windows lack their last tap",
        f"{K}.depthwise:inside",
        "last = (limit - start).maximum(0)",
        "last = (limit - start - 1).maximum(0)",
        ("depthwise", "expand_depthwise"),
    ),
    Mutant(
        "splits change places",
        f"{K}.loaders:Combine.row",
        "k.fma(gate, parts[0] - parts[1], parts[1])",
        "k.fma(gate, parts[1] - parts[0], parts[0])",
        PRODUCTS,
    ),
    Mutant(
        "only the first part of the sums is read",
        f"{K}.loaders:Sums.row",
        "k.loop(0, f.parts, ",
        "k.loop(0, 1, ",
        PRODUCTS,
    ),
    Mutant(
        "an epilogue's operand at the first column",
        f"{K}.product:set_extras",
        "row * stride + column",
        "row * stride",
        ("product", "direct"),
    ),
    Mutant(
        "all groups read the first one's channels",
        f"{K}.product:_ProductEmitter._rows",
        "(start * f.x_row + group * f.depth)",
        "(start * f.x_row)",
        ("product",),
    ),
    Mutant(
        "the last rows of a turned square are overwritten",
        f"{K}.transpose:Transpose._strip",
        "for i in reversed(range(k.vector)):",
        "for i in range(k.vector):",
        ("transpose",),
    ),
    Mutant(
        "a sum's tail is not masked",
        f"{K}.reduction:fold",
        "return step(ended, rest, k.first_lanes(length - rest))",
        "return step(ended, rest, None)",
        ("reduce", "softmax", "row_norm", "moments"),
    ),
    Mutant(
        "a contiguous mean is a sum",
        f"{K}.reduction:_Along.row",
        "self.scaling(1)(across(k, total, self.combine))",
        "across(k, total, self.combine)",
        ("reduce",),
    ),
    Mutant(
        "softmax without its maximum",
        f"{K}.reduction:_SoftmaxAlong.row",
        "k.load(x + index, mask=mask) - largest",
        "k.load(x + index, mask=mask)",
        ("softmax",),
    ),
    Mutant(
        "softmax across vectors without its maximum",
        f"{K}.reduction:_SoftmaxApart._lanes",
        'read("x", loop.index) - largest',
        'read("x", loop.index)',
        ("softmax",),
    ),
    Mutant(
        "the last of equal maxima",
        f"{K}.reduction:_Places._better",
        '"<" if self.spec.last else "<="',
        '"<"',
        ("arg_max",),
    ),
    Mutant(
        "a NaN is lost among larger numbers",
        f"{C}.language.vector_math:maximum",
        'else k.pick(a.compare("ord", a), larger, a)',
        "else larger",
        EVERY,
    ),
    Mutant(
        "a maximum is never negative",
        f"{K}.pooling:_PoolEmitter._none",
        '"max" if self.largest else "sum"',
        '"sum"',
        ("pool",),
    ),
    Mutant(
        "all images have the first one's moments",
        f"{K}.normalisation:GroupNormalise.emit",
        "f.moments + image * f.parts * f.groups * 3",
        "f.moments",
        ("group_normalise",),
    ),
    Mutant(
        "a norm without epsilon",
        f"{K}.normalisation:_factor",
        "at_least(k, variance, 0.0) + eps",
        "at_least(k, variance, 0.0)",
        ("row_norm", "group_normalise"),
    ),
    Mutant(
        "the last panel of a product of two values is written whole",
        f"{K}.matmul:_MatMulEmitter._panel",
        "columns = (f.columns - column).minimum(vectors * k.vector)",
        "columns = vectors * k.vector",
        ("matmul",),
    ),
    Mutant(
        "a resize takes each share for the other's",
        f"{K}.resample:_ResizeEmitter._samples",
        "(1.0 - share_of_second, share_of_second)",
        "(share_of_second, 1.0 - share_of_second)",
        ("resize",),
    ),
    Mutant(
        "a hard sigmoid that ends too low",
        f"{C}.language.vector_math:_hardsigmoid",
        "(1 / 6)",
        "(1 / 6.01)",
        EVERY,
    ),
    Mutant(
        "the two forms of GELU change places",
        f"{C}.language.vector_math:_gelu",
        'op.approximate == "tanh"',
        'op.approximate != "tanh"',
        EVERY,
    ),
    Mutant(
        "PReLU bends the wrong half",
        f"{C}.language.vector_math:_prelu",
        'x[0].compare(">", 0.0)',
        'x[0].compare("<", 0.0)',
        EVERY,
    ),
]

INTEGERS = [
    Mutant(
        "unsigned integers are compared as signed ones",
        f"{C}.language.values:Integers.compare",
        "self.builder.icmp_signed if self.signed else self.builder.icmp_unsigned",
        "self.builder.icmp_signed",
        EVERY,
    ),
    Mutant(
        "unsigned integers become larger ones with a sign",
        f"{C}.language.elements:_resized",
        "k.builder.sext if value.signed else k.builder.zext",
        "k.builder.sext",
        EVERY,
    ),
    Mutant(
        "a quotient by minus one is that by one",
        f"{C}.language.integer_math:quotient",
        'k.pick(b.compare("==", -1), -a, result)',
        "result",
        EVERY,
    ),
    Mutant(
        "shifts wrap around",
        f"{C}.language.integer_math:_shift_left",
        'k.pick(inside, bits(k, "shl", x[0], count), x[0].like(0))',
        'bits(k, "shl", x[0], count)',
        EVERY,
    ),
    Mutant(
        "the least of integers is zero",
        f"{K}.reduction:least",
        "int(np.iinfo(dtype(name).storage).min)",
        "0",
        ("reduce", "arg_max"),
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

QUANTISED = [
    Mutant(
        "sums of Winograd on integers are shifted by one less",
        f"{K}.winograd_transforms:shift",
        "bit_length() - 1",
        "bit_length() - 2",
        ("integer_winograd",),
    ),
    Mutant(
        "Winograd on integers keeps the zero points",
        f"{K}.integer_winograd:_Emitter._both_ways",
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
        "the last channels of Winograd on integers begin too late",
        f"{K}.integer_winograd:_Emitter._transform",
        "last = (channels - self.lanes).maximum(0)",
        "last = channels",
        ("integer_winograd",),
    ),
    Mutant(
        "an odd channel of Winograd on integers has its neighbour's weights",
        f"{K}.packing:WinogradPairPanels.pack",
        "every_other = points[:, half::2]",
        "every_other = points[:, ::2]",
    ),
    Mutant(
        "depthwise integers forget the zero point",
        f"{L}.depthwise:_kernel",
        "layer.zero_point != 0",
        "layer.zero_point > 99",
    ),
    Mutant(
        "depthwise integers pair their last line with the first column",
        f"{K}.packing:TapPairs.pack",
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

RUNTIME = [
    Mutant(
        "the first barrier is missing",
        f"{R}.binding:BoundProgram._barriers",
        "if p][1:]}",
        "if p][2:]}",
    ),
    Mutant(
        "no barriers at all",
        f"{R}.binding:BoundProgram._barriers",
        "if p][1:]}",
        "if p][:0]}",
    ),
    Mutant(
        "the last counter is not reset",
        f"{R}.binding:Workspace.prepare",
        "self._counters[:, : bound.count] = 0",
        "self._counters[:, : bound.count - 1] = 0",
    ),
    Mutant(
        "denormals are numbers",
        f"{K}.driver:_DriverEmitter._flush_to_zero",
        "ir.Constant(I32, FLUSH_TO_ZERO_X86)",
        "ir.Constant(I32, 0)",
        ("driver",),
    ),
    Mutant(
        "a thread's last task is left out",
        f"{K}.driver:_DriverEmitter._step",
        "last = (first + portion).minimum(end)",
        "last = (first + portion).minimum(end - k.select(threads > 1, 1, 0))",
        ("driver",),
    ),
    Mutant(
        "tasks that threads cannot share evenly are left out",
        f"{K}.driver:_DriverEmitter._step",
        "tasks * (owner + 1) // threads",
        "tasks // threads * (owner + 1)",
        ("driver",),
    ),
    Mutant(
        "a dilated window's phases are counted by the other axis",
        f"{K}.winograd:WinogradEmitter._place",
        "phase // f.dilation_w, phase % f.dilation_w",
        "phase // f.dilation_h, phase % f.dilation_h",
        ("winograd",),
    ),
    Mutant(
        "every phase of a dilated window is as large as the first",
        f"{K}.winograd:WinogradEmitter._phase_size",
        "(width - place.left)",
        "width",
        ("winograd",),
    ),
    Mutant(
        "an unrolled segment takes its second step twice",
        f"{C}.kernels.accumulation:accumulate_short",
        "k.int(number)",
        "k.int(max(number, 1))",
        TILES,
    ),
    Mutant(
        "threads share their scratch",
        f"{K}.driver:_DriverEmitter.run",
        ".bytes(thread * stride)",
        ".bytes(thread * 0)",
        ("driver",),
    ),
    Mutant(
        "packed weights are told apart by what is packed alone",
        f"{R}.weights:WeightStore.address",
        "return self._addresses[packed]",
        "return next(a for p, a in self._addresses.items() if p.recipe == packed.recipe)",
    ),
    Mutant(
        "kernels with other constants share code",
        f"{C}.kernels.body:Body.__str__",
        'options = "{" + ", ".join(fields) + "}" if fields else ""',
        'options = ""',
        EVERY,
    ),
    Mutant(
        "the cache forgets the target",
        f"{R}.cache:key_text",
        "repr(target), ",
        "",
        EVERY,
    ),
    Mutant(
        "new weights are packed and not used",
        f"{R}.plans:Plan.rebound",
        "BoundProgram(s.bound.program, s.bound.code, weights)",
        "BoundProgram(s.bound.program, s.bound.code, self.weights)",
    ),
    Mutant(
        "a batch's slices are written to the beginning",
        f"{R}.slices:rows_of",
        "array[rows.start * first.coefficient : rows.stop * first.coefficient]",
        "array[: (rows.stop - rows.start) * first.coefficient]",
    ),
]

MUTANTS = [
    *PASSES,
    *SCHEDULE_AND_PLAN,
    *VIEWS,
    *PACKING,
    *KERNELS,
    *INTEGERS,
    *QUANTISED,
    *QUANTISED_MAPS,
    *RUNTIME,
]
