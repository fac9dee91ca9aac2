"""Models of others on the command line: ONNX files, torch modules, timm and torchvision."""

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import lucid
from lucid import nn
from lucid.models import resnest_digits
from lucid.vision import IMAGENET, Preprocess


def complaint(result) -> str:
    """The one clean message of a failed command."""
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    return result.stderr


def save(model, shape, path, **metadata):
    """Write a model of Lucid's as an ONNX file."""
    onnx = pytest.importorskip("onnx")
    from lucid.onnx.writer import to_onnx

    proto = to_onnx(lucid.trace(model, shape))
    onnx.helper.set_model_props(proto, metadata)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def digits_file(tmp_path):
    return save(resnest_digits(), (1, 1, 32, 32), tmp_path / "digits.onnx")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def classifier(classes=4):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, classes),
    )  # fmt: skip


SETTINGS = ("--preprocess", "mean=0.3", "--preprocess", "std=0.4", "--preprocess")
"""How the digits are normalised, which their ONNX file does not say."""


def test_an_onnx_file_reads_digits(lucid_command, digits_file, digits):
    settings = (*SETTINGS, "crop_fraction=1", "--preprocess", "interpolation=bicubic")
    result = lucid_command("run", digits_file, *digits, *settings, "--compare", "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [i["top"][0]["class"] for i in answer["images"]] == [int(p.name[0]) for p in digits]
    assert answer["images"][3]["top"][0]["label"] == f"class {digits[3].name[0]}"
    assert answer["compare"]["same_class"] == 12
    assert "warning" not in result.stderr


def test_names_in_the_files_metadata(lucid_command, tmp_path, photo):
    mapping, listed = {i: f"thing {i}" for i in range(4)}, ["a", "b", "c", "d"]
    for value, name in ((mapping, "thing"), (listed, ""), ("no list", "class")):
        path = save(classifier(), (1, 3, 32, 32), tmp_path / "c.onnx", names=str(value))
        result = lucid_command("run", path, photo, "--json")
        assert result.exit_code == 0, result.stderr
        (image,) = json.loads(result.stdout)["images"]
        labels = {c["label"].split(" ")[0] for c in image["top"]}
        assert labels == ({name} if name else set(listed))


def test_what_an_image_goes_through(lucid_command, tmp_path, photo):
    path = save(classifier(), (1, 3, 32, 32), tmp_path / "c.onnx")

    def probabilities(*settings):
        arguments = [a for s in settings for a in ("--preprocess", s)]
        result = lucid_command("run", path, photo, "--json", "--top", 4, *arguments)
        assert result.exit_code == 0, result.stderr
        (image,) = json.loads(result.stdout)["images"]
        return [c["probability"] for c in sorted(image["top"], key=lambda c: c["class"])]

    def wanted(spec):
        logits = compiled(lucid.vision.preprocess(photo, spec))[0]
        return np.exp(logits) / np.exp(logits).sum()

    compiled = lucid.compile(str(path), threads=1)
    assert np.allclose(probabilities(), wanted(IMAGENET.at(32, 32)), rtol=1e-4)
    spec = Preprocess(32, 40, mean=(1, 2, 3), std=50, divisor=1, order="bgr")
    settings = ("resize=40", "mean=1,2,3", "std=50", "divisor=1", "order=bgr")
    assert np.allclose(probabilities(*settings), wanted(spec), rtol=1e-4)


def test_probabilities_are_taken_as_they_are(lucid_command, tmp_path, photo):
    model = nn.Sequential(*classifier().children(), nn.Softmax(1))
    path = save(model, (1, 3, 32, 32), tmp_path / "s.onnx")
    result = lucid_command("run", path, photo, "--json", "--top", 1)
    x = lucid.vision.preprocess(photo, IMAGENET.at(32, 32))
    found = json.loads(result.stdout)["images"][0]["top"][0]["probability"]
    assert found == pytest.approx(float(lucid.compile(str(path))(x).max()), rel=1e-4)


def test_arrays(lucid_command, tmp_path, photo):
    path = save(classifier(), (1, 3, 32, 32), tmp_path / "c.onnx")
    x = lucid.vision.preprocess([photo, photo], IMAGENET.at(32, 32))
    np.save(tmp_path / "two.npy", x)
    np.save(tmp_path / "one.npy", x[0])
    np.save(tmp_path / "levels.npy", np.asarray(Image.open(photo)))
    files = [tmp_path / f"{name}.npy" for name in ("two", "one", "levels")]
    result = lucid_command("run", path, *files, photo, "--json")
    assert result.exit_code == 0, result.stderr
    images = json.loads(result.stdout)["images"]
    names = [i["image"] for i in images]
    assert names == [f"{files[0]}[0]", f"{files[0]}[1]", *map(str, files[1:]), str(photo)]
    assert all(i["top"] == images[0]["top"] for i in images)


@pytest.mark.parametrize("kind", ["UINT8", "FLOAT"])
def test_channels_last(lucid_command, tmp_path, photo, kind):
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=types.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["y"], axes=[1, 2], keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", getattr(types, kind), ["N", 32, 48, 3])
    y = helper.make_tensor_value_info("y", types.FLOAT, ["N", 3])
    proto = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 13)]
    )
    (tmp_path / "last.onnx").write_bytes(proto.SerializeToString())
    np.save(tmp_path / "levels.npy", np.asarray(Image.open(photo)))
    spec = IMAGENET.at(32, 48)
    levels = spec.to_uint8_nhwc(photo)
    values = levels if kind == "UINT8" else np.moveaxis(spec.normalise(levels), 1, 3)
    for image in (photo, tmp_path / "levels.npy"):
        result = lucid_command("run", tmp_path / "last.onnx", image, "--json")
        assert result.exit_code == 0, result.stderr
        best = json.loads(result.stdout)["images"][0]["top"][0]["class"]
        assert best == int(values.mean((0, 1, 2)).argmax())


