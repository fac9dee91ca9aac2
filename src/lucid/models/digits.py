"""`resnest_digits`: a small trained ResNeSt that comes with Lucid.

`examples/train_digits.py` trains it; the held-out digits in `tests/data` say how well.
"""

from __future__ import annotations

from typing import Any

from lucid.models.registry import configured, register_model
from lucid.models.resnest import ResNeSt, _ResNeStBottleneck


@register_model(
    weights="resnest_digits.safetensors",
    size=32,
    order="grey",
    mean=0.3,
    std=0.4,
    crop_fraction=1.0,
    interpolation="bicubic",
    labels=tuple("0123456789"),
)
def resnest_digits(**overrides: Any) -> ResNeSt:
    """Handwritten digits, bright on dark, by a trained ResNeSt of two stages (99.6% right).

    (N, 1, 32, 32) -> logits (N, 10), 299,498 parameters. Loads the package's weights unless
    `weights` is None or a path; they fit only the default parameters.
    """
    return configured(
        ResNeSt,
        overrides,
        block=_ResNeStBottleneck,
        layers=[1, 1],
        num_classes=10,
        base_width=32,
        stem_width=32,
        in_channels=1,
    )
