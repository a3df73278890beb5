"""Images: invariants.

* A scaled decode shows what the full decode shows, and never has fewer pixels than the target.
* Every EXIF orientation, in every format and through every way of cropping, gives the upright picture.
* The crop depends on the generator and the picture's size alone, not on how the file is decoded.
* The fixed transform is the same every time and equals what Pillow and CLIP's processor compute.
* Whatever Pillow calls an image is read; whatever cannot be read in full is one MediaError with its name.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geobind.errors import GeoBindError, MediaError
from geobind.media import pictures
from geobind.media.images import Augment, ImageTransform, image_size, load_image

ORIENTATION = 0x0112
# How a camera stores what is upright, by EXIF orientation (written with Pillow's own operations).
TO_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def scene(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth picture without symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind in ("JPEG", "MPO") else {}) | options)
    return file.getvalue()


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference in grey levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


TRANSFORM = ImageTransform(32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), augment=Augment(overhead=True))

# --- scaled decoding ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    target=st.integers(1, 300),
    orientation=st.integers(1, 8),
    data=st.data(),
)
def test_never_fewer_pixels_than_the_target(
    height: int, width: int, target: int, orientation: int, data: st.DataObject
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    jpeg = encoded(scene(height, width), exif=exif)
    full = image_size(jpeg)
    top, left = data.draw(st.integers(0, full[0] - 1)), data.draw(st.integers(0, full[1] - 1))
    tall, wide = data.draw(st.integers(1, full[0] - top)), data.draw(st.integers(1, full[1] - left))
    for region, sides in ((None, full), ((top, left, tall, wide), (tall, wide))):
        got = load_image(jpeg, region=region, target=target).shape[:2]
        assert all(g <= s for g, s in zip(got, sides, strict=True))
        assert min(got) >= min(target, *sides)


@pytest.mark.parametrize(("height", "width"), [(800, 800), (601, 997), (450, 1200)])
@pytest.mark.parametrize("target", [64, 100, 224])
def test_scaled_decode_equals_full_decode(height: int, width: int, target: int) -> None:
    jpeg = encoded(scene(height, width))
    full = load_image(jpeg)
    assert full.shape == (height, width, 3)
    assert load_image(jpeg, target=target).shape[0] < height
    for fit in ("squash", "crop"):
        transform = ImageTransform(target, (0, 0, 0), (1 / 255,) * 3, fit=fit)
        assert apart(transform(jpeg).numpy(), transform(full).numpy()) < 0.7


def test_scaled_decode_of_photographs(sample: Path) -> None:
    for path in sorted((sample / "image").rglob("*.jpg"))[::150]:
        with Image.open(path) as image:
            jpeg = encoded(image.convert("RGB").resize((900, 800), Image.Resampling.BICUBIC), quality=90)
        scaled = ImageTransform(224, (0, 0, 0), (1 / 255,) * 3)(jpeg)
        full = ImageTransform(224, (0, 0, 0), (1 / 255,) * 3)(load_image(jpeg))
        assert apart(scaled.numpy(), full.numpy()) < 2


def test_full_decode_equals_pillow() -> None:
    jpeg = encoded(scene(123, 77))
    assert apart(load_image(jpeg), np.asarray(Image.open(io.BytesIO(jpeg)))) < 0.5


# --- EXIF --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "PIL"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_gives_the_upright_picture(kind: str, orientation: int) -> None:
    upright = scene(240, 160)
    turn = TO_STORED[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = upright if turn is None else upright.transpose(turn)
    data = encoded(stored, "PNG" if kind == "PIL" else kind, exif=exif, **options)
    value = Image.open(io.BytesIO(data)) if kind == "PIL" else data

    want = np.asarray(upright)
    assert image_size(value) == (240, 160)
    assert apart(load_image(value), want) < 2
    assert apart(load_image(value, region=(30, 20, 80, 100)), want[30:110, 20:120]) < 2
    scaled = load_image(value, region=(40, 16, 160, 80), target=20)
    again = np.asarray(Image.fromarray(want[40:200, 16:96]).resize(scaled.shape[1::-1], Image.Resampling.BOX))
    assert apart(scaled, again) < 2.5
    assert apart(load_image(value), want) < 2  # a PIL image is left as it was


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_ignored() -> None:
    for exif in (
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0nonsense",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0",
    ):
        assert load_image(encoded(scene(20, 30), exif=exif)).shape == (20, 30, 3)
    exif99 = Image.Exif()
    exif99[ORIENTATION] = 99
    assert load_image(encoded(scene(20, 30), exif=exif99)).shape == (20, 30, 3)


# --- regions -----------------------------------------------------------------------------------------------


def test_region_outside_names_the_picture() -> None:
    with pytest.raises(MediaError, match=r"20x30.*\(10, 0, 20, 5\)"):
        load_image(encoded(scene(20, 30)), region=(10, 0, 20, 5))


def test_crop_is_unaffected_by_decoding() -> None:
    """The same generator crops the same part of the JPEG (scaled) and of its pixels (never scaled)."""
    jpeg = encoded(scene(640, 800))
    pixels = load_image(jpeg)
    differences = [
        (TRANSFORM(jpeg, np.random.default_rng(seed)) - TRANSFORM(pixels, np.random.default_rng(seed)))
        .abs()
        .mean()
        for seed in range(40)
    ]
    # In units of `std`; the crop's corner is rounded to a decoded pixel. Another crop differs by about 1.
    assert max(differences) < 0.15
    assert sum(differences) / 40 < 0.04


def test_decoding_scale_follows_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop of the target's size is decoded in full, though the whole picture would not be."""
    heights = []
    decode = pictures.simplejpeg.decode_jpeg

    def spy(*args: Any, **options: Any) -> np.ndarray:
        heights.append(decode(*args, **options).shape[0])
        return decode(*args, **options)

    monkeypatch.setattr(pictures.simplejpeg, "decode_jpeg", spy)
    jpeg = encoded(scene(800, 800))
    load_image(jpeg, target=100)
    load_image(jpeg, region=(0, 0, 200, 300), target=100)
    load_image(jpeg, region=(0, 0, 100, 300), target=100)
    assert heights == [100, 400, 800]


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 2000), width=st.integers(1, 2000), seed=st.integers(0, 2**32 - 1))
def test_random_region_is_inside_and_of_the_asked_share(height: int, width: int, seed: int) -> None:
    augment = Augment(scale=(0.3, 0.6), ratio=(0.5, 2.0))
    top, left, tall, wide = augment.region(height, width, np.random.default_rng(seed))
    assert top >= 0 <= left
    assert tall >= 1 <= wide
    assert top + tall <= height
    assert left + wide <= width
    if min(height, width) >= 100 and 1 / 1.5 < height / width < 1.5:
        assert 0.28 < tall * wide / (height * width) < 0.62
        assert 0.48 < wide / tall < 2.1


