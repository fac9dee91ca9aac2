"""Images in: from a file to what a network expects, as torchvision and timm have it.

batch = lucid.vision.preprocess("cat.jpg")  # float32 (1, 3, 224, 224), ImageNet's way
batch = lucid.vision.preprocess(paths, lucid.vision.Preprocess.of(timm_model))
"""

from lucid.vision.images import preprocess
from lucid.vision.spec import IMAGENET, IMAGENET_MEAN, IMAGENET_STD, Preprocess

__all__ = ["IMAGENET", "IMAGENET_MEAN", "IMAGENET_STD", "Preprocess", "preprocess"]
