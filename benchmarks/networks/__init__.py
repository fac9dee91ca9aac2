"""The networks that Lucid is measured on: 55 that people serve, as timm and torchvision build them.

A fixed list: a network that fails stays in it, and is named in the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Network:
    """`library`: timm, or torchvision where only that has it. `size`: of its square images, what
    its authors trained it with. `family`: what it is built of. `options`: for its constructor."""

    name: str
    library: str
    size: int
    family: str
    options: dict[str, object] = field(default_factory=dict)


def _timm(family: str, names: str, size: int = 224) -> list[Network]:
    return [Network(name, "timm", size, family) for name in names.split()]


def _torchvision(family: str, names: str, size: int = 224, **options: object) -> list[Network]:
    return [Network(name, "torchvision", size, family, options) for name in names.split()]


NETWORKS = {
    network.name: network
    for network in [
        *_torchvision("plain", "alexnet"),
        *_timm("plain", "vgg16_bn"),
        *_torchvision("fire", "squeezenet1_1"),
        *_torchvision("inception", "googlenet", aux_logits=False, init_weights=False),
        *_timm("inception", "inception_v3", 299),
        *_timm("dense", "densenet121"),
        *_timm("residual", "resnet18 resnet50 resnext50_32x4d wide_resnet50_2"),
        *_timm("residual, attention", "seresnet50 ecaresnet50d skresnet34 resnest50d"),
        *_timm("residual", "res2net50_26w_4s resnetv2_50"),
        *_timm("residual", "nf_resnet50", 256),
        *_timm("reparameterised", "repvgg_b0"),
        *_timm("regular", "regnetx_016 regnety_016"),
        *_timm("mobile", "mobilenetv2_100 mobilenetv3_large_100 mobilenetv4_conv_small"),
        *_timm("mobile", "mnasnet_100"),
        *_torchvision("mobile", "shufflenet_v2_x1_0"),
        *_timm("mobile", "ghostnet_100"),
        *_timm("mobile", "efficientnet_b0"),
        *_timm("mobile", "efficientnet_b3 efficientnetv2_rw_s", 288),
        *_timm("mobile", "tf_efficientnet_lite0"),
        *_timm("modern", "convnext_tiny convnextv2_atto inception_next_tiny"),
        *_timm("aggregation", "dla34 hrnet_w18 vovnet39a"),
        *_timm("darknet", "cspresnet50 cspdarknet53 darknet53", 256),
        *_timm("mobile", "hardcorenas_a rexnet_100 fbnetc_100"),
        *_timm("separable", "xception41", 299),
        *_timm("residual, attention", "tresnet_m"),
        *_timm("dense", "dpn68"),
        *_timm("mobile", "mixnet_s"),
        *_torchvision(
            "segmentation",
            "fcn_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large",
            520,
            weights_backbone=None,
        ),
        *_timm("reparameterised", "mobileone_s0"),
        *_timm("modern", "starnet_s1"),
        *_timm("hybrid", "edgenext_small fastvit_t8", 256),
        *_timm("hybrid", "poolformer_s12 coatnet_0_rw_224"),
    ]
}
