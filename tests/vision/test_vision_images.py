"""Image files to model inputs: exact sizes, crops, colours, and files that are no images."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lucid.errors import ImageError, InputError
from lucid.models import model_info
from lucid.vision import IMAGENET, Preprocess, images, preprocess

DIGITS = model_info("resnest_digits").preprocess


def photo(width: int, height: int) -> Image.Image:
    """A smooth colour image with noise on it."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def expected_levels(image: Image.Image, resize: int, cut: int, how: str) -> np.ndarray:
    """Resized by the shorter side, then the centre, as torchvision does it on PIL images."""
    width, height = image.size
    shorter = min(width, height)
    scaled = (int(resize * width / shorter), int(resize * height / shorter))
    left, top = round((scaled[0] - cut) / 2.0), round((scaled[1] - cut) / 2.0)
    whole = image.resize(scaled, Image.Resampling[how.upper()])
    return np.asarray(whole.crop((left, top, left + cut, top + cut)))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (90, 100), (333, 1001)])
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_an_imagenet_image_is_resized_then_cropped(size: tuple[int, int], how: str) -> None:
    image = photo(*size)
    spec = Preprocess(interpolation=how)
    levels = expected_levels(image, 256, 224, how)
    np.testing.assert_array_equal(spec.to_uint8_nhwc(image), levels[None])
    batch = preprocess(image, spec)
    mean, std = np.float32(spec.means), np.float32(spec.stds)
    wanted = np.moveaxis((levels.astype(np.float32) / np.float32(255) - mean) / std, 2, 0)
    np.testing.assert_array_equal(batch, wanted[None])
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous


def test_an_image_of_the_models_size_keeps_its_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    np.testing.assert_array_equal(
        preprocess(tmp_path / "digit.png", DIGITS), DIGITS.normalise(pixels[None, ..., None])
    )


def test_paths_pil_images_arrays_and_lists_of_them(tmp_path: Path) -> None:
    image = photo(300, 280)
    image.save(tmp_path / "photo.png")
    array = np.asarray(image)
    one = preprocess(image)
    for source in (str(tmp_path / "photo.png"), tmp_path / "photo.png", array, array[None]):
        np.testing.assert_array_equal(preprocess(source), one)
    many = preprocess([tmp_path / "photo.png", image, array])
    np.testing.assert_array_equal(many, np.concatenate([one] * 3))
    np.testing.assert_array_equal(preprocess(np.stack([array, array])), many[:2])
    assert preprocess(array[..., 0]).shape == (1, 3, 224, 224)  # grey for a network of colours
    assert preprocess(array[..., :1], DIGITS).shape == (1, 1, 32, 32)


def test_bytes_and_file_objects(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (300, 260), "green").save(path)
    expected = preprocess(path)
    data = path.read_bytes()
    with path.open("rb") as file:
        for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), file):
            np.testing.assert_array_equal(preprocess(source), expected)
        assert not file.closed
    assert preprocess([data, path]).shape == (2, 3, 224, 224)
    for source in (data[:80], b"no image", io.BytesIO(b""), io.StringIO("text")):
        with pytest.raises(ImageError, match="image 0"):
            preprocess(source)


def test_channels_in_the_other_order() -> None:
    image = photo(256, 256)
    bgr = preprocess(image, Preprocess(mean=0, std=1, order="bgr"))
    rgb = preprocess(image, Preprocess(mean=0, std=1))
    np.testing.assert_array_equal(bgr, rgb[:, ::-1])


def test_a_crop_larger_than_the_image_is_padded_with_black() -> None:
    image = Image.new("RGB", (40, 30), "white")
    levels = Preprocess(size=(33, 50), resize=30).to_uint8_nhwc(image)[0]
    assert levels.shape == (33, 50, 3)
    white = np.zeros((33, 50, 3), np.uint8)
    white[1:31, 5:45] = 255
    np.testing.assert_array_equal(levels, white)