def test_networks_that_score_pixels(lucid_command, tmp_path, photo):
    path = save(
        nn.Conv2d(3, 5, 3, padding=1), (1, 3, 32, 48), tmp_path / "d.onnx", names="[1,2,3,4,5]"
    )
    mask = tmp_path / "mask.png"
    result = lucid_command("run", path, photo, "--json", "--out", mask)
    assert result.exit_code == 0, result.stderr
    (answer,) = json.loads(result.stdout)["images"]
    x = lucid.vision.preprocess(photo, IMAGENET.at(32, 48))
    classes = lucid.compile(str(path))(x)[0].argmax(0)
    assert answer["shape"] == [5, 32, 48]
    assert sum(c["share"] for c in answer["pixels"]) == pytest.approx(1)
    first = answer["pixels"][0]
    assert first["share"] == pytest.approx((classes == first["class"]).mean())
    assert first["label"] == str(first["class"] + 1)
    with Image.open(mask) as written:
        assert np.array_equal(np.asarray(written), classes)
        colours = np.asarray(written.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) == len(np.unique(classes))
    table = lucid_command("run", path, photo).stdout
    assert "class of pixels" in table
    assert "5x32x48" in table


def test_networks_that_give_the_class_of_each_pixel(lucid_command, tmp_path, photo):
    text = """graph g(%x: f32[N,3,8,9]) -> i64[N,8,9] {
      %y = arg_max(%x) {axis=1} : i64[N,8,9]
      return %y
    }
    """
    (tmp_path / "g.lir").write_text(text)
    mask = tmp_path / "mask.png"
    result = lucid_command("run", tmp_path / "g.lir", photo, "--json", "--out", mask)
    assert result.exit_code == 0, result.stderr
    (answer,) = json.loads(result.stdout)["images"]
    classes = lucid.vision.preprocess(photo, IMAGENET.at(8, 9))[0].argmax(0)
    shares = {c["class"]: c["share"] for c in answer["pixels"]}
    assert shares == {int(i): pytest.approx((classes == i).mean()) for i in np.unique(classes)}
    with Image.open(mask) as written:
        assert np.array_equal(np.asarray(written), classes)


def test_other_outputs_are_summed_up(lucid_command, tmp_path, photo):
    path = save(nn.Conv2d(3, 1, 3), (1, 3, 32, 32), tmp_path / "o.onnx")
    result = lucid_command("run", path, photo)
    assert result.exit_code == 0, result.stderr
    assert "1x30x30" in result.stdout
    assert "mean" in result.stdout
    message = complaint(lucid_command("run", path, photo, "--out", tmp_path / "m.png"))
    assert "networks that classify pixels" in message


