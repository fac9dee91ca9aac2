"""Preprocessing as others describe it: timm's configurations, torchvision's presets, and the
metadata of compiled models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lucid.errors import InputError
from lucid.vision.imagenet import CROP_FRACTION, IMAGENET_MEAN, IMAGENET_STD

Fields = dict[str, Any]
"""The fields of a `Preprocess`, by name."""


def read_fields(source: Any) -> Fields | None:
    """What `source` says of its images; None where it says nothing. Raises InputError for a
    configuration that cannot be followed."""
    if isinstance(source, Mapping):
        if isinstance(source.get("preprocess"), Mapping):  # the metadata of a compiled model
            return dict(source["preprocess"])
        return _timm(source) if "input_size" in source else None
    for attribute in ("metadata", "pretrained_cfg", "default_cfg"):
        config = getattr(source, attribute, None)
        if config:
            return read_fields(config)
    if hasattr(source, "input_size") and hasattr(source, "crop_pct"):  # a PretrainedCfg
        return _timm(vars(source))
    if hasattr(source, "resize_size") and hasattr(source, "mean"):
        return _torchvision(source)
    transforms: Callable[[], Any] | None = getattr(source, "transforms", None)
    return read_fields(transforms()) if callable(transforms) else None


def _timm(config: Mapping[str, Any]) -> Fields:
    """timm's evaluation transform. What is missing or None is timm's default."""

    def read(name: str, default: Any) -> Any:
        value = config.get(name)
        return default if value is None else value

    try:
        channels, height, width = (int(d) for d in read("input_size", (3, 224, 224)))
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"input_size is (channels, height, width), not {read('input_size', None)!r}"
        ) from error
    try:
        fraction = float(read("crop_pct", CROP_FRACTION))
    except (TypeError, ValueError) as error:
        raise InputError(f"crop_pct is a number, not {read('crop_pct', 0.875)!r}") from error
    if not 0 < fraction <= 1:
        raise InputError(f"crop_pct is a share of the image, above 0 and at most 1, not {fraction}")
    mode = read("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise InputError(
            f"crop_mode {mode!r} is not supported (center and squash are): preprocess with timm"
        )
    if channels not in (1, 3):
        raise InputError(f"a network of {channels} channels takes no images: give it arrays")
    resize = (int(height / fraction), int(width / fraction)) if mode == "squash" else None
    grey = channels == 1
    return {
        "size": (height, width),
        "resize": resize,
        "crop_fraction": fraction,
        "interpolation": str(read("interpolation", "bicubic")),
        "mean": _few(read("mean", IMAGENET_MEAN), grey),
        "std": _few(read("std", IMAGENET_STD), grey),
        "order": "grey" if grey else "rgb",
    }


def _few(values: Any, grey: bool) -> tuple[float, ...]:
    """One number a channel; a grey network made of a colour one keeps three: their average."""
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError) as error:
        raise InputError(f"mean and std are numbers by channel, not {values!r}") from error
    return (sum(numbers) / len(numbers),) if grey and numbers else numbers


def _torchvision(preset: Any) -> Fields:
    """A preset of classification (resized and cropped) or of segmentation (resized only)."""
    resize = _side(preset.resize_size)
    interpolation = getattr(preset, "interpolation", "bilinear")
    return {
        "size": _side(getattr(preset, "crop_size", None)),
        "resize": resize,
        "crop_fraction": 1.0 if resize is None else CROP_FRACTION,
        "interpolation": str(getattr(interpolation, "value", interpolation)),
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
    }


def _side(value: Any) -> int | tuple[int, int] | None:
    """torchvision writes one side as a list of one."""
    if value is None or isinstance(value, int):
        return value
    sides = [int(v) for v in value]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
