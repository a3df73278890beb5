"""Rasters: invariants.

* Bands are what the file holds: every channel, every value, in its order; declared nodata becomes NaN.
* The transform normalises each channel by its own mean and deviation; missing pixels end as 0.
* The fixed transform is the same every time; the augmented one depends on the generator alone.
* With rasterio or without, a TIFF gives the same bands, or without it one line that says to install it.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from geobind.errors import GeoBindError, MediaError
from geobind.media.images import Augment
from geobind.media.rasters import BandTransform, load_bands

TRANSFORM = BandTransform(16, mean=(100.0, 2000.0), std=(10.0, 500.0), augment=Augment(overhead=True))


@pytest.fixture
def without_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bands(channels: int = 2, height: int = 20, width: int = 30, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, (channels, height, width)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", "bool", ">u2"])
@pytest.mark.parametrize("channels", [1, 2, 13])
def test_arrays_and_npy_keep_every_value(dtype: str, channels: int, tmp_path: Path) -> None:
    array = bands(channels, dtype=dtype)
    path = tmp_path / "patch.npy"
    np.save(path, array)
    for value in (array, path, str(path), path.read_bytes()):
        got = load_bands(value)
        assert got.dtype == np.float32
        assert got.flags.c_contiguous
        assert np.array_equal(got, array.astype(np.float32))
    got[:] = -1
    assert array.min() >= 0  # the caller's array is not touched
    assert np.array_equal(load_bands(array[0]), array[:1].astype(np.float32))


@pytest.mark.usefixtures("without_rasterio")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_tiff_of_one_channel_needs_no_rasterio(dtype: str) -> None:
    array = bands(1, dtype=dtype)
    assert np.array_equal(load_bands(encoded(Image.fromarray(array[0]), "TIFF")), array.astype(np.float32))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1"])
def test_channels_of_images_are_kept(kind: str, mode: str) -> None:
    image = Image.fromarray(bands(3, dtype="uint8").transpose(1, 2, 0)).convert(mode)
    want = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    if mode == "1" and kind == "TIFF":
        pytest.skip("1-bit TIFF: GDAL gives 0..1, Pillow bool, the same numbers")
    assert np.array_equal(load_bands(encoded(image, kind)), want.astype(np.float32))


def test_sixteen_bit_png_and_palette() -> None:
    deep = bands(1)[0] * 260
    assert np.array_equal(load_bands(encoded(Image.fromarray(deep), "PNG"))[0], deep.astype(np.float32))
    palette = Image.fromarray(bands(3, dtype="uint8").transpose(1, 2, 0)).quantize(8)
    want = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(load_bands(encoded(palette, "PNG")), want.astype(np.float32))


def test_png_of_16_bit_colours_is_refused() -> None:
    """Pillow would give the high bytes alone (and cannot write such a file)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = chunk(b"IHDR", (2).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0]))
    rows = chunk(b"IDAT", zlib.compress((b"\0" + bytes(12)) * 2))
    data = b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    with pytest.raises(MediaError, match="save it as TIFF"):
        load_bands(data)


@pytest.mark.usefixtures("without_rasterio")
def test_declared_nodata_is_nan_without_rasterio() -> None:
    array = bands(1, dtype="float32")
    array[0, :5] = -9999
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[42113] = "-9999"
    got = load_bands(encoded(Image.fromarray(array[0]), "TIFF", tiffinfo=tags))
    assert np.isnan(got[0, :5]).all()
    assert np.array_equal(got[0, 5:], array[0, 5:])


