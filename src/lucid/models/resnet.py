"""ResNet: torchvision's v1.5 (the stride on the 3x3 convolution), and the base of ResNeSt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from lucid import nn
from lucid.errors import LucidError
from lucid.frontend.tensor import Tensor
from lucid.models.registry import configured, register_model
from lucid.nn.parameter import Fill, Normal, fan_in

RESIDUAL_SCALE = 0.2
"""What the last batch norm of a generated block scales by: deep trunks stay finite, and no branch
is silent, so that comparisons of generated models see all of the network."""


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut: (N, in, H, W) -> (N, planes, H/stride, W/stride)."""

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        base_width: int = 64,
        cardinality: int = 1,
    ) -> None:
        if base_width != 64 or cardinality != 1:
            raise LucidError("_BasicBlock: base_width must be 64 and cardinality 1")
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        if self.bn2.weight is not None:
            self.bn2.weight.initialise(Fill(RESIDUAL_SCALE))
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += shortcut
        result: Tensor = self.relu(out)
        return result


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut: -> (N, 4 planes, H/stride, W/stride)."""

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        base_width: int = 64,
        cardinality: int = 1,
    ) -> None:
        width, outputs = group_width(planes, base_width, cardinality), planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=cardinality, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        if self.bn3.weight is not None:
            self.bn3.weight.initialise(Fill(RESIDUAL_SCALE))
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += shortcut
        result: Tensor = self.relu(out)
        return result


def group_width(planes: int, base_width: int, cardinality: int) -> int:
    """The channels of a bottleneck's 3x3 convolution, all groups together."""
    return int(planes * base_width / 64) * cardinality


class ResNet(nn.Module):
    """(N, in_channels, H, W) -> logits (N, num_classes).

    `block`: the class of the blocks; `layers`: how many each stage has, one to four stages.
    `base_width` and `cardinality` above their defaults give ResNeXt. `stem_width`: the channels
    of the stem's convolution.
    """

    def __init__(
        self,
        block: type[Any],
        layers: Sequence[int],
        num_classes: int = 1000,
        base_width: int = 64,
        stem_width: int = 64,
        cardinality: int = 1,
        *,
        in_channels: int = 3,
    ) -> None:
        if not 1 <= len(layers) <= 4 or any(n < 1 for n in layers):
            raise LucidError(
                f"{type(self).__name__}: layers must be one to four positive block counts, "
                f"such as [3, 4, 6, 3]; got {list(layers)}"
            )
        self.base_width, self.stem_width, self.cardinality = base_width, stem_width, cardinality
        self.conv1, channels = self._make_stem(in_channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = len(layers)
        for stage, count in enumerate(layers):
            planes, stride = 64 << stage, 1 if stage == 0 else 2
            self.add_module(
                f"layer{stage + 1}", self._make_layer(block, channels, planes, count, stride)
            )
            channels = planes * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                deviation = math.sqrt(2 / fan_in(module.weight.shape))
                module.weight.initialise(Normal(deviation))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits

    # -- what ResNeSt does otherwise --------------------------------------------------------------

    def _make_stem(self, in_channels: int) -> tuple[nn.Module, int]:
        """The stem's convolutions, and how many channels they give."""
        return nn.Conv2d(in_channels, self.stem_width, 7, 2, 3, bias=False), self.stem_width

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
        )
        return made

    def _make_shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        """The shortcut of a block that changes the shape."""
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def _make_layer(
        self, block: type[Any], in_channels: int, planes: int, count: int, stride: int
    ) -> nn.Sequential:
        """One stage: its first block strides and changes the channels."""
        out_channels = planes * block.expansion
        changes = stride != 1 or in_channels != out_channels
        shortcut = self._make_shortcut(in_channels, out_channels, stride) if changes else None
        blocks = [self._make_block(block, in_channels, planes, stride, shortcut)]
        for _ in range(1, count):
            blocks.append(self._make_block(block, out_channels, planes, 1, None))
        return nn.Sequential(*blocks)


@register_model()
def resnet_18(**overrides: Any) -> ResNet:
    """ResNet-18."""
    return configured(ResNet, overrides, block=_BasicBlock, layers=[2, 2, 2, 2])


@register_model()
def resnet_34(**overrides: Any) -> ResNet:
    """ResNet-34."""
    return configured(ResNet, overrides, block=_BasicBlock, layers=[3, 4, 6, 3])


@register_model()
def resnet_50(**overrides: Any) -> ResNet:
    """ResNet-50, v1.5."""
    return configured(ResNet, overrides, block=_Bottleneck, layers=[3, 4, 6, 3])


@register_model()
def resnet_101(**overrides: Any) -> ResNet:
    """ResNet-101, v1.5."""
    return configured(ResNet, overrides, block=_Bottleneck, layers=[3, 4, 23, 3])


@register_model()
def resnet_152(**overrides: Any) -> ResNet:
    """ResNet-152, v1.5."""
    return configured(ResNet, overrides, block=_Bottleneck, layers=[3, 8, 36, 3])
