"""Damaged artifacts: every truncation and every bit that flips is told, or changes nothing."""

import hashlib
import io
import json
import os
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_process import run_python

import lucid
from lucid import nn
from lucid.artifact import container
from lucid.artifact.container import (
    ALIGNMENT,
    CHUNK,
    HEADER,
    Container,
    Writer,
    checksum,
    replacing,
)
from lucid.artifact.contents import Artifact
from lucid.artifact.tensors import Tensors, write_tensors
from lucid.errors import LucidError, ModelFileError, WeightsError

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small artifact, and its model's answer."""
    path = tmp_path_factory.mktemp("saved") / "m.lucid"
    compiled = lucid.compile(small(), (1, 3, 8, 8), threads=1).save(path, weights="both")
    return path.read_bytes(), compiled(X), path.with_name("damaged.lucid")


def sections(data):
    return Container(data, "it").sections


def table_of(data):
    *_, offset, size, _ = HEADER.unpack(data[: HEADER.size])
    return offset, size


def whole(data):
    """Every section, read and so checked."""
    container = Container(data, "it")
    return {name: bytes(container.read(name)) for name in container.sections}


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def outcome(path, data):
    """The answer of the damaged file's model; None where it is refused, by an error of Lucid's."""
    path.write_bytes(data)
    return answered(path)


def answered(path):
    """What the model in a file answers; None where it is refused, by an error that names it."""
    try:
        return lucid.load(path, 1, cache=False)(X)
    except LucidError as error:
        told = str(error)
    assert str(path) in told
    return None


