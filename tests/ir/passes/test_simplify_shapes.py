"""simplify-shapes: the direct way for pools, slices and concatenations."""

import pytest
from pass_checks import after, missed

PASS = "simplify-shapes"
X = "f32[N,4,6,6]"


def graph(lines: str, results: str = X, returns: str = "%y", inputs: str = f"%x: {X}") -> str:
    return f"graph g({inputs}) -> {results} {{\n{lines}\nreturn {returns}\n}}"


@pytest.mark.parametrize(
    ("size", "kind", "op"),
    [
        ("1,1", "adaptive_avg_pool2d", "mean"),
        ("1,1", "adaptive_max_pool2d", "max"),
        ("3,2", "adaptive_avg_pool2d", "avg_pool2d"),
        ("2,6", "adaptive_max_pool2d", "max_pool2d"),
    ],
)
def test_adaptive_pools(size, kind, op):
    out = f"f32[N,4,{size}]"
    after(PASS, graph(f"%y = {kind}(%x) {{size=({size})}} : {out}", out), [op])


def test_an_adaptive_pool_to_the_size_of_the_image():
    after(PASS, graph(f"%y = adaptive_avg_pool2d(%x) {{size=(6,6)}} : {X}"), [])


def test_windows_that_differ():
    out = "f32[N,4,4,6]"
    text = graph(f"%y = adaptive_avg_pool2d(%x) {{size=(4,6)}} : {out}", out)
    assert missed(PASS, text) == ["(4, 6) does not divide the image of 6x6"]


@pytest.mark.parametrize(
    ("more", "ops"),
    [
        ("", []),
        (", scale=(1.0,1.0)", []),
        (", scale=(1.5,1.0)", ["resize"]),
        (', coordinates="align_corners", scale=(1.5,1.0)', []),
    ],
)
def test_a_resize_to_the_same_size(more, ops):
    after(PASS, graph(f"%y = resize(%x) {{size=(6,6){more}}} : {X}"), ops)


def test_padding_by_nothing():
    after(PASS, graph(f"%y = pad(%x) {{before=(0,0,0,0), after=(0,0,0,0)}} : {X}"), [])


