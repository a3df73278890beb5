"""The two sets of vectors that `benchmarks/search.py` searches, made once and kept in a folder.

    python benchmarks/search_sets.py --demo runs/demo --sample ../shared/sample --folder runs/search

* tiles: a million squares of 2 degrees, cut from NASA's Blue Marble around points drawn evenly on the land (12 km
  apart on average, so that they overlap), through the satellite tower of a space of `geobind demo`: 64 numbers.
  Queries: other such tiles, and captions of the demo's test places through its text tower.
* features: the EfficientNet-Lite0 vectors of the sample's 2,100 aerial images and 1,154 photos, turned onto their
  512 first principal axes, and enlarged. A row is a convex mixture of one vector and its 10 nearest
  neighbours (weights from a flat Dirichlet distribution), and normal noise whose length is a tenth of the distance
  to the nearest neighbour. It stands at a place drawn on land, apart from what it shows. Queries: other such rows.

Rows are in random order, so that the first n of them are a smaller set of the same kind.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geobind import GeoBind
from geobind.console import progress_bar
from geobind.data.earth.earth import TILE_DEGREES, TILE_SIZE
from geobind.data.earth.world import World

ROWS, QUERIES, BLOCK = 1_000_000, 500, 20_000
AXES, NEIGHBOURS, NOISE = 512, 10, 0.1


@dataclass(frozen=True)
class Set:
    """Unit vectors (n, dim) float32, their places (n, 2) latitude, longitude, and queries by kind (m, dim)."""

    name: str
    vectors: NDArray[np.float32]
    places: NDArray[np.float64]
    queries: dict[str, NDArray[np.float32]]


def load(folder: Path, name: str, rows: int) -> Set:
    """The first rows of a set that `main` has made; vectors are memory-mapped."""
    home = folder / name
    vectors = np.load(home / "vectors.npy", mmap_mode="r")[:rows]
    queries = {
        path.stem.removeprefix("queries-"): np.load(path) for path in sorted(home.glob("queries-*.npy"))
    }
    return Set(name, vectors, np.load(home / "places.npy")[:rows], queries)


def land(world: World, count: int, seed: int) -> NDArray[np.float64]:
    """(count, 2) latitude, longitude drawn evenly on the land."""
    rng = np.random.default_rng([seed, 1])
    found: list[NDArray[np.float64]] = []
    while sum(map(len, found)) < count:
        latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
        longitude = rng.uniform(-180, 180, count)
        found.append(np.stack([latitude, longitude], 1)[world.land_cover(latitude, longitude) != 0])
    return np.concatenate(found)[:count]


def make_tiles(home: Path, demo: Path, world: World, rows: int) -> None:
    """Cut and embed, 20,000 tiles a file; what is there is kept."""
    space = GeoBind.from_pretrained(demo / "space")
    places = land(world, rows + QUERIES, 0)
    parts = []
    with progress_bar() as bar:
        task = bar.add_task("tiles", total=len(places), note="")
        for start in range(0, len(places), BLOCK):
            part = home / f"part-{start:08}.npy"
            if not part.exists():
                pixels = world.tiles(
                    *places[start : start + BLOCK].T, size=TILE_SIZE, ground_degrees=TILE_DEGREES
                )
                np.save(part, space.embed("satellite", list(pixels), batch_size=256))
            parts.append(np.load(part))
            bar.update(task, completed=start + len(parts[-1]))
    vectors = np.concatenate(parts)
    captions = pq.read_table(demo / "earth" / "captions.parquet").to_pylist()
    texts = sorted({row["text"] for row in captions if row["split"] == "test"})
    drawn = np.random.default_rng(0).choice(len(texts), QUERIES, replace=False)
    np.save(home / "queries-tile.npy", vectors[rows:])
    np.save(home / "queries-text.npy", space.embed("text", [texts[i] for i in drawn]))
    np.save(home / "places.npy", places[:rows])
    np.save(home / "vectors.npy", vectors[:rows])
    for part in home.glob("part-*.npy"):
        part.unlink()


def make_features(home: Path, sample: Path, world: World, rows: int) -> None:
    """Mix, on the principal axes of the real vectors."""
    real = np.concatenate(
        [
            np.load(sample / "features" / f"{name}_efficientnet_lite0.npz")["vector"].astype(np.float32)
            for name in ("satellite", "image")
        ]
    )
    real -= real.mean(0)
    axes = np.linalg.svd(real, full_matrices=False)[2][:AXES]
    real = real @ axes.T
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    far = np.sqrt(np.maximum(2 - 2 * real @ real.T, 0))
    near = np.argsort(far, axis=1)[:, : NEIGHBOURS + 1]
    near[:, 0] = np.arange(len(real))  # itself, also where another vector is the same
    scale = NOISE * np.take_along_axis(far, near[:, 1:2], 1) / np.sqrt(AXES)
    rng = np.random.default_rng([0, 2])
    vectors = np.lib.format.open_memmap(home / "making.npy", "w+", np.float32, (rows + QUERIES, AXES))
    for start in range(0, len(vectors), BLOCK):
        count = len(vectors[start : start + BLOCK])
        centre = rng.integers(len(real), size=count)
        weights = rng.dirichlet(np.ones(NEIGHBOURS + 1), count).astype(np.float32)
        mixed = np.einsum("nk,nkd->nd", weights, real[near[centre]])
        mixed += scale[centre] * rng.standard_normal(mixed.shape, np.float32)
        vectors[start : start + count] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    np.save(home / "queries-feature.npy", vectors[rows:])
    np.save(home / "places.npy", land(world, rows, 1))
    np.save(home / "vectors.npy", vectors[:rows])
    (home / "making.npy").unlink()


def prepare(folder: Path, demo: Path, sample: Path, rows: int = ROWS) -> None:
    """Make what is not there."""
    world = World.load()
    for name, make, source in (("tiles", make_tiles, demo), ("features", make_features, sample)):
        if not (folder / name / "vectors.npy").exists():
            (folder / name).mkdir(parents=True, exist_ok=True)
            make(folder / name, source, world, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="what `geobind demo` wrote")
    parser.add_argument("--sample", type=Path, default=Path(__file__).parents[2] / "shared/sample")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=ROWS)
    prepare(**vars(parser.parse_args()))
