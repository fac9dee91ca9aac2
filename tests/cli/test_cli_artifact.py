"""`lucid compile`, and compiled models as MODEL."""

import json

import numpy as np
import pytest

import lucid
from lucid.codegen.target import Target
from lucid.errors import ModelFileError
from lucid.models import resnest_digits


@pytest.fixture
def artifact(lucid_command, tmp_path):
    path = tmp_path / "digits.lucid"
    result = lucid_command("compile", "resnest_digits", "-o", path, "--threads", 1)
    assert result.exit_code == 0
    assert f"wrote {path}" in result.stderr
    return path


def test_it_answers_as_the_model_does(lucid_command, artifact, digits):
    options = [digits[0], "--json", "--threads", 1]
    told = json.loads(lucid_command("run", artifact, *options).stdout)
    wanted = json.loads(lucid_command("run", "resnest_digits", *options).stdout)
    assert told["images"] == wanted["images"]
    assert not lucid_command("run", artifact, digits[0]).stderr  # the answers mean something


def test_what_needs_plain_weights(lucid_command, artifact, digits):
    for options in (["--compare"], ["--precision", "strict"]):
        refused = lucid_command("run", artifact, digits[0], *options)
        assert refused.exit_code == 1
        assert f"{artifact}: holds its weights only as packed for" in refused.stderr
        assert "weights='both'" in refused.stderr
    options = ["--stored-weights", "both", "--threads", 1]
    assert lucid_command("compile", "resnest_digits", "-o", artifact, *options).exit_code == 0
    compared = lucid_command("run", artifact, digits[0], "--compare")
    assert compared.exit_code == 0
    assert "same class: 1 of 1" in compared.stdout
    strict = lucid_command("run", artifact, digits[0], "--precision", "strict")
    assert strict.exit_code == 0
    assert not strict.stderr


def test_it_is_what_load_takes(artifact):
    loaded = lucid.load(artifact, 1)
    x = np.random.default_rng(0).standard_normal((2, 1, 32, 32)).astype(np.float32)
    compiled = lucid.compile(resnest_digits(), (1, 1, 32, 32), threads=1)
    assert np.array_equal(loaded(x), compiled(x))
    assert loaded.metadata["trained"] is True


def test_images_of_uint8(lucid_command, tmp_path, digits):
    path = tmp_path / "digits.lucid"
    assert lucid_command("compile", "resnest_digits", "--uint8", "-o", path).exit_code == 0
    assert lucid.load(path).input_shape == (1, 32, 32, 1)
    told = json.loads(lucid_command("run", path, digits[0], "--json").stdout)
    wanted = json.loads(lucid_command("run", "resnest_digits", digits[0], "--json").stdout)
    classes = [[row["class"] for row in r["images"][0]["top"]] for r in (told, wanted)]
    assert classes[0] == classes[1]


def test_other_commands_take_it(lucid_command, artifact):
    bench = json.loads(lucid_command("bench", artifact, "--runs", 1, "--json").stdout)
    assert bench["target"] == Target.host().name
    assert bench["inputs"] == {"x": [1, 1, 32, 32]}
    for command in (["ir"], ["explain"], ["memory"], ["profile", "--runs", 1]):
        result = lucid_command(command[0], artifact, *command[1:])
        assert result.exit_code == 0, result.stderr


@pytest.mark.skipif(not Target.host().is_x86, reason="for x86")
def test_several_targets(lucid_command, model_file, tmp_path):
    path = tmp_path / "m.lucid"
    options = ["--size", "8", "--targets", "x86-64,aarch64", "-o", path]
    assert lucid_command("compile", f"{model_file}:features", *options).exit_code == 0
    assert lucid.load(path).target.name == "x86-64"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["resnest_digits", "-o", "m.onnx"], "end in .lucid"),
        (["resnest_digits", "-o", "m.lucid", "--targets", "arm"], "no target is named 'arm'"),
        (["resnest_digits", "-o", "m.lucid", "--stored-weights", "all"], "compact, packed, plain"),
        (["resnest_digits", "-o", "none/m.lucid"], "none/m.lucid: there is no folder"),
        (["missing.lucid", "-o", "m.lucid"], "missing.lucid: No such file"),
    ],
)
def test_mistakes(lucid_command, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    result = lucid_command("compile", *arguments)
    assert result.exit_code in (1, 2)
    assert told in result.stderr
    assert not list(tmp_path.iterdir())


def test_inspect(lucid_command, artifact):
    told = json.loads(lucid_command("inspect", artifact, "--json").stdout)
    assert told["name"] == "resnest_digits"
    assert told["other_sizes"] is True
    assert told["targets"] == [Target.host().name]
    assert sum(told["sections"].values()) < told["file_bytes"] == artifact.stat().st_size
    assert told["weights"] == "compact"
    packed = f"packed.{Target.host().name}"
    assert (
        told["weight_bytes"][packed] == told["sections"][packed] > 10 * told["sections"]["tensors"]
    )
    text = lucid_command("inspect", artifact).stdout
    assert "1x1x32x32" in text
    assert f"{told['file_bytes']:,}" in text
    assert "every checksum is right" in text


def test_what_is_no_artifact(lucid_command, artifact, digits):
    artifact.write_bytes(artifact.read_bytes()[:-1])
    for command in ("run", "bench", "ir", "inspect"):
        result = lucid_command(command, artifact, *([digits[0]] if command == "run" else []))
        assert result.exit_code == 1
        assert "truncated" in result.stderr
    artifact.write_bytes(b"hello")
    assert "not a compiled model" in lucid_command("ir", artifact).stderr


def test_nothing_is_compiled_for_a_folder_that_is_not_there(lucid_command, tmp_path, monkeypatch):
    monkeypatch.setattr("lucid.compile", None)
    path = tmp_path / "none" / "m.lucid"
    assert f"{path}: there is no folder" in lucid_command("compile", "resnet_18", "-o", path).stderr


def test_onnx_files_are_for_compile(tmp_path):
    with pytest.raises(
        ModelFileError, match=r"an ONNX file, not a compiled model: lucid.compile\('"
    ):
        lucid.load(tmp_path / "net.onnx")
