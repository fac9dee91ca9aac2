"""Specs: what makes sense, other sizes, and reading those of timm and torchvision."""

from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import lucid
from lucid.errors import InputError
from lucid.models import model_info, resnest_digits
from lucid.vision import IMAGENET, Preprocess


class Mode(Enum):
    BICUBIC = "bicubic"


TIMM = {
    "input_size": (3, 260, 260),
    "interpolation": "bicubic",
    "crop_pct": 0.882,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "url": "",
}


def test_defaults_are_imagenets() -> None:
    assert IMAGENET.cut == (224, 224)
    assert IMAGENET.resized(375, 500) == (256, 341)
    assert IMAGENET.resized(500, 375) == (341, 256)
    assert (IMAGENET.channels, Preprocess(order="grey", mean=0, std=1).channels) == (3, 1)
    assert Preprocess(mean=0.5, std=0.5).mean == (0.5, 0.5, 0.5)


def test_sizes() -> None:
    assert Preprocess(resize=232).resized(100, 200) == (232, 464)
    assert Preprocess(resize=(90, 80)).resized(100, 200) == (90, 80)
    assert Preprocess(size=None).resized(100, 200) == (100, 200)
    wide = Preprocess(size=(112, 224), crop_fraction=1.0)
    assert wide.resized(100, 100) == (224, 224)
    assert wide.resized(100, 400) == (112, 448)


def test_another_size() -> None:
    assert IMAGENET.at(160, 160) == Preprocess(size=160)
    assert Preprocess(resize=232).at(112, 112).resize == 116
    assert Preprocess(resize=(232, 240)).at(112, 224).resize == (116, 240)
    assert Preprocess(size=None, resize=520).at(65, 80).resized(9, 7) == (65, 80)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"interpolation": "cubist"}, "interpolation is one of"),
        ({"order": "gbr"}, "order is one of"),
        ({"crop_fraction": 0}, "crop_fraction"),
        ({"crop_fraction": 1.5}, "crop_fraction"),
        ({"divisor": 0}, "divisor"),
        ({"size": (1, 2, 3)}, "size"),
        ({"size": 0}, "size"),
        ({"size": 3.5}, "size"),
        ({"size": "224"}, "size"),
        ({"resize": {"height": 3}}, "resize"),
        ({"resize": -3}, "resize"),
        ({"mean": (1, 2)}, r"mean takes 3 number\(s\)"),
        ({"mean": "a"}, "mean must be numbers"),
        ({"std": (1, 0, 1)}, "std"),
        ({"std": float("nan")}, "std"),
        ({"order": "grey"}, r"mean takes 1 number\(s\)"),
    ],
)
def test_what_makes_no_sense(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocess(**fields)


def test_registered_models_say_what_they_want() -> None:
    spec = model_info("resnest_digits").preprocess
    assert Preprocess.of(model_info("resnest_digits")) is spec
    assert Preprocess.of(resnest_digits()) is spec
    assert Preprocess.of(spec) is spec


def test_a_compiled_model_says_what_its_model_said(tmp_path: Path) -> None:
    spec = model_info("resnest_digits").preprocess
    compiled = lucid.compile(resnest_digits(), (1, 1, 32, 32))
    compiled.save(tmp_path / "m.lucid")
    loaded = lucid.load(tmp_path / "m.lucid")
    for source in (compiled, compiled.metadata, loaded, loaded.metadata):
        assert Preprocess.of(source) == spec
    bgr = Preprocess(32, order="bgr")
    net = lucid.nn.Conv2d(3, 2, 3)
    given = lucid.compile(net, (1, 32, 32, 3), input="uint8_nhwc", preprocess=bgr)
    assert Preprocess.of(given) == bgr
    silent = lucid.compile(net, (1, 3, 32, 32))
    with pytest.raises(InputError, match="CompiledModel says nothing"):
        Preprocess.of(silent)


def test_metadata_of_another_version() -> None:
    with pytest.raises(InputError, match="no preprocessing by gamma"):
        Preprocess.of({"preprocess": {"size": 32, "gamma": 2.2}})


def test_timm_configurations() -> None:
    expected = Preprocess(260, None, 0.882, "bicubic", 0.5, 0.25)
    assert Preprocess.of(TIMM) == expected
    for name in ("pretrained_cfg", "default_cfg"):
        assert Preprocess.of(SimpleNamespace(**{name: TIMM})) == expected
    assert Preprocess.of(SimpleNamespace(pretrained_cfg=SimpleNamespace(**TIMM))) == expected
    assert Preprocess.of(TIMM | {"crop_mode": "squash"}).resize == (294, 294)
    assert Preprocess.of({"input_size": (3, 224, 224), "crop_pct": None}).interpolation == "bicubic"
    grey = Preprocess.of(TIMM | {"input_size": (1, 28, 28), "mean": (0.4, 0.5, 0.6)})
    assert (grey.order, grey.means) == ("grey", (0.5,))


def test_timm_configurations_that_cannot_be_followed() -> None:
    with pytest.raises(InputError, match="crop_mode 'border'"):
        Preprocess.of(TIMM | {"crop_mode": "border"})
    with pytest.raises(InputError, match="5 channels"):
        Preprocess.of(TIMM | {"input_size": (5, 224, 224)})


def test_torchvision_presets() -> None:
    numbers = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
    classify = SimpleNamespace(
        crop_size=[224], resize_size=[232], interpolation=Mode.BICUBIC, **numbers
    )
    expected = Preprocess(224, 232, 0.875, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert Preprocess.of(classify) == expected
    assert Preprocess.of(SimpleNamespace(transforms=lambda: classify)) == expected
    segment = SimpleNamespace(resize_size=[520], interpolation=Mode.BICUBIC, **numbers)
    assert Preprocess.of(segment).resized(1040, 2000) == (520, 1000)
    assert Preprocess.of(segment).size is None


@pytest.mark.parametrize("source", [None, 3, {}, "resnet_50", SimpleNamespace(transforms=[])])
def test_who_says_nothing(source: object) -> None:
    with pytest.raises(InputError, match="says nothing about its images"):
        Preprocess.of(source)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (97, 101), (640, 333)])
