"""The numbers that classifiers of ImageNet are trained with."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_FRACTION = 0.875
"""The part of the resized image's side that is kept: 224 of 256."""