def written(tmp_path: Path, array: np.ndarray, **options: Any) -> Path:
    rasterio = pytest.importorskip(
        "rasterio", reason='rasterio is not installed (pip install "geobind[geo]")'
    )
    path = tmp_path / "scene.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count, height, width = array.shape
        profile = {"count": count, "height": height, "width": width, "dtype": array.dtype, **options}
        with rasterio.open(path, "w", driver="GTiff", **profile) as dataset:
            dataset.write(array)
    return path


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint16"), (2, "float32"), (13, "uint16"), (4, "uint8")])
def test_tiff_of_many_channels(channels: int, dtype: str, tmp_path: Path) -> None:
    array = bands(channels, dtype=dtype)
    path = written(tmp_path, array, photometric="MINISBLACK")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (path, str(path), path.read_bytes()):
            assert np.array_equal(load_bands(value), array.astype(np.float32))


def test_declared_nodata_is_nan(tmp_path: Path) -> None:
    array = bands(3)
    array[1, :4] = 0
    got = load_bands(written(tmp_path, array, nodata=0))
    assert np.array_equal(np.isnan(got), array == 0)
    assert np.array_equal(got[array != 0], array[array != 0].astype(np.float32))


def test_complex_and_truncated_tiff(tmp_path: Path) -> None:
    path = written(tmp_path, bands(1, dtype="complex64"))
    with pytest.raises(MediaError, match="complex"):
        load_bands(path)
    path = written(tmp_path, bands(3, 200, 200))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(MediaError, match=r"scene\.tif cannot be decoded"):
        load_bands(path)


def tiff_16_bit_rgb(height: int = 2, width: int = 3) -> bytes:
    """The least TIFF of three channels of 16 bit (TIFF 6.0, section 2), which Pillow cannot write."""
    pixels = np.arange(height * width * 3, dtype="<u2") * 1000
    short, tags = 3, []
    bits_at = 8 + 2 + 9 * 12 + 4
    data_at = bits_at + 6
    entries = [
        (256, 1, width),
        (257, 1, height),
        (258, 3, bits_at),
        (259, 1, 1),
        (262, 1, 2),
        (273, 1, data_at),
    ]
    entries += [(277, 1, 3), (278, 1, height), (279, 1, pixels.nbytes)]
    for tag, count, number in entries:
        kind = 4 if tag in (273, 279) else short
        tags.append(
            tag.to_bytes(2, "little")
            + kind.to_bytes(2, "little")
            + count.to_bytes(4, "little")
            + number.to_bytes(4, "little")
        )
    head = b"II*\0" + (8).to_bytes(4, "little") + (9).to_bytes(2, "little")
    return head + b"".join(tags) + bytes(4) + (16).to_bytes(2, "little") * 3 + pixels.tobytes()


@pytest.mark.usefixtures("without_rasterio")
def test_tiff_that_pillow_would_cut_to_8_bits_asks_for_rasterio() -> None:
    data = tiff_16_bit_rgb()
    assert Image.open(io.BytesIO(data)).mode == "RGB"  # it would
    with pytest.raises(MediaError, match=r'3 channels of 16 bit.*pip install "geobind\[geo\]"') as caught:
        load_bands(data)
    assert "\n" not in str(caught.value)


def test_tiff_of_16_bit_colours_with_rasterio() -> None:
    pytest.importorskip("rasterio", reason='rasterio is not installed (pip install "geobind[geo]")')
    want = (np.arange(18) * 1000).reshape(2, 3, 3).transpose(2, 0, 1)
    assert np.array_equal(load_bands(tiff_16_bit_rgb()), want.astype(np.float32))


# --- the transform -----------------------------------------------------------------------------------------


def test_normalises_each_channel() -> None:
    array = np.stack([np.full((20, 30), 110), np.full((20, 30), 1000)]).astype(np.uint16)
    got = TRANSFORM(array)
    assert got.shape == (2, 16, 16)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    assert torch.allclose(got[0], torch.tensor(1.0))
    assert torch.allclose(got[1], torch.tensor(-2.0))


def test_fixed_transform_is_the_centre_at_the_short_side() -> None:
    exact = BandTransform(20, mean=(0.0, 0.0), std=(1.0, 1.0))
    array = bands(2, 20, 31)
    assert np.array_equal(exact(array).numpy(), array[:, :, 5:25].astype(np.float32))
    assert torch.equal(TRANSFORM(array), TRANSFORM(array))