def test_the_same_as_timm(size: tuple[int, int]) -> None:
    """Bitwise, for timm's own transform of the same configuration."""
    data = pytest.importorskip("timm.data")
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))
    for config in (TIMM, TIMM | {"crop_mode": "squash"}, TIMM | {"input_size": (3, 128, 192)}):
        theirs = data.create_transform(**data.resolve_data_config({}, pretrained_cfg=config))
        ours = Preprocess.of(config)
        np.testing.assert_array_equal(
            ours.normalise(ours.to_uint8_nhwc(image))[0], theirs(image).numpy()
        )


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (230, 224), (97, 101)])
def test_the_same_as_torchvision(size: tuple[int, int]) -> None:
    presets = pytest.importorskip("torchvision.transforms._presets")
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))
    for theirs in (
        presets.ImageClassification(crop_size=224, resize_size=232),
        presets.ImageClassification(crop_size=112, resize_size=100),
        presets.SemanticSegmentation(resize_size=120),
    ):
        ours = Preprocess.of(theirs)
        np.testing.assert_array_equal(
            ours.normalise(ours.to_uint8_nhwc(image))[0], theirs(image).numpy()
        )


@pytest.mark.parametrize(
    "damaged",
    [
        {"input_size": (3, float("inf"), 64)},
        {"input_size": (3, 64)},
        {"input_size": 64.0},
        {"crop_pct": 0.0, "crop_mode": "squash"},
        {"crop_pct": float("nan"), "crop_mode": "squash"},
        {"input_size": (1, 64, 64), "mean": ()},
    ],
    ids=str,
)
def test_damaged_configurations_are_input_errors(damaged):
    """Found by fuzzing."""
    with pytest.raises(InputError):
        Preprocess.of(TIMM | damaged)
