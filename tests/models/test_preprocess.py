"""Image files to model inputs: exact sizes, crops, colours, and files that are no images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lucid.errors import ImageError
from lucid.models import model_info
from lucid.models.preprocess import load_image, normalise

IMAGENET = model_info("resnest_50")
DIGITS = model_info("resnest_digits")


def photo(width: int, height: int) -> Image.Image:
    """A smooth colour image with noise on it."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def as_levels(loaded: np.ndarray) -> np.ndarray:
    """Undo the ImageNet normalisation: (1, 3, H, W) -> grey levels (H, W, 3)."""
    return np.moveaxis(loaded[0], 0, -1) * np.float32(IMAGENET.std) * 255 + (
        np.float32(IMAGENET.mean) * 255
    )


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (90, 100), (333, 1001)])
def test_an_imagenet_image_is_resized_then_cropped(tmp_path: Path, size: tuple[int, int]) -> None:
    image = photo(*size)
    image.save(tmp_path / "photo.png")
    loaded = load_image(tmp_path / "photo.png", IMAGENET)

    width, height = size
    scaled = (256 * width // min(size), 256 * height // min(size))
    left, top = round((scaled[0] - 224) / 2), round((scaled[1] - 224) / 2)
    expected = np.asarray(
        image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + 224, top + 224))
    )
    assert loaded.shape == (1, 3, 224, 224)
    assert loaded.dtype == np.float32
    assert loaded.flags.c_contiguous
    assert np.abs(as_levels(loaded) - expected).max() < 1.01


def test_an_image_of_the_models_size_keeps_its_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    loaded = load_image(tmp_path / "digit.png", DIGITS)
    assert loaded.shape == (1, 1, 32, 32)
    np.testing.assert_array_equal(loaded, normalise(pixels, DIGITS))


def test_normalise_takes_batches() -> None:
    pixels = np.full((5, 32, 32), 255, np.uint8)
    expected = (1 - DIGITS.mean[0]) / DIGITS.std[0]
    assert normalise(pixels, DIGITS).shape == (5, 1, 32, 32)
    np.testing.assert_allclose(normalise(pixels, DIGITS), expected, rtol=1e-6)
    assert normalise(np.zeros((2, 8, 9, 3), np.uint8), IMAGENET).shape == (2, 3, 8, 9)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_any_colour_mode_becomes_rgb_or_grey(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.tif"
    photo(300, 280).convert("RGB").convert(mode).save(path)
    assert load_image(path, IMAGENET).shape == (1, 3, 224, 224)
    assert load_image(path, DIGITS).shape == (1, 1, 32, 32)


def test_sixteen_bits_a_pixel_are_scaled(tmp_path: Path) -> None:
    levels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) // 4
    Image.fromarray(levels * np.uint16(257)).save(tmp_path / "deep.png")
    loaded = load_image(tmp_path / "deep.png", DIGITS)
    np.testing.assert_array_equal(loaded, normalise(levels.astype(np.uint8), DIGITS))


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    image = photo(256, 256)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    np.testing.assert_array_equal(
        load_image(tmp_path / "turned.png", IMAGENET),
        load_image(tmp_path / "upright.png", IMAGENET),
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 700)])
def test_odd_shapes_work(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size).save(tmp_path / "thin.png")
    assert load_image(tmp_path / "thin.png", IMAGENET).shape == (1, 3, 224, 224)
    assert load_image(tmp_path / "thin.png", DIGITS).shape == (1, 1, 32, 32)


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"absent\.png.*No such file"):
        load_image(tmp_path / "absent.png", DIGITS)
    with pytest.raises(ImageError, match="cannot read image"):
        load_image(tmp_path, DIGITS)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]
)
def test_a_file_that_is_no_image_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"cannot read image '.*broken\.png'"):
        load_image(tmp_path / "broken.png", DIGITS)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp"])
def test_a_truncated_image_is_a_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    photo(200, 200).save(path)
    whole = path.read_bytes()
    for length in (len(whole) // 4, len(whole) // 2, len(whole) * 3 // 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
            load_image(path, IMAGENET)
