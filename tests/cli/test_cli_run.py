"""`lucid run` and what MODEL may be."""

import json

import numpy as np
import pytest

from lucid.models import model_info

SMALL = ("resnest_14", "--size", 64)
NET = """graph net(%x: f32[N,3,8,8]) -> f32[N,4,8,8] {
  param @w: f32[4,3,3,3]
  %y = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,4,8,8] at "conv"
  return %y
}
"""


def test_digits_are_read(lucid_command, digits):
    result = lucid_command("run", "resnest_digits", *digits, "--compare", "--json", "--top", 2)
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert len(answer["images"]) == len(digits) == 12
    for path, image in zip(digits, answer["images"], strict=True):
        assert image["image"] == str(path)
        assert image["top"][0]["label"] == path.name[0]
        assert len(image["top"]) == 2
    assert answer["compare"]["same_class"] == 12
    assert answer["compare"]["relative_error"] < 1e-6
    assert "warning" not in result.stderr


def test_a_table_for_people(lucid_command, digits):
    result = lucid_command("run", "resnest_digits", digits[0], "--compare", "--threads", 1)
    assert result.exit_code == 0
    assert "probability" in result.stdout
    assert "float64 interpreter" in result.stdout
    assert "1 thread" in result.stdout
    assert result.stderr == ""


def test_random_weights_are_warned_of(lucid_command, digits, tmp_path):
    """Wherever what comes out depends on them: answers, files, rounding errors."""
    net = tmp_path / "net.lir"
    net.write_text(NET)
    commands = [
        ("run", net, digits[0], "--json"),
        ("compile", net, "-o", tmp_path / "m.lucid"),
        ("export", net, "-o", tmp_path / "m.onnx"),
        ("check", net),
    ]
    for command in commands:
        if command[0] == "export":
            pytest.importorskip("onnx")
        result = lucid_command(*command)
        assert result.exit_code == 0, result.stderr
        assert f"warning: {net} has random weights" in result.stderr
        assert "--random-weights" in result.stderr
        assert "warning" not in lucid_command(*command, "--random-weights").stderr
    saved = ("run", tmp_path / "m.lucid", digits[0])
    assert "has random weights" in lucid_command(*saved).stderr
    assert lucid_command(*saved, "--random-weights").stderr == ""


def test_trained_weights_are_not_warned_of(lucid_command, tmp_path):
    for command, file in (("compile", "m.lucid"), ("check", None)):
        output = () if file is None else ("-o", tmp_path / file)
        assert "warning" not in lucid_command(command, "resnest_digits", *output).stderr