@pytest.mark.parametrize(
    "command",
    [
        ("bench", "--runs", 1),
        ("ir", "--stage", "fused"),
        ("explain",),
        ("viz", "-o", "g.svg"),
        ("profile", "--runs", 1),
        ("memory",),
        ("check",),
        ("tune", "--budget", 0),
        ("export", "-o", "again.onnx"),
    ],
    ids=lambda c: c[0],
)
def test_every_command_takes_them(lucid_command, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    path = save(classifier(), (1, 3, 32, 32), tmp_path / "c.onnx")
    name, *options = command
    result = lucid_command(name, path, *options)
    assert result.exit_code == 0, result.output


def test_opt_writes_text_that_is_read(lucid_command, tmp_path):
    path = save(classifier(), (1, 3, 32, 32), tmp_path / "c.onnx")
    text = lucid_command("ir", path, "--stage", "captured").stdout
    assert lucid_command("opt", "-", input=text).exit_code == 0


# -- bad input ------------------------------------------------------------------------------


def test_files_that_are_no_models(lucid_command, tmp_path, photo):
    pytest.importorskip("onnx")
    assert "none.onnx" in complaint(lucid_command("run", tmp_path / "none.onnx", photo))
    cut = save(classifier(), (1, 3, 32, 32), tmp_path / "cut.onnx")
    cut.write_bytes(cut.read_bytes()[:300])
    assert "cut.onnx" in complaint(lucid_command("run", cut, photo))
    shutil.copy(photo, tmp_path / "photo.onnx")
    assert "photo.onnx" in complaint(lucid_command("ir", tmp_path / "photo.onnx"))


def test_operators_that_cannot_be_had_are_all_listed(lucid_command, tmp_path, photo):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", kind, ["N", 3, 32, 32])
    y = helper.make_tensor_value_info("y", kind, ["N", 3, 32, 32])
    nodes = [
        helper.make_node("Bernoulli", ["x"], ["a"], name="first"),
        helper.make_node("Fused", ["a"], ["y"], name="second", domain="com.example"),
    ]
    proto = helper.make_model(helper.make_graph(nodes, "g", [x], [y]))
    (tmp_path / "odd.onnx").write_bytes(proto.SerializeToString())
    for command in (("run", photo), ("ir",), ("bench",)):
        message = complaint(lucid_command(command[0], tmp_path / "odd.onnx", *command[1:]))
        assert "Bernoulli" in message
        assert "com.example.Fused" in message


def test_without_the_package_onnx(lucid_command, tmp_path, photo, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    message = complaint(lucid_command("run", tmp_path / "m.onnx", photo))
    assert "pip install" in message
    assert "pip install onnx" in message


def test_images_for_what_takes_none(lucid_command, tmp_path, photo):
    path = save(nn.Sequential(nn.Linear(5, 7), nn.ReLU()), (1, 5), tmp_path / "v.onnx")
    message = complaint(lucid_command("run", path, photo))
    assert "takes f32[N,5], not images: give arrays in .npy files" in message
    np.save(tmp_path / "v.npy", np.ones(5, np.float32))
    assert lucid_command("run", path, tmp_path / "v.npy").exit_code == 0
    np.save(tmp_path / "w.npy", np.ones((1, 1, 5), np.float32))
    message = complaint(lucid_command("run", path, tmp_path / "w.npy"))
    assert "float32[1,1,5]" in message
    (tmp_path / "x.npy").write_bytes(b"no array")
    assert "x.npy" in complaint(lucid_command("run", path, tmp_path / "x.npy"))


def answers(lucid_command, model, path, *options):
    result = lucid_command("run", model, path, "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["images"]


def test_weights_of_another_training(lucid_command, photo, tmp_path):
    """In place of those in the file: of an ONNX file and of a compiled model, by either."""
    first, second = classifier(), classifier()
    second.load_state_dict({k: 2 * t.numpy() for k, t in first.state_dict().items()})
    old, new, wrong = (
        save(m, (1, 3, 224, 224), tmp_path / f"{name}.onnx")
        for m, name in ((first, "old"), (second, "new"), (classifier(5), "wrong"))
    )
    for path in (old, new):
        compiled = lucid_command(
            "compile", path, "-o", path.with_suffix(".lucid"), "--stored-weights", "both"
        )
        assert compiled.exit_code == 0, compiled.output
    wanted = answers(lucid_command, new, photo)
    assert wanted != answers(lucid_command, old, photo)
    for model in (old, old.with_suffix(".lucid")):
        for weights in (new, new.with_suffix(".lucid")):
            options = ("--weights", weights, "--compare")
            assert answers(lucid_command, model, photo, *options) == wanted
    message = complaint(lucid_command("run", old, photo, "--weights", wrong))
    assert "expected shape [4], got [5]" in message


@pytest.mark.parametrize(
    "options",
    [
        ("--preprocess", "mean"),
        ("--preprocess", "size=3"),
        ("--preprocess", "mean=a"),
        ("--preprocess", "mean=1,2"),
        ("--preprocess", "order=gbr"),
        ("--preprocess", "resize=0"),
        ("--out", "mask.jpg"),
    ],
)
def test_usage(lucid_command, digits, options):
    result = lucid_command("run", "resnest_digits", digits[0], *options)
    assert result.exit_code == 2, result.output


# -- torch ----------------------------------------------------------------------------------


@pytest.fixture
def torch_file(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "theirs.py"
    path.write_text(
        "import torch\n"
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(8, 4))\n"
        "class Odd(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.svdvals(x)\n"
        "instance = build()\n"
    )
    return path


def test_a_module_of_torch(lucid_command, torch_file, photo):
    for name in ("build", "instance"):
        arguments = (f"{torch_file}:{name}", photo, "--size", 32, "--json", "--compare")
        result = lucid_command("run", *arguments)
        assert result.exit_code == 0, result.stderr
        assert len(json.loads(result.stdout)["images"][0]["top"]) == 4
    result = lucid_command("ir", f"{torch_file}:build", "--size", 16, "--stage", "fused")
    assert result.exit_code == 0, result.stderr
    assert "%x" in result.stdout or "f32[N,3,16,16]" in result.stdout


def test_weights_for_a_module_of_torch(lucid_command, torch_file, photo, tmp_path):
    import torch
    from safetensors.torch import save_file

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    arguments = (f"{torch_file}:build", photo, "--weights", tmp_path / "w.safetensors")
    assert "missing: 4.weight" in complaint(lucid_command("run", *arguments))


def test_what_torch_does_that_we_cannot(lucid_command, torch_file, photo):
    message = complaint(lucid_command("run", f"{torch_file}:Odd", photo, "--size", 32))
    assert "svd" in message


def test_a_network_of_torchvision(lucid_command, photo):
    pytest.importorskip("torchvision")
    result = lucid_command("run", "torchvision:squeezenet1_1", photo, "--json", "--size", 64)
    assert result.exit_code == 0, result.stderr
    assert "has random weights" in result.stderr
    assert "`pretrained`" in result.stderr
    assert len(json.loads(result.stdout)["images"][0]["top"]) == 5
    message = complaint(lucid_command("ir", "torchvision:resnet5"))
    assert "did you mean resnet50" in message


@pytest.mark.parametrize("failure", ["raise RuntimeError('a\\nb')", "no.name", "1 / 0"])
def test_a_torchvision_that_does_not_fit(lucid_command, monkeypatch, tmp_path, photo, failure):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(failure)
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    message = complaint(lucid_command("run", "torchvision:resnet18", photo))
    assert "torchvision, which fails to import (" in message
    assert "pip install torch torchvision" in message
    assert len(message.splitlines()) == 1


def test_a_network_of_timm(lucid_command, photo):
    pytest.importorskip("timm")
    result = lucid_command("run", "timm:test_efficientnet", photo, "--compare", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["compare"]["relative_error"] < 1e-4
    assert "did you mean" in complaint(lucid_command("ir", "timm:resnet51"))


def test_without_timm(lucid_command, monkeypatch, photo):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install torch timm" in complaint(lucid_command("run", "timm:resnet18", photo))