# --- the transform -----------------------------------------------------------------------------------------


def test_fixed_transform_is_deterministic_and_equal_whatever_the_value(tmp_path: Path) -> None:
    image = scene(50, 70)
    path = tmp_path / "tile.png"
    image.save(path)
    first = TRANSFORM(path)
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.float32
    assert first.is_contiguous()
    for value in (str(path), path.read_bytes(), image, np.asarray(image), path):
        assert torch.equal(TRANSFORM(value), first)


@pytest.mark.parametrize(("height", "width"), [(300, 200), (200, 301), (20, 20), (10, 300), (32, 32)])
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_fixed_transform_equals_pillow(height: int, width: int, fit: Any) -> None:
    image = scene(height, width)
    ours = ImageTransform(32, (0, 0, 0), (1 / 255,) * 3, fit=fit)(image)
    if fit == "squash":
        tall = wide = 32
    else:
        tall, wide = int(32 * height / min(height, width)), int(32 * width / min(height, width))
    pillow = np.asarray(image.resize((wide, tall), Image.Resampling.BICUBIC)).astype(float)
    top, left = (tall - 32) // 2, (wide - 32) // 2
    assert np.abs(ours.numpy().transpose(1, 2, 0) - pillow[top : top + 32, left : left + 32]).max() < 1.01


