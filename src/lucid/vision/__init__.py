"""Preprocessing: from an image file to the input of a network, as torchvision and timm define it.

batch = lucid.vision.preprocess("cat.jpg")  # float32 (1, 3, 224, 224), ImageNet's way
batch = lucid.vision.preprocess(paths, timm_model)  # as that model's configuration says
batch = lucid.vision.preprocess(request.read(), compiled)  # bytes, for a compiled model
"""

from lucid.vision.imagenet import IMAGENET_MEAN, IMAGENET_STD
from lucid.vision.spec import IMAGENET, Preprocess, preprocess

__all__ = ["IMAGENET", "IMAGENET_MEAN", "IMAGENET_STD", "Preprocess", "preprocess"]