def test_folders(lucid_command, digits, tmp_path):
    """Of images and folders of images; what is no image by its name is left alone."""
    for number, digit in enumerate(digits):
        folder = tmp_path / ("inner" if number % 2 else ".")
        folder.mkdir(exist_ok=True)
        (folder / digit.name).write_bytes(digit.read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    result = lucid_command("run", "resnest_digits", tmp_path, digits[0], "--json", "--compare")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["compare"]["same_class"] == 13
    names = [image["image"].rpartition("/")[2] for image in answer["images"]]
    assert sorted(names) == sorted([digits[0].name, *(d.name for d in digits)])
    assert all(i["top"][0]["label"] == n[0] for i, n in zip(answer["images"], names, strict=True))
    (tmp_path / "empty").mkdir()
    assert "no images" in complaint(lucid_command("run", "resnest_digits", tmp_path / "empty"))


def test_long_folders_run_in_batches(lucid_command, digits, monkeypatch):
    monkeypatch.setattr("lucid.cli.images.BATCH", 5)
    result = lucid_command("run", "resnest_digits", *digits, "--json")
    tops = [image["top"][0]["label"] for image in json.loads(result.stdout)["images"]]
    assert tops == [digit.name[0] for digit in digits]


def test_bad_images_do_not_lose_the_others(lucid_command, digits, tmp_path):
    missing, text, wrong = tmp_path / "none.png", tmp_path / "text.png", tmp_path / "wrong.npy"
    text.write_text("no image")
    np.save(wrong, np.zeros((3, 3, 32, 32), np.float32))
    images = (missing, digits[3], text, wrong, digits[4])
    result = lucid_command("run", "resnest_digits", *images, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert [i["top"][0]["label"] for i in answer["images"]] == [d.name[0] for d in digits[3:5]]
    refused = [row["image"] for row in answer["refused"]]
    assert refused == [str(missing), str(text), *(f"{wrong}[{i}]" for i in range(3))]
    for path in (missing, text, wrong):
        assert path.name in result.stderr
    result = lucid_command("run", "resnest_digits", *images)
    assert result.exit_code == 1
    assert digits[3].name in result.stdout
    assert result.stderr.count("error: ") == 5


def test_labels(lucid_command, digits, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {i}" for i in range(10)))
    result = lucid_command("run", "resnest_digits", digits[0], "--labels", names)
    assert "digit 0" in result.stdout
    names.write_text("one\ntwo\n")
    result = lucid_command("run", "resnest_digits", digits[0], "--labels", names)
    assert result.exit_code == 1
    assert "names 2 classes, the model has 10" in result.stderr


def test_a_model_from_a_file(lucid_command, digits, model_file):
    for name in ("build", "instance"):
        result = lucid_command(
            "run", f"{model_file}:{name}", digits[0], "--size", 32, "--json", "--compare"
        )
        assert result.exit_code == 0, result.stderr
        assert len(json.loads(result.stdout)["images"][0]["top"]) == 4


def test_what_is_no_classifier_tells_its_shape(lucid_command, digits, model_file):
    result = lucid_command("run", f"{model_file}:features", digits[0], "--size", 32)
    assert result.exit_code == 0
    assert "8x30x30" in result.stdout


def test_a_model_from_a_module(lucid_command, digits):
    result = lucid_command("run", "lucid.models:resnest_14", digits[0], "--size", 64)
    assert result.exit_code == 0


def test_ir_text_with_its_weights(lucid_command, digits, tmp_path):
    """Text before the passes has the model's own tensors, so the model's file fits it."""
    text = lucid_command("ir", "resnest_digits", "--stage", "captured").stdout
    file = tmp_path / "digits.lir"
    file.write_text(text)
    weights = model_info("resnest_digits").weights
    result = lucid_command("opt", file, "-o", tmp_path / "fused.lir")
    assert result.exit_code == 0
    for path in (file, tmp_path / "fused.lir"):
        result = lucid_command("ir", path, "--stage", "fused", "--weights", weights)
        assert result.exit_code == 0, result.stderr


# -- bad input ------------------------------------------------------------------------------


def complaint(result) -> str:
    """The one clean message of a failed command."""
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    return result.stderr


def test_an_unknown_model_has_neighbours(lucid_command, digits):
    message = complaint(lucid_command("run", "resnest_51", digits[0]))
    assert "did you mean resnest_50" in message


def test_images_that_cannot_be_read(lucid_command, digits, tmp_path):
    message = complaint(lucid_command("run", "resnest_digits", digits[0], tmp_path / "none.png"))
    assert "none.png" in message
    text = tmp_path / "text.png"
    text.write_text("no image")
    assert "not an image" in complaint(lucid_command("run", "resnest_digits", text))
    cut = tmp_path / "cut.png"
    cut.write_bytes(digits[0].read_bytes()[:80])
    assert "cut.png" in complaint(lucid_command("run", "resnest_digits", cut))


def test_weights_that_do_not_fit(lucid_command, digits, tmp_path):
    whole = model_info("resnest_digits").weights
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:5000])
    run = ("run", "resnest_digits", digits[0], "--weights")
    assert "truncated" in complaint(lucid_command(*run, cut))
    assert "no such file" in complaint(lucid_command(*run, tmp_path / "none.safetensors"))
    message = complaint(lucid_command("run", *SMALL, digits[0], "--weights", whole))
    assert "conv1.0.weight" in message


@pytest.mark.parametrize(
    ("attribute", "part"),
    [
        ("number", "returns int, which is neither a module"),
        ("broken", "RuntimeError: no such luck"),
        ("nothing", "it has build"),
    ],
)
def test_callables_that_make_no_model(lucid_command, model_file, attribute, part):
    assert part in complaint(lucid_command("ir", f"{model_file}:{attribute}"))


def test_places_that_are_not_there(lucid_command, tmp_path):
    assert "no such file" in complaint(lucid_command("ir", tmp_path / "none.lir"))
    assert "no such file" in complaint(lucid_command("ir", f"{tmp_path}/none.py:build"))
    assert "there is no module 'no_such_package'" in complaint(
        lucid_command("ir", "no_such_package.x:build")
    )


def test_debug_shows_the_traceback(lucid_command, monkeypatch):
    monkeypatch.setenv("LUCID_DEBUG", "1")
    with pytest.raises(LookupError):
        lucid_command("ir", "resnest_51")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "resnest_digits"),
        ("run", "resnest_digits", "x.png", "--top", "0"),
        ("run", "resnest_digits", "x.png", "--size", "big"),
        ("run", "resnest_digits", "x.png", "--size", "65x"),
        ("nonsense",),
        ("ir", "resnest_14", "--no-such-option"),
    ],
)
def test_usage_is_exit_code_2(lucid_command, arguments):
    assert lucid_command(*arguments).exit_code == 2


@pytest.mark.parametrize("name", ["weights.pth", "a.SAFETENSORS", "m.ckpt", "pytorch_model.bin"])
def test_weights_are_no_model(lucid_command, digits, name):
    message = complaint(lucid_command("run", name, digits[0]))
    assert f"{name} holds weights, not a model" in message
    assert f"--weights {name}" in message


@pytest.mark.parametrize(
    ("spec", "meant"),
    [("torchvison:resnet18", "torchvision"), ("tim:resnet18", "timm"), ("qqq.zz:net", "")],
)
def test_a_misspelt_package(lucid_command, spec, meant):
    message = complaint(lucid_command("ir", spec))
    assert f"there is no module {spec.partition(':')[0].partition('.')[0]!r} to import" in message
    assert (f"did you mean {meant}?" if meant else "") in message
