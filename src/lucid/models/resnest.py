"""ResNeSt: ResNet with split attention in its blocks (Zhang et al., 2020), as officially published.

State-dict keys, and the function computed, are those of the official code and of timm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from lucid import nn
from lucid.errors import LucidError
from lucid.frontend.tensor import Tensor
from lucid.models.registry import configured, register_model
from lucid.models.resnet import RESIDUAL_SCALE, ResNet, group_width
from lucid.nn.parameter import Fill


class SplitAttention(nn.Module):
    """A convolution into `radix` splits of `channels`, and their sum weighted by attention.

    (N, in_channels, H, W) -> (N, channels, OH, OW). The weights come from the splits'
    sum, averaged over the map, through two 1x1 convolutions, and are a softmax over the splits
    (radix 1: a sigmoid).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        cardinality: int = 1,
        radix: int = 2,
        reduction: int = 4,
    ) -> None:
        if radix < 1:
            raise LucidError(f"SplitAttention: radix must be 1 or more, got {radix}")
        self.channels, self.cardinality, self.radix = channels, cardinality, radix
        split, inter = channels * radix, max(in_channels * radix // reduction, 32)
        groups = cardinality * radix
        self.conv = nn.Conv2d(
            in_channels, split, kernel_size, stride, padding, groups=groups, bias=False
        )
        self.bn0 = nn.BatchNorm2d(split)
        self.relu = nn.ReLU()
        self.fc1 = nn.Conv2d(channels, inter, 1, groups=cardinality)
        self.bn1 = nn.BatchNorm2d(inter)
        self.fc2 = nn.Conv2d(inter, split, 1, groups=cardinality)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn0(self.conv(x)))
        if self.radix == 1:
            return x * self._attention(x)
        batch, _, height, width = x.shape
        splits = x.reshape(batch, self.radix, self.channels, height, width)
        weights = self._attention(splits.sum(1))
        return (splits * weights.reshape(batch, self.radix, self.channels, 1, 1)).sum(1)

    def _attention(self, x: Tensor) -> Tensor:
        """The weight of each channel of each split: (N, C, H, W) -> (N, radix * C, 1, 1)."""
        pooled = x.mean((2, 3), keepdim=True)
        logits: Tensor = self.fc2(self.relu(self.bn1(self.fc1(pooled))))
        batch, radix = logits.shape[0], self.radix
        if radix == 1:
            return logits.sigmoid()
        # fc2 gives the splits within each group; the result has them outermost.
        grouped = logits.reshape(batch, self.cardinality, radix, -1).transpose(1, 2)
        return grouped.softmax(1).reshape(batch, radix * self.channels, 1, 1)


