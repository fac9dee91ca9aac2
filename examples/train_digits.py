"""Train `resnest_digits`, the small ResNeSt that ships with Lucid, on handwritten digits.

    pip install torch scikit-learn pillow safetensors
    python examples/train_digits.py

The network is a torch twin of `lucid.models.ResNeSt` with two stages: the same graph, the same
state-dict keys. The data are the 1,797 digits (8x8, 17 grey levels) that scikit-learn ships. A
digit becomes an 8-bit 32x32 image first, and everything after that, in training as in Lucid,
starts from those bytes, so that a PNG file and a training sample are the same thing.

Writes, below the project's root:
    src/lucid/models/data/resnest_digits.safetensors   the weights, float32
    tests/data/digits_heldout.npz                  held-out images, labels, and torch's answers
    examples/digits/LABEL_COPY.png                 twelve of the held-out images
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
SIZE = 32
MEAN, STD = 0.3, 0.4
EPOCHS, BATCH, PEAK_RATE = 40, 64, 4e-3


# The network: lucid.models.ResNeSt(_ResNeStBottleneck, [1, 1], num_classes=10, base_width=32,
# stem_width=32, in_channels=1), cardinality 1, radix 2, avd.


class SplitAttention(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): `radix` feature groups, weighted by a softmax over them."""

    def __init__(self, channels: int, radix: int) -> None:
        super().__init__()
        self.radix = radix
        inner = max(channels * radix // 4, 32)
        self.conv = nn.Conv2d(channels, channels * radix, 3, padding=1, groups=radix, bias=False)
        self.bn0 = nn.BatchNorm2d(channels * radix)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.fc2 = nn.Conv2d(inner, channels * radix, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.conv(x)))
        splits = x.reshape(x.shape[0], self.radix, -1, *x.shape[2:])
        pooled = splits.sum(1).mean((2, 3), keepdim=True)
        logits = self.fc2(F.relu(self.bn1(self.fc1(pooled))))
        weights = logits.reshape(x.shape[0], self.radix, -1, 1, 1).softmax(1)
        return (splits * weights).sum(1)


class Bottleneck(nn.Module):
    """1x1, split attention, average pool where strided, 1x1; four times `planes` channels out."""

    def __init__(self, inputs: int, planes: int, stride: int, base_width: int, radix: int) -> None:
        super().__init__()
        width, outputs = planes * base_width // 64, 4 * planes
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = SplitAttention(width, radix)
        self.avd = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(
            nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.avd(self.conv2(y))))
        return F.relu(y + self.downsample(x))


class ResNeSt(nn.Module):
    """(N, 1, 32, 32) -> (N, 10): the deep stem, two stages of one block, and the classifier."""

    def __init__(self, stem_width: int = 32, base_width: int = 32, radix: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, stem_width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(),
            nn.Conv2d(stem_width, stem_width, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(),
            nn.Conv2d(stem_width, 2 * stem_width, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(2 * stem_width)
        self.layer1 = nn.Sequential(Bottleneck(2 * stem_width, 64, 1, base_width, radix))
        self.layer2 = nn.Sequential(Bottleneck(256, 128, 2, base_width, radix))
        self.fc = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        x = self.layer2(self.layer1(x))
        return self.fc(x.mean((2, 3)))


# The data


def as_pixels(digit: np.ndarray) -> np.ndarray:
    """One 8x8 digit with values 0..16 -> the (32, 32) uint8 image that a PNG file would hold."""
    grey = np.rint(digit * (255 / 16)).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def normalise(scaled: Tensor) -> Tensor:
    """Grey levels in 0..1 -> what the network sees."""
    return (scaled - MEAN) / STD


def scaled(pixels: np.ndarray) -> Tensor:
    """uint8 (N, 32, 32) -> float32 (N, 1, 32, 32) in 0..1."""
    return torch.from_numpy(pixels).float()[:, None] / 255


def augment(images: Tensor) -> Tensor:
    """A small random rotation, scaling, shear and shift of each image; black (zero) outside."""
    count = len(images)

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(count) - 1) * limit

    angle, scale, shear = uniform(0.2), 1 + uniform(0.12), uniform(0.15)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([cos, shear - sin, uniform(0.12), sin, cos, uniform(0.12)], dim=1).reshape(
        count, 2, 3
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


# Training


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """One cycle of AdamW over `EPOCHS` epochs; the held-out digits play no part in it."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    steps = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=PEAK_RATE, epochs=EPOCHS, steps_per_epoch=steps
    )
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.randperm(len(images)).split(BATCH):
            logits = model(normalise(augment(images[chosen])))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(chosen)
        print(f"epoch {epoch + 1:2}/{EPOCHS}  loss {total / len(images):.4f}", flush=True)
    model.eval()


def write(model: nn.Module, pixels: np.ndarray, labels: np.ndarray, logits: Tensor) -> None:
    """The weights, the held-out set with torch's answers, and twelve held-out digits as PNG."""
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    (ROOT / "src/lucid/models/data/resnest_digits.safetensors").write_bytes(save(state))
    np.savez_compressed(
        ROOT / "tests/data/digits_heldout.npz",
        images=pixels,
        labels=labels.astype(np.uint8),
        predicted=logits.argmax(1).numpy().astype(np.uint8),
        logits=logits.numpy(),
    )
    for index in range(12):
        copy, label = divmod(index, 10)
        image = Image.fromarray(pixels[np.flatnonzero(labels == label)[copy]])
        image.save(ROOT / f"examples/digits/{label}_{copy}.png")


@torch.no_grad()
def main() -> None:
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)

    digits = load_digits()
    pixels = np.stack([as_pixels(digit) for digit in digits.images])
    train_pixels, test_pixels, train_labels, test_labels = train_test_split(
        pixels, digits.target, test_size=0.25, stratify=digits.target, random_state=SEED
    )
    model = ResNeSt()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    with torch.enable_grad():
        train(model, scaled(train_pixels), torch.from_numpy(train_labels))

    inputs = normalise(scaled(test_pixels))
    predicted = model(inputs).argmax(1)
    reference = ResNeSt().double().eval()
    reference.load_state_dict(model.state_dict())
    logits = reference(inputs.double())
    if not torch.equal(predicted, logits.argmax(1)):
        raise SystemExit("float32 and float64 predict different classes: train anew")

    right = int((predicted.numpy() == test_labels).sum())
    print(f"held-out accuracy {right}/{len(test_labels)} = {right / len(test_labels):.2%}")
    write(model, test_pixels, test_labels, logits)


if __name__ == "__main__":
    main()
