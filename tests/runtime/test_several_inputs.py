"""Graphs with several inputs: called by position and by name, and what is refused of them."""

import pickle

import numpy as np
import pytest

import lucid
from lucid.errors import InputError
from lucid.ir.interpret import interpret
from lucid.ir.text import parse_graph
from lucid.runtime.planner import MAX_BATCH

TEXT = """graph scaled(%image: f32[N,3,8,8], %scale: u8[N,3]) -> f32[N,5,8,8], f32[N,3,8,8] {
  param @w: f32[5,3,3,3]
  %cast = cast(%scale) : f32[N,3]
  %reshape = reshape(%cast) {shape=(N,3,1,1)} : f32[N,3,1,1]
  %mul = mul(%image, %reshape) : f32[N,3,8,8]
  %conv = conv2d(%mul, @w) {padding=(1,1,1,1)} : f32[N,5,8,8]
  return %conv, %mul
}
"""
SUM = """graph sum(%a: f32[N,4], %b: f32[N,4]) -> f32[N,4] {
  %z = sub(%a, %b) : f32[N,4]
  return %z
}
"""
BATCH = 2 * MAX_BATCH + 3


def scaled():
    graph = parse_graph(TEXT)
    generator = np.random.default_rng(0)
    graph.payload = {"w": generator.standard_normal((5, 3, 3, 3)).astype(np.float32)}
    return graph


@pytest.fixture(scope="module")
def fast():
    return lucid.compile(scaled(), threads=1)


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(1)
    image = generator.standard_normal((BATCH, 3, 8, 8)).astype(np.float32)
    return image, generator.integers(0, 256, (BATCH, 3)).astype(np.uint8)


def assert_same(results, wanted):
    assert isinstance(results, tuple)
    for result, expected in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(result, expected)


def test_inputs_by_position_and_by_name(fast, arrays):
    image, scale = arrays
    assert str(fast).startswith(
        "<CompiledModel scaled: image: float32[N,3,8,8], scale: uint8[N,3] -> "
    )
    assert fast.input_shapes == ((1, 3, 8, 8), (1, 3))
    wanted = fast(image, scale)
    for result, exact in zip(wanted, interpret(scaled(), arrays, dtype=np.float64), strict=True):
        np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    assert_same(fast(image, scale=scale), wanted)
    assert_same(fast(scale=scale, image=image), wanted)
    assert_same(fast(image[:0], scale[:0]), [y[:0] for y in wanted])


def test_the_same_bits_for_any_threads_and_parts_of_a_batch(fast, arrays):
    wanted = fast(*arrays)
    assert_same(lucid.compile(scaled(), threads=2)(*arrays), wanted)
    parts = [fast(*(a[i : i + 5] for a in arrays)) for i in range(0, BATCH, 5)]
    assert_same(tuple(map(np.concatenate, zip(*parts, strict=True))), wanted)


def test_kept_and_loaded(fast, arrays, tmp_path):
    wanted = fast(*arrays)
    fast.save(tmp_path / "m.lucid", weights="both")
    loaded = lucid.load(tmp_path / "m.lucid", 1)
    assert (loaded.input_shapes, loaded.inputs) == (fast.input_shapes, fast.inputs)
    assert_same(loaded(*arrays), wanted)
    assert_same(pickle.loads(pickle.dumps(fast))(*arrays), wanted)
    assert_same(lucid.compile(tmp_path / "m.lucid", threads=1)(*arrays), wanted)
    doubled = {"w": 2 * scaled().payload["w"]}
    assert_same(loaded.load_weights(doubled)(*arrays), (2 * wanted[0], wanted[1]))
    with pytest.raises(InputError, match=r"for inputs of 3x8x8, 3, not for 3x8x9, 3"):
        loaded.prepare([(1, 3, 8, 9), (1, 3)])


def test_shapes_are_one_for_each_input(arrays):
    compiled = lucid.compile(scaled(), [(2, 3, 8, 8), (2, 3)], threads=1)
    assert compiled.input_shapes == ((2, 3, 8, 8), (2, 3))
    assert compiled.prepare(compiled.input_shapes).batch == 2
    for shape in ((1, 3, 8, 8), [(1, 3, 8, 8)], [(1, 3, 8, 8)] * 3):
        with pytest.raises(InputError, match=r"^scaled takes 2 inputs \(image, scale\), got"):
            compiled.prepare(shape)
    with pytest.raises(InputError, match=r"one batch, got 1 of image, 2 of scale$"):
        compiled.prepare([(1, 3, 8, 8), (2, 3)])
    with pytest.raises(InputError, match=r"whose input scale has one size: u8\[N,3\]$"):
        compiled.prepare([(1, 3, 8, 8), (1, 4)])
    with pytest.raises(InputError, match=r"`input_shapes`$"):
        assert compiled.input_shape


def test_what_does_not_fit_is_named(fast, arrays):
    image, scale = arrays
    takes = r"^scaled takes 2 inputs \(image, scale\), got "
    for given, named, message in [
        ((), {}, takes + "0 by position$"),
        ((image,), {}, takes + "1 by position$"),
        ((image, scale, scale), {}, takes + r"3 by position; .* out=$"),
        ((image,), {"image": image}, takes + "1 by position and image by name$"),
        ((image,), {"scales": scale}, takes + "1 by position and scales by name$"),
        ((), {"scale": scale}, takes + "scale by name$"),
        ((image, scale[:3]), {}, rf"one batch, got {BATCH} of image, 3 of scale$"),
        ((image, image), {}, r"^scale wants u8\[N,3\] \(uint8, 2 dimensions\), got float32"),
        ((image, 3), {}, r"^scale wants u8\[N,3\] .*, got int"),
        ((image[0], scale), {}, r"^image wants .* got float32\[3,8,8\]: the batch is missing"),
        ((image, scale[:, :2]), {}, rf"scale wants .* got uint8\[{BATCH},2\]: .* input scale has"),
        ((image.transpose(0, 2, 3, 1), scale), {}, r"^image wants .* x.transpose\(0, 3, 1, 2\)"),
    ]:
        with pytest.raises(InputError, match=message):
            fast(*given, **named)
    with pytest.raises(InputError, match=r"^x wants .* got float64"):
        lucid.compile(lucid.nn.ReLU())(np.zeros((1, 4)))
    with pytest.raises(InputError, match=r"give them by position$"):
        lucid.compile(lucid.nn.ReLU())(x=np.zeros((1, 4), np.float32))


def test_a_result_over_any_of_the_inputs():
    compiled = lucid.compile(parse_graph(SUM), threads=1)
    generator = np.random.default_rng(2)
    for which in (0, 1):
        pair = [generator.standard_normal((BATCH, 4)).astype(np.float32) for _ in "ab"]
        wanted = pair[0] - pair[1]
        assert compiled(*pair, out=pair[which]) is pair[which]
        np.testing.assert_array_equal(pair[which], wanted)


def test_a_profile_takes_all_inputs(fast, arrays):
    image, scale = arrays
    for given in (arrays, list(arrays), {"scale": scale, "image": image}):
        profile = fast.profile(given, runs=1)
        assert profile.inputs == {"image": (MAX_BATCH, 3, 8, 8), "scale": (MAX_BATCH, 3)}
    with pytest.raises(InputError, match="takes 2 inputs"):
        fast.profile(image)