class _ResNeStBottleneck(nn.Module):
    """1x1, split attention, 1x1 and the shortcut: -> (N, 4 planes, H/stride, W/stride).

    With `avd` an average pool strides instead of the 3x3 convolution, before it if `avd_first`.
    `radix` 0 has a plain grouped convolution in place of the split attention.
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        base_width: int = 64,
        cardinality: int = 1,
        radix: int = 2,
        avd: bool = True,
        avd_first: bool = False,
    ) -> None:
        width, outputs = group_width(planes, base_width, cardinality), planes * self.expansion
        self.radix, self.avd_first = radix, avd_first
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        pools = avd and stride > 1
        self.avd_layer = nn.AvgPool2d(3, stride, padding=1) if pools else None
        conv_stride = 1 if pools else stride
        self.conv2: nn.Module
        if radix == 0:
            self.conv2 = nn.Conv2d(width, width, 3, conv_stride, 1, groups=cardinality, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
        else:
            self.conv2 = SplitAttention(
                width, width, stride=conv_stride, cardinality=cardinality, radix=radix
            )
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        if self.bn3.weight is not None:
            self.bn3.weight.initialise(Fill(RESIDUAL_SCALE))
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        if self.avd_layer is not None and self.avd_first:
            out = self.avd_layer(out)
        out = self.conv2(out)
        if self.radix == 0:
            out = self.relu(self.bn2(out))
        if self.avd_layer is not None and not self.avd_first:
            out = self.avd_layer(out)
        out = self.bn3(self.conv3(out))
        out += shortcut
        result: Tensor = self.relu(out)
        return result


class ResNeSt(ResNet):
    """ResNet with a deep stem, average-pooled shortcuts and split attention.

    (N, in_channels, H, W) -> logits (N, num_classes). `block` and `layers` as in ResNet;
    `base_width`: channels of a group in the first stage; `stem_width`: channels of the stem's first
    convolutions, its last has twice as many; `cardinality`: groups; `radix`: splits of the
    split attention, 0 for none; `avd`: average pools instead of strided 3x3 convolutions, before
    them if `avd_first`.
    """

    def __init__(
        self,
        block: type[Any],
        layers: Sequence[int],
        num_classes: int = 1000,
        base_width: int = 64,
        stem_width: int = 32,
        cardinality: int = 1,
        radix: int = 2,
        avd: bool = True,
        *,
        avd_first: bool = False,
        in_channels: int = 3,
    ) -> None:
        self.radix, self.avd, self.avd_first = radix, avd, avd_first
        super().__init__(
            block,
            layers,
            num_classes,
            base_width,
            stem_width,
            cardinality,
            in_channels=in_channels,
        )

    def _make_stem(self, in_channels: int) -> tuple[nn.Module, int]:
        width = self.stem_width
        stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 1, 1, bias=False),
        )
        return stem, 2 * width

    def _make_block(
        self,
        block: type[Any],
        in_channels: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
    ) -> nn.Module:
        made: nn.Module = block(
            in_channels,
            planes,
            stride,
            downsample,
            base_width=self.base_width,
            cardinality=self.cardinality,
            radix=self.radix,
            avd=self.avd,
            avd_first=self.avd_first,
        )
        return made

    def _make_shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return nn.Sequential(
            nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )


def _resnest(overrides: dict[str, Any], layers: Sequence[int], **defaults: Any) -> ResNeSt:
    return configured(ResNeSt, overrides, block=_ResNeStBottleneck, layers=layers, **defaults)


def _fast(overrides: dict[str, Any], **defaults: Any) -> ResNeSt:
    """The official "fast" ResNeSt-50: the average pool comes first."""
    return _resnest(overrides, [3, 4, 6, 3], avd_first=True, **defaults)


@register_model()
def resnest_14(**overrides: Any) -> ResNeSt:
    """ResNeSt-14."""
    return _resnest(overrides, [1, 1, 1, 1])


@register_model()
def resnest_26(**overrides: Any) -> ResNeSt:
    """ResNeSt-26."""
    return _resnest(overrides, [2, 2, 2, 2])


@register_model()
def resnest_50(**overrides: Any) -> ResNeSt:
    """ResNeSt-50."""
    return _resnest(overrides, [3, 4, 6, 3])


@register_model(size=256)
def resnest_101(**overrides: Any) -> ResNeSt:
    """ResNeSt-101."""
    return _resnest(overrides, [3, 4, 23, 3], stem_width=64)


@register_model(size=320, interpolation="bicubic")
def resnest_200(**overrides: Any) -> ResNeSt:
    """ResNeSt-200."""
    return _resnest(overrides, [3, 24, 36, 3], stem_width=64)


@register_model(size=416, interpolation="bicubic")
def resnest_269(**overrides: Any) -> ResNeSt:
    """ResNeSt-269."""
    return _resnest(overrides, [3, 30, 48, 8], stem_width=64)


@register_model()
def resnest_50_4s2x40d(**overrides: Any) -> ResNeSt:
    """ResNeSt-50 with 4 splits and 2 groups of 40 channels."""
    return _fast(overrides, radix=4, cardinality=2, base_width=40)


@register_model()
def resnest_50_1s4x24d(**overrides: Any) -> ResNeSt:
    """ResNeSt-50 with 1 split and 4 groups of 24 channels."""
    return _fast(overrides, radix=1, cardinality=4, base_width=24)


@register_model()
def resnest_50_fast_1s1x64d(**overrides: Any) -> ResNeSt:
    """ResNeSt-50, fast, with 1 split."""
    return _fast(overrides, radix=1)


@register_model()
def resnest_50_fast_2s1x64d(**overrides: Any) -> ResNeSt:
    """ResNeSt-50, fast, with 2 splits."""
    return _fast(overrides, radix=2)


@register_model()
def resnest_50_fast_4s1x64d(**overrides: Any) -> ResNeSt:
    """ResNeSt-50, fast, with 4 splits."""
    return _fast(overrides, radix=4)


@register_model()
def resnest_50_fast_1s2x40d(**overrides: Any) -> ResNeSt:
    """ResNeSt-50, fast, with 1 split and 2 groups of 40 channels."""
    return _fast(overrides, radix=1, cardinality=2, base_width=40)


@register_model()
def resnest_50_fast_2s2x40d(**overrides: Any) -> ResNeSt:
    """ResNeSt-50, fast, with 2 splits and 2 groups of 40 channels."""
    return _fast(overrides, radix=2, cardinality=2, base_width=40)