def test_exact_sizes_and_no_crop() -> None:
    image = photo(100, 60)
    exact = np.asarray(image.resize((70, 50), Image.Resampling.BILINEAR))
    spec = Preprocess(size=None, resize=(50, 70))
    np.testing.assert_array_equal(spec.to_uint8_nhwc(image)[0], exact)
    assert Preprocess(size=None, resize=30).to_uint8_nhwc(image).shape == (1, 30, 50, 3)
    assert Preprocess(size=None).to_uint8_nhwc(image).shape == (1, 60, 100, 3)
    assert Preprocess(size=(64, 32)).to_uint8_nhwc(image).shape == (1, 64, 32, 3)
    with pytest.raises(ImageError, match=r"image 0 becomes 30x50 and image 1 30x30.*one size"):
        preprocess([image, photo(60, 60)], Preprocess(size=None, resize=30))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_any_colour_mode_becomes_rgb_or_grey(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.tif"
    photo(300, 280).convert("RGB").convert(mode).save(path)
    assert preprocess(path).shape == (1, 3, 224, 224)
    assert preprocess(path, DIGITS).shape == (1, 1, 32, 32)


def test_alpha_and_a_transparent_colour_are_dropped(tmp_path: Path) -> None:
    image = photo(256, 256)
    for name, made in (("a.png", image.convert("RGBA")), ("p.png", image.quantize(16))):
        made.putalpha(10) if name == "a.png" else None
        made.save(tmp_path / name, **({"transparency": 3} if name == "p.png" else {}))
        np.testing.assert_array_equal(
            preprocess(tmp_path / name), preprocess(made.convert("RGBA").convert("RGB"))
        )


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [photo(256, 256).quantize(8), Image.new("P", (256, 256))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(
        preprocess(tmp_path / "moving.gif"), preprocess(frames[0].convert("RGB"))
    )


def test_sixteen_bits_a_pixel_are_scaled(tmp_path: Path) -> None:
    levels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) // 4
    Image.fromarray(levels * np.uint16(257)).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(
        DIGITS.to_uint8_nhwc(tmp_path / "deep.png")[0, ..., 0], levels.astype(np.uint8)
    )
    wide = levels.astype(np.int32) * 257
    wide[0, 0], wide[0, 1] = -5, 1 << 20
    levels[0, 0], levels[0, 1] = 0, 255
    np.testing.assert_array_equal(
        DIGITS.to_uint8_nhwc(Image.fromarray(wide))[0, ..., 0], levels.astype(np.uint8)
    )


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    image = photo(256, 256)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        preprocess(tmp_path / "turned.png"), preprocess(image.transpose(Image.Transpose.ROTATE_270))
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 700)])
def test_odd_shapes_work(size: tuple[int, int]) -> None:
    assert preprocess(Image.new("L", size)).shape == (1, 3, 224, 224)
    assert preprocess(Image.new("L", size), DIGITS).shape == (1, 1, 32, 32)


def test_of_a_long_thin_image_only_the_centre_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo(800, 40)
    whole = IMAGENET.to_uint8_nhwc(image).astype(int)
    monkeypatch.setattr(images, "LARGEST", 1 << 18)
    assert np.abs(whole - IMAGENET.to_uint8_nhwc(image)).max() <= 1
    with pytest.raises(ImageError, match="would become 256x5120 pixels"):
        preprocess(image, Preprocess(size=None, resize=256))


# -- what is no image -----------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"absent\.png.*No such file"):
        preprocess(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="cannot read image"):
        preprocess(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]
)
def test_a_file_that_is_no_image_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"cannot read image '.*broken\.png'"):
        preprocess([photo(9, 9), tmp_path / "broken.png"])


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp"])
def test_a_truncated_image_is_a_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    photo(200, 200).save(path)
    whole = path.read_bytes()
    for length in (len(whole) // 4, len(whole) // 2, len(whole) * 3 // 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
            preprocess(path)


def test_a_decompression_bomb_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(300, 200).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    with pytest.raises(ImageError, match=r"bomb\.png.*more than 40,000 pixels"):
        preprocess(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.uint8(3),
        7,
        None,
        [],
    ],
)
def test_what_is_no_image(source: object) -> None:
    with pytest.raises(ImageError, match=r"not an image|no images"):
        preprocess(source)


def test_floating_pixels(tmp_path: Path) -> None:
    Image.new("F", (8, 8)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match=r"f\.tif.*floating-point"):
        preprocess(tmp_path / "f.tif")


def test_only_levels_are_normalised() -> None:
    with pytest.raises(InputError, match=r"uint8\[N,H,W,3\], got float32\[1,8,8,3\]"):
        IMAGENET.normalise(np.zeros((1, 8, 8, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"got uint8\[1,3,8,8\]"):
        IMAGENET.normalise(np.zeros((1, 3, 8, 8), np.uint8))