def cut(of: str, to: str, start: int, stop: int, step: int = 1, axis: int = 1) -> str:
    size = -(-(stop - start) // step)
    kind = f"f32[N,{size},6,6]" if axis == 1 else f"f32[N,4,{size},6]"
    return (
        f"%{to} = slice(%{of}) {{axis={axis}, start={start}, stop={stop}, step={step}}} : {kind}\n"
    )


def test_slices_of_slices():
    text = cut("x", "a", 1, 6, 2, axis=2).replace("f32[N,4", "f32[N,4")
    again = "%y = slice(%a) {axis=2, start=1, stop=3} : f32[N,4,2,6]"
    result = after(PASS, graph(text + again, "f32[N,4,2,6]"), ["slice"])
    assert (result.nodes[0].op.start, result.nodes[0].op.step) == (3, 2)


BOTH = "%c = concat(%x, %z, %x) {axis=1} : f32[N,12,6,6]\n"
TWO = f"%x: {X}, %z: {X}"


@pytest.mark.parametrize(
    ("start", "stop", "step", "ops"),
    [
        (4, 8, 1, []),
        (5, 8, 1, ["slice"]),
        (8, 12, 2, ["slice"]),
        (4, 12, 1, ["concat"]),
        (2, 6, 1, ["concat", "slice"]),
        (0, 12, 3, ["concat", "slice"]),
    ],
)
def test_slices_of_concatenations(start, stop, step, ops):
    text = BOTH + cut("c", "y", start, stop, step)
    kind = text.rsplit(" : ", 1)[1].strip()
    after([PASS, "canonicalise"], graph(text, kind, inputs=TWO), ops)


def test_a_cut_through_parts_is_told():
    text = BOTH + cut("c", "y", 2, 6)
    assert missed(PASS, graph(text, inputs=TWO)) == [
        "2:6 cuts through the parts of the concatenation"
    ]


def test_concatenations_of_concatenations():
    line = "%y = concat(%x, %c) {axis=1} : f32[N,16,6,6]"
    after(PASS, graph(BOTH + line, "f32[N,16,6,6]", inputs=TWO), ["concat"])
    both = graph(BOTH + line, "f32[N,16,6,6], f32[N,12,6,6]", "%y, %c", inputs=TWO)
    after(PASS, both, ["concat", "concat"])


def test_slices_put_together_again():
    parts = cut("x", "a", 0, 1) + cut("x", "b", 1, 3) + cut("x", "c", 3, 4)
    line = f"%y = concat(%a, %b, %c) {{axis=1}} : {X}"
    after(PASS, graph(parts + line), [])
    turned = f"%y = concat(%c, %a, %b) {{axis=1}} : {X}"
    after(PASS, graph(parts + turned), ["slice", "slice", "concat"])


def test_expanded_operands_of_where():
    text = f"""%e = expand(%c) {{shape=(N,4,6,6)}} : {X}
    %y = where(%e, %x, %x) : {X}"""
    after(PASS, graph(text, inputs=f"%x: {X}, %c: f32[N,4,1,1]"), ["where"])
    alone = f"""%e = expand(%c) {{shape=(N,4,6,6)}} : {X}
    %y = where(%e, %c, %c) : {X}"""
    after(PASS, graph(alone, inputs="%c: f32[N,4,1,1]"), ["expand", "where"])


def test_stacked_values():
    """The three of a selective kernel, as (N, 3, C, H, W)."""
    one = "f32[N,1,4,6,6]"
    text = graph(
        f"""%a = reshape(%x) {{shape=(N,1,4,6,6)}} : {one}
        %b = reshape(%z) {{shape=(N,1,4,6,6)}} : {one}
        %y = concat(%a, %b, %a) {{axis=1}} : f32[N,3,4,6,6]""",
        "f32[N,3,4,6,6]",
        inputs=TWO,
    )
    after(PASS, text, ["concat", "reshape"])
    last = graph(
        """%a = reshape(%x) {shape=(N,4,6,6,1)} : f32[N,4,6,6,1]
        %y = concat(%a, %a) {axis=4} : f32[N,4,6,6,2]""",
        "f32[N,4,6,6,2]",
    )
    after(PASS, last, ["reshape", "concat"])


def test_what_is_the_same_for_all_images():
    """Positions: computed once, as a parameter, and only added for each image."""
    text = graph(
        """param @w: f32[5,6]
        param @v: f32[4,5,1,1]
        %k = constant() {value=2.0} : f32[]
        %e = expand(%k) {shape=(N,6,6)} : f32[N,6,6]
        %s = sin(%e) : f32[N,6,6]
        %l = linear(%s, @w) : f32[N,6,5]
        %r = reshape(%l) {shape=(N,6,5,1)} : f32[N,6,5,1]
        %p = permute(%r) {axes=(0,2,1,3)} : f32[N,5,6,1]
        %c = conv2d(%p, @v) : f32[N,4,6,1]
        %y = add(%x, %c) : f32[N,4,6,6]"""
    )
    (add,) = after([PASS, "canonicalise"], text, ["add"]).nodes
    assert add.inputs[1].type.shape == (1, 4, 6, 1)


def test_what_differs_from_image_to_image():
    text = graph(
        """%e = expand(%z) {shape=(N,4,6,6)} : f32[N,4,6,6]
        %y = neg(%e) : f32[N,4,6,6]""",
        inputs="%z: f32[N,4,1,1]",
    )
    after(PASS, text, ["expand", "neg"])


SEQUENCE = "f32[N,5,12]"


@pytest.mark.parametrize(
    ("split", "axes", "turned", "whole", "ops"),
    [
        ("N,5,2,6", "1,0,2,3", "5,N,2,6", "5,N,12", ["permute"]),
        ("N,5,2,6", "0,2,3,1", "N,2,6,5", "N,12,5", ["permute"]),
        ("N,5,2,6", "0,1,3,2", "N,5,6,2", "N,5,12", ["reshape", "permute", "reshape"]),
        ("N,5,2,6", "0,2,1,3", "N,2,5,6", "N,10,6", ["reshape", "permute", "reshape"]),
    ],
)
def test_axes_put_together_again(split, axes, turned, whole, ops):
    lines = (
        f"%s = reshape(%x) {{shape=({split})}} : f32[{split}]",
        f"%t = permute(%s) {{axes=({axes})}} : f32[{turned}]",
        f"%y = reshape(%t) {{shape=({whole})}} : f32[{whole}]",
    )
    after(PASS, graph("\n".join(lines), f"f32[{whole}]", inputs=f"%x: {SEQUENCE}"), ops)


def test_a_number_that_is_moved():
    """As the states that a recurrent layer begins with."""
    lines = (
        "%c = constant() {value=0.5} : f32[]",
        "%e = expand(%c) {shape=(4,N,6)} : f32[4,N,6]",
        "%s = slice(%e) {axis=0, start=0, stop=2} : f32[2,N,6]",
        "%y = permute(%s) {axes=(1,0,2)} : f32[N,2,6]",
    )
    y = "f32[N,2,6]"
    after(PASS, graph("\n".join(lines), y, inputs=f"%x: {X}"), ["constant", "expand"])