@pytest.mark.parametrize("shape", [(300, 200), (121, 500), (64, 64)])
def test_crop_equals_the_processor_of_clip(shape: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = scene(*shape)
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    ours = ImageTransform(48, tuple(theirs.image_mean), tuple(theirs.image_std), fit="crop")
    want = theirs(image, return_tensors="pt")["pixel_values"][0]
    assert (ours(image) - want).abs().max() < 1.01 / 255 / min(theirs.image_std)


def test_augmentation_depends_only_on_the_generator() -> None:
    jpeg = encoded(scene(200, 300))
    a, b, c = (TRANSFORM(jpeg, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == (3, 32, 32)
    assert a.is_contiguous()


def test_generator_without_augment_is_the_fixed_transform() -> None:
    plain = dataclasses.replace(TRANSFORM, augment=None)
    assert torch.equal(plain(scene(40, 40), np.random.default_rng(0)), plain(scene(40, 40)))


@pytest.mark.parametrize(
    ("flip", "overhead", "ways"), [(False, False, 1), (True, False, 2), (False, True, 4), (True, True, 8)]
)
def test_orientations_are_drawn_evenly(flip: bool, overhead: bool, ways: int) -> None:
    square = torch.arange(9.0).view(1, 3, 3)
    rng = np.random.default_rng(0)
    augment = Augment(flip=flip, overhead=overhead)
    drawn = [tuple(augment.orient(square, rng).flatten().tolist()) for _ in range(800)]
    counts = [drawn.count(one) for one in set(drawn)]
    assert len(counts) == ways
    assert min(counts) > 0.7 * 800 / ways


def test_settings_build_an_equal_transform_and_it_pickles() -> None:
    again = ImageTransform(**json.loads(json.dumps(TRANSFORM.settings())))
    assert again == TRANSFORM
    assert hash(again) == hash(TRANSFORM)
    copy = pickle.loads(pickle.dumps(TRANSFORM))
    assert torch.equal(
        copy(scene(40, 50), np.random.default_rng(3)), TRANSFORM(scene(40, 50), np.random.default_rng(3))
    )


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"size": 0}, "size = 0"),
        ({"std": (1, 1, 0)}, "std"),
        ({"mean": (1, 1)}, "mean"),
        ({"fit": "pad"}, "'pad'"),
        ({"augment": {"scales": (0.1, 1)}}, "scale, ratio, flip, overhead, num_ops, magnitude"),
        ({"augment": {"scale": (0, 1)}}, "scale"),
        ({"augment": {"ratio": (2, 1)}}, "ratio"),
        ({"augment": {"num_ops": -1}}, "num_ops = -1"),
        ({"augment": {"magnitude": 31}}, "magnitude = 31"),
    ],
)
def test_wrong_options_are_named(change: dict[str, Any], names: str) -> None:
    with pytest.raises(GeoBindError, match=names) as caught:
        ImageTransform(**{**TRANSFORM.settings(), **change})
    assert "\n" not in str(caught.value)


