"""recognise-layers: group norms that are written as instance norms of reshaped images."""

from pass_checks import after

from lucid.ir.ops import GroupNorm

PASS = "recognise-layers"
X = "f32[N,6,4,5]"
NORM = f"""
param @one: f32[2]
param @none: f32[2]
%r = reshape(%x) {{shape=(N,2,60)}} : f32[N,2,60]
%g = group_norm(%r, @one, @none) {{groups=2, eps=0.001}} : f32[N,2,60]
%n = reshape(%g) {{shape=(N,6,4,5)}} : {X}
"""


def graph(text: str, returns: str = "%n") -> str:
    return f"graph g(%x: {X}) -> {X} {{\n{text}\nreturn {returns}\n}}"


def norms(text: str, returns: str, ops: list[str]) -> GroupNorm:
    (node,) = after(PASS, graph(text, returns), ops).find(GroupNorm)
    assert isinstance(node.op, GroupNorm)
    return node.op


def test_reshaped_instance_norms():
    op = norms(NORM, "%n", ["group_norm"])
    assert (op.groups, op.eps) == (2, 0.001)


def test_weights():
    text = f"""
    param @w: f32[6,1,1]
    param @b: f32[1,6,1,1]
    {NORM}
    %w = mul(%n, @w) : {X}
    %b = add(%w, @b) : {X}
    """
    norms(text, "%b", ["group_norm"])


def test_weights_that_lie_otherwise():
    text = f"param @w: f32[6,4,1]\n{NORM}%w = mul(%n, @w) : {X}"
    norms(text, "%w", ["group_norm", "mul"])


def test_near_misses():
    other = NORM.replace("{groups=2, ", "{groups=1, ")
    norms(other, "%n", ["reshape", "group_norm", "reshape"])
    elsewhere = NORM.replace("shape=(N,6,4,5)", "shape=(N,4,5,6)").replace(
        f"%n = reshape(%g) {{shape=(N,4,5,6)}} : {X}",
        "%t = reshape(%g) {shape=(N,4,5,6)} : f32[N,4,5,6]\n"
        f"%n = permute(%t) {{axes=(0,3,1,2)}} : {X}",
    )
    norms(elsewhere, "%n", ["reshape", "group_norm", "reshape", "permute"])
    uneven = NORM.replace("f32[2]", "f32[4]").replace("[N,2,60]", "[N,4,30]")
    uneven = uneven.replace("(N,2,60)", "(N,4,30)").replace("groups=2", "groups=4")
    norms(uneven, "%n", ["reshape", "group_norm", "reshape"])