def test_truncations(saved):
    data, _, path = saved
    borders = [b for s in sections(data).values() for b in (s.offset, s.offset + s.size)]
    lengths = {0, 1, 7, 8, HEADER.size, HEADER.size + 32, ALIGNMENT, len(data) - 1}
    lengths |= {border + by for border in borders for by in (-1, 0, 1)}
    lengths |= set(range(0, len(data), max(1, len(data) // 200)))
    lengths.discard(len(data))
    for length in sorted(lengths):
        with pytest.raises(ModelFileError, match=r"truncated|not a compiled model"):
            Container(data[:length], "it")
    for length in (0, 5, 100, ALIGNMENT, borders[3], len(data) - 1):
        assert outcome(path, data[:length]) is None


def test_what_follows_is_told(saved):
    data, _, path = saved
    assert outcome(path, data + b"\0") is None


def test_every_bit_of_header_and_table(saved):
    data, *_ = saved
    expected = whole(data)
    offset, size = table_of(data)
    protected = [*range(HEADER.size + 32), *range(offset, offset + size)]
    for byte in protected:
        for bit in range(8) if byte < HEADER.size else (byte % 8,):
            with pytest.raises(ModelFileError):
                Container(flipped(data, 8 * byte + bit), "it")
    assert whole(flipped(data, 8 * (HEADER.size + 32))) == expected  # nobody reads it


@given(place=st.floats(0, 1, exclude_max=True))
def test_bits(saved, place):
    """What of a damaged file can be read is as it was."""
    data, *_ = saved
    with suppress(ModelFileError):
        assert whole(flipped(data, int(place * 8 * len(data)))) == whole(data)


@given(st.data())
def test_bits_of_each_section(saved, draws):
    data, *_ = saved
    found = sections(data)
    name = draws.draw(st.sampled_from(sorted(found)))
    section = found[name]
    byte = section.offset + draws.draw(st.integers(0, section.size - 1))
    damaged = Container(flipped(data, 8 * byte + draws.draw(st.integers(0, 7))), "it")
    with pytest.raises(ModelFileError, match=f"'{name}' is damaged"):
        damaged.read(name)


def test_damaged_models_are_refused_or_right(saved):
    data, wanted, path = saved
    refused = 0
    for bit in np.random.default_rng(1).integers(0, 8 * len(data), 60):
        answer = outcome(path, flipped(data, int(bit)))
        refused += answer is None
        assert answer is None or np.array_equal(answer, wanted)
    for name in ("packed", "manifest", "fused"):
        at = next(s.offset for n, s in sections(data).items() if n.startswith(name))
        assert outcome(path, flipped(data, 8 * at + 3)) is None
    assert refused > 0


# -- contents that no checksum would tell -----------------------------------------------------


def rewritten(saved, tmp_path, changes):
    """The artifact with other sections, checksums right; None leaves one out."""
    path = tmp_path / "other.lucid"
    with path.open("wb+") as file:
        writer = Writer(file)
        for name, content in (whole(saved[0]) | changes).items():
            if content is not None:
                writer.add(name, content)
        writer.finish()
    return path


def manifest_with(saved, **changes):
    row = json.loads(whole(saved[0])["manifest"]) | changes
    return {"manifest": json.dumps(row).encode()}


@pytest.mark.parametrize("name", ["manifest", "tensors", "captured.0", "fused.0"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"{}", b"[" * 100_000, b"graph"])
def test_sections_that_make_no_sense(saved, tmp_path, name, content):
    path = rewritten(saved, tmp_path, {name: content})
    answer = answered(path)
    if answer is None:
        return
    assert np.array_equal(answer, saved[1])  # what it did not need
    loaded = lucid.load(path, 1)
    if name == "captured.0":
        with pytest.raises(ModelFileError):
            loaded.ir("captured")
    else:
        assert name == "tensors"
        with pytest.raises(ModelFileError):
            loaded.save(path, weights="both")


@pytest.mark.parametrize(
    "changes",
    [
        {"input_shapes": "x"},
        {"input_shapes": [1, 3, 8, 8]},
        {"input_shapes": [[1, -3, 8, 8]]},
        {"input_shapes": []},
        {"sizes": []},
        {"sizes": [{}]},
        {"targets": [{"name": "x86-64"}]},
        {"targets": 3},
        {"any_size": 1},
        {"dtypes": ["u8"]},
        {"dtypes": ["f33"]},
        {"dtypes": "f32"},
        {"state": {"0.weight": "wide"}},
        {"tables": [["0.weight"]]},
        {"constants": [{}]},
        {"targets": [{"name": "x86-64", "caches": {"l1": 1e999}, "schedules": []}]},
        {"metadata": None},
        {"weights": "some"},
    ],
)
def test_manifests_that_make_no_sense(saved, tmp_path, changes):
    path = rewritten(saved, tmp_path, manifest_with(saved, **changes))
    with pytest.raises(ModelFileError, match=str(path)):
        lucid.load(path, 1)


TABLES = {
    "as a line": lambda a: a.reshape(-1),
    "with its axes in another order": lambda a: a.T,
    "of fewer rows": lambda a: a[:-1],
    "of more rows": lambda a: np.concatenate([a, a]),
    "of no rows": lambda a: a[:0],
    "of one number": lambda a: a[0, 0],
    "of integers": lambda a: a.astype(np.int8),
    "of truth values": lambda a: a > 0,
    "missing": None,
}


def with_tensors(saved, tmp_path, name, change):
    """The artifact whose tensors in a section are what `change` makes of them."""
    tensors = change(dict(Tensors(Container(saved[0], "it"), name)))
    section = io.BytesIO()
    write_tensors(section, tensors, tensors.values())
    return rewritten(saved, tmp_path, {name: section.getvalue()})


def with_table(saved, tmp_path, name, change):
    """The artifact with another tensor in place of one; `change` None leaves it out."""

    def changed(tensors):
        table = tensors.pop(name)
        return tensors if change is None else tensors | {name: change(table)}

    return with_tensors(saved, tmp_path, "tensors", changed)


@pytest.mark.parametrize("way", TABLES)
def test_tensors_that_are_not_what_the_graphs_read(saved, tmp_path, way):
    """They are refused where they are read, by a model of their own and by one that is to take
    them, which keeps what it has."""
    path = with_table(saved, tmp_path, "3.weight", TABLES[way])
    undamaged = tmp_path / "whole.lucid"
    undamaged.write_bytes(saved[0])
    loaded = lucid.load(undamaged, 1)
    told = f"^{path}: .*3.weight.*; save the model again, or fetch the file anew$"
    with pytest.raises(ModelFileError, match=told):
        lucid.compile(path, threads=1)
    with pytest.raises(WeightsError, match=told):
        loaded.load_weights(path)
    with pytest.raises(WeightsError, match=r"3\.weight"):
        small().load_weights(path)
    assert np.array_equal(loaded(X), saved[1])


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_floats_of_other_bits_are_weights_too(saved, tmp_path, kind):
    path = with_table(saved, tmp_path, "3.weight", lambda a: a.astype(kind))
    assert np.allclose(lucid.compile(path, threads=1)(X), saved[1], atol=1e-2)


@pytest.mark.parametrize(
    "change",
    [lambda a: a[:-16], lambda a: np.concatenate([a, a]), lambda a: a.astype(np.int16)],
    ids=["fewer", "more", "integers"],
)
def test_packed_weights_that_are_not_what_kernels_read(saved, tmp_path, change):
    target = json.loads(whole(saved[0])["manifest"])["targets"][0]["packed"]
    path = with_tensors(
        saved, tmp_path, target, lambda weights: {n: change(a) for n, a in weights.items()}
    )
    told = f"^{path}: what it has packed of .*0.weight.* is .*, and kernels read .*; save the model"
    with pytest.raises(ModelFileError, match=told):
        lucid.load(path, 1, code=False)


@pytest.mark.parametrize("shape", [None, [4], [3, 288, 1]])
def test_graphs_read_what_the_manifest_lists(saved, tmp_path, shape):
    """Else weights that fit the one would not fit the other."""
    state = json.loads(whole(saved[0])["manifest"])["state"] | {"3.weight": shape}
    state = {name: shape for name, shape in state.items() if shape is not None}
    path = rewritten(saved, tmp_path, manifest_with(saved, state=state))
    weights = {name: np.zeros(shape, np.float32) for name, shape in state.items()}
    with pytest.raises(ModelFileError, match=f"^{path}: .*reads 3.weight as f32.3,288."):
        lucid.load(path, 1).load_weights(weights)


def test_targets_of_the_future_are_passed_over(saved, tmp_path):
    row = json.loads(whole(saved[0])["manifest"])
    other = row["targets"][0] | {"name": "x86-64-v9"}
    path = rewritten(saved, tmp_path, manifest_with(saved, targets=[other]))
    assert np.allclose(lucid.load(path, 1)(X), saved[1], atol=1e-5)


def test_another_version_of_the_format(saved):
    data = bytearray(saved[0])
    struct.pack_into("<I", data, 8, 7)
    data[HEADER.size : HEADER.size + 32] = hashlib.sha256(data[: HEADER.size]).digest()
    with pytest.raises(
        ModelFileError, match="has version 7 of the format, this Lucid reads up to 4"
    ):
        Container(bytes(data), "it")


@pytest.mark.parametrize("size", [0, 999, 1000, 3005])
def test_a_section_that_threads_make(size, tmp_path, monkeypatch):
    monkeypatch.setattr(container, "CHUNK", 1000)
    content = np.random.default_rng(size).bytes(size)

    def fill(chunk, offset):
        chunk[:] = content[offset : offset + len(chunk)]

    for name in ("made", "added"):
        with (tmp_path / name).open("wb+") as file:
            writer = Writer(file)
            writer.add("before", b"some")
            if name == "made":
                writer.made("it", size, fill, 2)
            else:
                writer.add("it", content)
            writer.add("behind", b"more")
            writer.finish()
    assert (tmp_path / "made").read_bytes() == (tmp_path / "added").read_bytes()


def test_the_checksum_of_long_sections_is_that_of_its_chunks():
    data = np.arange(3 << 20, dtype=np.uint32).view(np.uint8).data
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    sums = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    assert checksum(data) == hashlib.sha256(sums).hexdigest()


def test_tensors_are_safetensors(saved):
    """Other tools read them."""
    from safetensors.numpy import load

    artifact = Artifact(Container(saved[0], "it"))
    section = bytes(artifact.container.read("tensors"))
    own = Tensors(artifact.container, "tensors")
    assert set(own) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    for name, values in load(section).items():
        assert np.array_equal(own[name], values)
        assert not own[name].flags.writeable


# -- replacing ----------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none" / "m.lucid"
    there_is_none = pytest.raises(FileNotFoundError, match=r"there is no folder .*none.*m\.lucid")
    with there_is_none as caught, replacing(path):
        pass
    assert caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
from pathlib import Path
from lucid.artifact.container import replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    with replacing(Path(sys.argv[-1])) as file:
        file.write(bytes(1 << 20))
except OSError as problem:
    print(problem.filename)
"""


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "m.lucid"
    path.write_bytes(b"old")
    done = run_python(FULL.replace("sys.argv[-1]", repr(str(path))))
    assert done.stdout.strip() == str(path), done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m.lucid"]
    assert path.read_bytes() == b"old"


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with replacing(path) as file:
        file.write(b"bytes")
    assert os.read(reader, 10) == b"bytes"
    os.close(reader)
    assert path.is_fifo()
