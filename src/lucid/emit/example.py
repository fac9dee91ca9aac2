"""What the example program of a folder is filled with: how images become the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from lucid.emit.names import literal
from lucid.errors import InputError
from lucid.ir.types import TensorType
from lucid.runtime.plans import Plan, Snapshot
from lucid.vision.spec import Preprocess

KEEP, SHORTER, EXACT, COVER = range(4)
"""What an image is resized to: not at all, its shorter side, a size, or so that it covers one."""
FILTERS = {"bilinear": 0, "bicubic": 1}
"""The filters that the example has; others are taken for the first."""


def example_values(snapshot: Snapshot, name: str, embed: bool) -> dict[str, object]:
    """The placeholders of main.c and README.md that are about images and labels."""
    plan = next(iter(snapshot.plans.values()))
    spec = _spec(snapshot, plan)
    labels = snapshot.metadata.get("labels")
    names = list(map(str, labels)) if isinstance(labels, list) else []
    types = plan.graph.input_types()
    image = _image_values(types[0], spec) if spec else dict.fromkeys(BLANK, 0)
    arrays = " ".join(f"input{number}.raw" for number in range(len(types)))
    reads = "an image in the formats PPM or PGM, or else a raw array" if spec else "raw arrays"
    rows = types[0].concrete(plan.batch)[0] if spec else 1
    which = " of the first image" if rows > 1 else ""
    return image | {
        "rows": rows,
        "arguments": "image.ppm" if spec else arrays,
        "labels": "\n".join(f"    {literal(label)}," for label in [*names, ""]),
        "label_count": len(names),
        "weights_arguments": 0 if embed else 1,
        "weights_argument": "" if embed else f"{name}.bin ",
        "weights_told": "" if embed else f" {name}.bin holds the weights.",
        "example_told": f"reads {reads}, and prints the largest outputs{which}.",
    }


BLANK = (
    "image",
    "floats",
    "channels",
    "height",
    "width",
    "resize",
    "resize_height",
    "resize_width",
    "bicubic",
    "swapped",
    "divisor",
    "means",
    "stds",
)


def _spec(snapshot: Snapshot, plan: Plan) -> Preprocess | None:
    """The preprocessing of the model's images; None where its input is none."""
    types = plan.graph.input_types()
    if len(types) != 1 or types[0].rank != 4 or types[0].dtype not in ("f32", "u8"):
        return None
    channels, height, width = _axes(types[0])
    try:
        found = Preprocess.find(dict(snapshot.metadata))
    except (InputError, TypeError):  # another version's
        found = None
    order = "grey" if channels == 1 else "rgb"
    spec = found or Preprocess(size=(height, width), mean=0.0, std=1.0, order=order)
    if spec.channels != channels:
        return None
    return spec if spec.cut == (height, width) else spec.at(height, width)


def _axes(kind: TensorType) -> tuple[int, int, int]:
    """Channels, height and width of an image."""
    _, *sizes = kind.concrete(1)
    if kind.dtype == "u8":
        height, width, channels = sizes
    else:
        channels, height, width = sizes
    return channels, height, width


def _image_values(kind: TensorType, spec: Preprocess) -> dict[str, object]:
    channels, height, width = _axes(kind)
    how, (high, wide) = _resizing(spec)
    return {
        "image": 1,
        "floats": int(kind.dtype == "f32"),
        "channels": channels,
        "height": height,
        "width": width,
        "resize": how,
        "resize_height": high,
        "resize_width": wide,
        "bicubic": FILTERS.get(spec.interpolation, 0),
        "swapped": int(spec.order == "bgr"),
        "divisor": repr(float(spec.divisor)),
        "means": _numbers(spec.means),
        "stds": _numbers(spec.stds),
    }


def _resizing(spec: Preprocess) -> tuple[int, tuple[int, int]]:
    """As `Preprocess.resized` has it."""
    if isinstance(spec.resize, tuple):
        return EXACT, spec.resize
    if isinstance(spec.resize, int):
        return SHORTER, (spec.resize, spec.resize)
    if spec.cut is None:
        return KEEP, (0, 0)
    high, wide = (floor(size / spec.crop_fraction) for size in spec.cut)
    return (SHORTER if high == wide else COVER), (high, wide)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(repr(float(value)) for value in values)