# --- formats -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "1", "LA", "RGBA", "P", "PA"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "PIL"])
def test_every_mode_is_read_as_rgb(mode: str, kind: str) -> None:
    image = scene(30, 40).convert("L").convert(mode)
    grey = np.asarray(image.convert("RGB"))
    if kind == "PIL":
        value: Any = image
    else:
        try:
            value = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
        except (OSError, ValueError, KeyError):
            pytest.skip(f"{kind} does not hold {mode}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = load_image(value)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert apart(got, grey) < 4


def test_transparency_is_dropped() -> None:
    image = scene(30, 40)
    clear = image.copy()
    clear.putalpha(0)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert np.array_equal(load_image(encoded(clear, kind, **options)), np.asarray(image))
    palette = image.quantize(16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = load_image(encoded(palette, "PNG", transparency=bytes(range(16))))
    assert np.array_equal(got, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_full_range(kind: str) -> None:
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert load_image(encoded(Image.fromarray(deep), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floats_are_refused_as_a_picture() -> None:
    with pytest.raises(MediaError, match="32-bit values"):
        load_image(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


def test_arrays() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert image_size(grey) == (3, 4)
    assert np.array_equal(load_image(grey), np.stack([grey] * 3, axis=-1))
    rgb = np.asarray(scene(5, 6))
    assert np.array_equal(load_image(rgb, region=(1, 2, 3, 4)), rgb[1:4, 2:6])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TRANSFORM(rgb)  # read-only
        assert torch.equal(TRANSFORM(rgb[::-1, :, ::-1]), TRANSFORM(rgb[::-1, :, ::-1].copy()))


def test_sample(sample: Path) -> None:
    for path in sorted((sample / "satellite").rglob("*.jpg"))[::300]:
        assert image_size(path) == (150, 150)
        assert load_image(path).shape == (150, 150, 3)
    for path in sorted((sample / "image").rglob("*.jpg"))[::100]:
        assert load_image(path).shape == (*image_size(path), 3)


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated(kind: str, share: float, tmp_path: Path) -> None:
    whole = encoded(scene(200, 200), kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    path = tmp_path / f"tile.{kind.lower()}"
    path.write_bytes(whole[: int(len(whole) * share)])
    for read in (load_image, TRANSFORM):
        with pytest.raises(MediaError) as caught:
            read(path)
        message = str(caught.value)
        assert str(path) in message
        assert "remove its row" in message
        assert "\n" not in message


def test_corrupt_jpeg_data() -> None:
    jpeg = bytearray(encoded(scene(200, 200)))
    middle = len(jpeg) // 2
    jpeg[middle : middle + 40] = b"\xff\xd5" * 20
    with pytest.raises(MediaError, match=f"of {len(jpeg)} bytes"):
        load_image(bytes(jpeg))


def test_harmless_extra_bytes_in_a_jpeg_are_passed_over() -> None:
    """Some cameras and editors leave bytes between segments; libjpeg warns, nothing is lost."""
    jpeg = encoded(scene(64, 64))
    start = jpeg.index(b"\xff\xda")  # start of scan
    extra = jpeg[:start] + b"\0\0\0" + jpeg[start:]
    assert apart(load_image(extra), load_image(jpeg)) < 0.5
    with pytest.raises(MediaError):
        load_image(extra[: int(len(extra) * 0.8)])
    assert np.array_equal(load_image(jpeg + b"trailing"), load_image(jpeg))


def test_missing_empty_and_wrong_values(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    text = tmp_path / "text.jpg"
    text.write_text("<html>404</html>")
    cases: list[tuple[Any, str]] = [
        (tmp_path / "no.jpg", r"no\.jpg does not exist: check the path"),
        (text / "below.jpg", "does not exist"),
        (str(empty), r"empty\.jpg is empty"),
        (b"", "of 0 bytes is empty"),
        (text, r"text\.jpg cannot be decoded \(no known image format\)"),
        (tmp_path, "cannot be opened"),
        ("a\0b", "cannot be opened"),
        (None, "None: give a path"),
        (float("nan"), "nan: give a path"),
        (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
    ]
    for value, message in cases:
        for read in (load_image, image_size, TRANSFORM):
            with pytest.raises(MediaError, match=message) as caught:
                read(value)
            assert "\n" not in str(caught.value)


def test_decompression_bomb_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(MediaError, match="cannot be decoded"):
        load_image(encoded(scene(100, 100)))


@pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="a file that fails when it is read is Linux's"
)
def test_a_disk_that_fails_is_one_line() -> None:
    """So that a worker of a loader outlives it, and the row is replaced."""
    with pytest.raises(MediaError, match=r"image /proc/self/mem cannot be read \(Input/output error\)"):
        load_image("/proc/self/mem")