def test_resize_keeps_the_mean_and_does_not_overshoot() -> None:
    array = (np.random.default_rng(0).random((1, 64, 64)) > 0.5).astype(np.float32)
    got = BandTransform(16, mean=(0.0,), std=(1.0,))(array)
    assert got.min() >= 0
    assert got.max() <= 1
    assert abs(float(got.mean()) - float(array.mean())) < 0.02


def test_missing_pixels_count_as_the_mean() -> None:
    array = bands(2, dtype="float32")
    array[0, 3, 4], array[1, 5, 6], array[1, 7, 8] = np.nan, np.inf, -np.inf
    filled = array.copy()
    filled[0, 3, 4], filled[1, 5, 6], filled[1, 7, 8] = 100, 2000, 2000
    for seed in (None, 0, 1, 2):
        got, want = (
            TRANSFORM(a, None if seed is None else np.random.default_rng(seed)) for a in (array, filled)
        )
        assert torch.isfinite(got).all()
        assert torch.allclose(got, want, atol=1e-5)
    with pytest.raises(MediaError, match="no valid pixel"):
        TRANSFORM(np.full((2, 20, 20), np.nan, np.float32))


def test_augmentation_depends_only_on_the_generator() -> None:
    array = bands(2, 50, 40)
    a, b, c = (TRANSFORM(array, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == (2, 16, 16)
    assert a.is_contiguous()
    plain = BandTransform(16, TRANSFORM.mean, TRANSFORM.std)
    assert torch.equal(plain(array, np.random.default_rng(1)), TRANSFORM(array))


def test_settings_build_an_equal_transform_and_it_pickles() -> None:
    again = BandTransform(**json.loads(json.dumps(TRANSFORM.settings())))
    assert again == TRANSFORM
    assert torch.equal(pickle.loads(pickle.dumps(TRANSFORM))(bands()), TRANSFORM(bands()))


def test_wrong_options_are_named() -> None:
    for change, names in (
        ({"size": 0}, "size = 0"),
        ({"mean": (1.0,)}, "1 means and 2"),
        ({"std": (1.0, 0.0)}, "above 0"),
        ({"augment": {"num_ops": 3}}, "num_ops = 3: RandAugment"),
    ):
        with pytest.raises(GeoBindError, match=names):
            BandTransform(**{**TRANSFORM.settings(), **change})  # type: ignore[arg-type]


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_bad_values_are_one_line(tmp_path: Path) -> None:
    cut = tmp_path / "cut.npy"
    cut.write_bytes(saved(bands())[:200])
    cases: list[tuple[Any, str]] = [
        (tmp_path / "no.tif", r"no\.tif does not exist"),
        (b"", "is empty"),
        (cut, r"cut\.npy cannot be decoded"),
        (b"nonsense", "neither .npy nor TIFF"),
        (b"II*\0nonsense", "cannot be decoded"),
        (None, "None: give a path"),
        (np.zeros((2, 3, 4, 5)), r"\(2, 3, 4, 5\)"),
        (np.zeros((2, 0, 5)), r"\(2, 0, 5\)"),
        (np.zeros((2, 4, 5), np.complex64), "complex64"),
        (saved(np.array([["a"]])), "<U1"),
    ]
    for value, message in cases:
        for read in (load_bands, TRANSFORM):
            with pytest.raises(MediaError, match=message) as caught:
                read(value)
            assert "\n" not in str(caught.value)


def test_other_number_of_channels_is_told_with_a_hint() -> None:
    with pytest.raises(MediaError, match="3 channels, 2 are expected: give a raster"):
        TRANSFORM(bands(3))
    with pytest.raises(MediaError, match="20 channels, 2 are expected: move its last axis to the front"):
        TRANSFORM(bands().transpose(1, 2, 0))
