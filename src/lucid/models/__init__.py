"""The registered networks: ResNet, ResNeSt, a small trained one, and their registry."""

from lucid.models.digits import resnest_digits
from lucid.models.registry import (
    ModelInfo,
    create_model,
    list_models,
    model_info,
    register_model,
)
from lucid.models.resnest import (
    ResNeSt,
    resnest_14,
    resnest_26,
    resnest_50,
    resnest_50_1s4x24d,
    resnest_50_4s2x40d,
    resnest_50_fast_1s1x64d,
    resnest_50_fast_1s2x40d,
    resnest_50_fast_2s1x64d,
    resnest_50_fast_2s2x40d,
    resnest_50_fast_4s1x64d,
    resnest_101,
    resnest_200,
    resnest_269,
)
from lucid.models.resnet import (
    ResNet,
    resnet_18,
    resnet_34,
    resnet_50,
    resnet_101,
    resnet_152,
)

__all__ = [
    "ModelInfo",
    "ResNeSt",
    "ResNet",
    "create_model",
    "list_models",
    "model_info",
    "register_model",
    "resnest_14",
    "resnest_26",
    "resnest_50",
    "resnest_50_1s4x24d",
    "resnest_50_4s2x40d",
    "resnest_50_fast_1s1x64d",
    "resnest_50_fast_1s2x40d",
    "resnest_50_fast_2s1x64d",
    "resnest_50_fast_2s2x40d",
    "resnest_50_fast_4s1x64d",
    "resnest_101",
    "resnest_200",
    "resnest_269",
    "resnest_digits",
    "resnet_18",
    "resnet_34",
    "resnet_50",
    "resnet_101",
    "resnet_152",
]
