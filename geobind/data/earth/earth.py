"""The miniature Earth as ordinary files and tables: places, tiles, captions, simulated views and sounds."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import soundfile
from numpy.typing import NDArray

from geobind.data.earth import cells
from geobind.data.earth.attributes import FIELDS, WATER, Attributes
from geobind.data.earth.captions import Caption, captions_by_split
from geobind.data.earth.sounds import render_sound
from geobind.data.earth.views import render_views
from geobind.data.earth.world import IGBP, SOURCES, World, blue_marble
from geobind.errors import GeoBindError
from geobind.storage import read_json, write_text, writing

VERSION = 2  # to be raised whenever the same seed would give other files
MARKER = "earth.json"
ENVIRONMENT = (
    "temperature", "coldest", "warmest", "rain", "summer_rain", "elevation", "elevation_spread",
)  # fmt: skip
CAPTIONS = 3  # of each view
TILE_SIZE, TILE_DEGREES = 32, 2.0
VIEW_SIZE, SECONDS, RATE = 48, 3, 16_000
_WATER_SHARE = 0.06  # of the points at sea that are kept
_IMAGE_SHARE, _AUDIO_SHARE = 0.65, 0.25  # of the training places that have one; all others have both
_BYTES_A_PLACE = 40_000  # on disk, a generous estimate
_PLACES_A_TASK = 128
_MEDIA = ("satellite", "image", "audio")


def make_earth(
    folder: str | Path,
    *,
    places: int = 12_000,
    seed: int = 0,
    processes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the miniature Earth into a folder, unless it is there already, and return the folder.

    >>> earth = make_earth("earth", places=12_000, seed=0)
    >>> Pairs.from_table(earth / "places.parquet").split("test")

    `places.parquet` has a row for each place, `captions.parquet` one for each caption of a view; both name
    files under `satellite`, `image` and `audio`. README.md in the folder explains the columns and what is
    real: views and sounds are SIMULATED. The same seed, number of places and version of the libraries
    give the same files, bit for bit; `earth.json` holds their digest and marks a finished Earth.
    With several processes a script needs `if __name__ == "__main__":`, as always with multiprocessing.

    processes: how many render. progress: called with the places done so far and their number.
    Raises GeoBindError without the extra `demo`, for a folder that holds something else or cannot be
    written, and for a disk with too little space, all before any work is done.
    """
    folder = Path(folder)
    wanted = {"version": VERSION, "seed": seed, "places": places}
    if places < 1 or seed < 0 or processes < 1:
        raise GeoBindError(
            f"places ({places}) and processes ({processes}) are at least 1 and the seed ({seed}) is at least 0"
        )
    marker = read_json(folder / MARKER)
    if marker.get("digest") and all(marker.get(key) == value for key, value in wanted.items()):
        return folder
    blue_marble()
    _prepare(folder, wanted)
    world = World.load()
    drawn = draw_places(world, places, seed)
    with writing(folder):
        digest = hashlib.blake2b(digest_size=16)
        done = 0
        for part in _render(folder, drawn, processes):
            digest.update(part)
            done = min(done + _PLACES_A_TASK, places)
            if progress:
                progress(done, places)
        for name, table in (("places", places_table(world, drawn)), ("captions", captions_table(drawn))):
            path = folder / f"{name}.parquet"
            pq.write_table(table, path, compression="zstd")
            digest.update(path.read_bytes())
        write_text(folder / "README.md", _readme(wanted))
        write_text(folder / MARKER, json.dumps({**wanted, "digest": digest.hexdigest()}) + "\n")
    return folder


@dataclass(frozen=True, eq=False)
class Places:
    """What was drawn for n places, before anything is rendered.

    `split`: TRAIN, VAL or TEST of `cells`; `has_image`, `has_audio`: (n,) bool; `seeds`: (n, 2) of the view
    and of the sound; `captions`: n lists of `CAPTIONS` sentences, the first of which stands in places.parquet.
    """

    keys: list[str]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    split: NDArray[np.int64]
    attributes: Attributes
    has_image: NDArray[np.bool_]
    has_audio: NDArray[np.bool_]
    seeds: NDArray[np.int64]
    captions: list[list[Caption]]

    def splits(self) -> list[str]:
        """The names of the splits, (n,)."""
        return [cells.SPLITS[split] for split in self.split]


def draw_places(world: World, n: int, seed: int) -> Places:
    """n places, uniform on the land of the cells in use; at sea one point in 17, on lakes none.

    Every val and test place has a view and a sound, training places some: as in real data sets, not every
    place has every modality.
    """
    latitude, longitude, split = _draw_points(world, n, seed)
    attributes = Attributes.at(world, latitude, longitude)
    rng = np.random.default_rng([seed, 2])
    training = split == cells.TRAIN
    has_image = ~training | (rng.random(n) < _IMAGE_SHARE)
    has_audio = ~training | (rng.random(n) < _AUDIO_SHARE)
    seeds = rng.integers(2**32, size=(n, 2))
    rng = np.random.default_rng([seed, 3])
    splits = [cells.SPLITS[value] for value in split]
    sentences = [captions_by_split(attributes, splits, rng) for _ in range(CAPTIONS)]
    return Places(
        keys=[f"{row:05d}" for row in range(n)],
        latitude=latitude,
        longitude=longitude,
        split=split,
        attributes=attributes,
        has_image=has_image,
        has_audio=has_audio,
        seeds=seeds,
        captions=[list(column) for column in zip(*sentences, strict=True)],
    )


def _draw_points(world: World, n: int, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """(n,) latitude and longitude, to a ten-thousandth of a degree, and split."""
    rng = np.random.default_rng([seed, 1])
    split_of_cell = cells.split_cells(seed)
    found: list[NDArray] = []
    while sum(map(len, found)) < n:
        batch = max(2000, 8 * n)
        latitude = np.round(np.degrees(np.arcsin(rng.uniform(-1, 1, batch))), 4)
        longitude = np.round(rng.uniform(-180, 180, batch), 4)
        split = split_of_cell[cells.cell_of(latitude, longitude)]
        water = world.land_cover(latitude, longitude) == WATER
        # A little beyond the shore: bays that the raster of distances is too coarse for are no lakes.
        lake = water & (world.coast_distance(latitude, longitude) > 3)
        thinned = water & (rng.random(batch) >= _WATER_SHARE)
        keep = (split != cells.UNUSED) & ~lake & ~thinned
        found.append(np.stack([latitude, longitude, split], axis=1)[keep])
    latitude, longitude, split = np.concatenate(found)[:n].T
    return latitude, longitude, split.astype(np.int64)


def places_table(world: World, drawn: Places) -> pa.Table:
    """The table of places: files, captions, position, environment, attributes by name, nearest city."""
    latitude, longitude = drawn.latitude, drawn.longitude
    environment: dict[str, NDArray] = world.climate(latitude, longitude) | {
        "elevation": world.elevation(latitude, longitude),
        "elevation_spread": world.relief(latitude, longitude),
    }
    city, km = zip(*world.nearest_city(latitude, longitude), strict=True)
    columns: dict[str, Any] = {
        "place": drawn.keys,
        "split": drawn.splits(),
        "cell": cells.cell_of(latitude, longitude),
        "latitude": latitude,
        "longitude": longitude,
        "satellite": [f"satellite/{key}.jpg" for key in drawn.keys],
        "image": _paths("image", "jpg", drawn.keys, drawn.has_image),
        "audio": _paths("audio", "flac", drawn.keys, drawn.has_audio),
        "text": [sentences[0].text for sentences in drawn.captions],
        "mentions": [" ".join(sentences[0].mentions) for sentences in drawn.captions],
        **{name: np.round(environment[name], 2).astype(np.float32) for name in ENVIRONMENT},
        "land_cover": [IGBP[value] for value in world.land_cover(latitude, longitude)],
        **{field: drawn.attributes.names(field) for field in FIELDS},
        "city": city,
        "city_km": km,
    }
    return pa.table(columns)


def captions_table(drawn: Places) -> pa.Table:
    """Views with their captions, CAPTIONS rows for each view."""
    rows = [
        {
            "place": drawn.keys[row],
            "split": cells.SPLITS[drawn.split[row]],
            "image": f"image/{drawn.keys[row]}.jpg",
            "text": caption.text,
            "mentions": " ".join(caption.mentions),
        }
        for row in np.flatnonzero(drawn.has_image)
        for caption in drawn.captions[row]
    ]
    names = ("place", "split", "image", "text", "mentions")
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names]))


def _paths(modality: str, suffix: str, keys: list[str], present: NDArray[np.bool_]) -> list[str | None]:
    return [f"{modality}/{key}.{suffix}" if there else None for key, there in zip(keys, present, strict=True)]


# --- files ---------------------------------------------------------------------------------------------


def _prepare(folder: Path, wanted: dict[str, int]) -> None:
    """An empty folder with an unfinished marker. Whatever else lies in it is somebody's, and stays."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists()):
        raise GeoBindError(f"{folder} exists and holds no Earth ({MARKER}): choose an empty or a new folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        needed = wanted["places"] * _BYTES_A_PLACE
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise GeoBindError(
                f"{folder}: an Earth of {wanted['places']:,} places takes {needed / 1e6:,.0f} MB and "
                f"{free / 1e6:,.0f} MB are free: choose another disk or fewer places"
            )
        write_text(folder / MARKER, json.dumps({**wanted, "digest": None}) + "\n")
        for modality in _MEDIA:
            shutil.rmtree(folder / modality, ignore_errors=True)
            (folder / modality).mkdir()


Task = tuple[Path, list[str], NDArray, NDArray, Attributes, NDArray, NDArray, NDArray]


def _render(folder: Path, drawn: Places, processes: int) -> Iterator[bytes]:
    """Write all files, some places at a time and in their order; the digests of each part's places."""
    tasks: list[Task] = []
    for start in range(0, len(drawn.keys), _PLACES_A_TASK):
        rows = slice(start, start + _PLACES_A_TASK)
        columns = (drawn.latitude, drawn.longitude, drawn.attributes)
        given = (drawn.has_image, drawn.has_audio, drawn.seeds)
        tasks.append((folder, drawn.keys[rows], *(c[rows] for c in (*columns, *given))))  # type: ignore[arg-type]
    if processes == 1:
        _start_worker(foreground=True)
        yield from map(_render_part, tasks)
    else:
        with _pool(processes) as pool:
            yield from pool.map(_render_part, tasks)


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Workers that start afresh (a fork would copy torch's threads) and go at once when interrupted."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


_worlds: list[World] = []  # the worker's own


def _start_worker(foreground: bool = False) -> None:
    if not foreground:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    if not _worlds:
        _worlds.append(World.load())


def _render_part(task: Task) -> bytes:
    """Write the files of some places; the digests of each one's files, joined."""
    folder, keys, latitude, longitude, attributes, has_image, has_audio, seeds = task
    digests = [hashlib.blake2b(digest_size=16) for _ in keys]

    def write(modality: str, row: int, suffix: str, content: bytes) -> None:
        name = f"{modality}/{keys[row]}.{suffix}"
        (folder / name).write_bytes(content)
        digests[row].update(name.encode() + content)

    for row, tile in enumerate(
        _worlds[0].tiles(latitude, longitude, size=TILE_SIZE, ground_degrees=TILE_DEGREES)
    ):
        write("satellite", row, "jpg", _jpeg(tile))
    views = render_views(attributes[has_image], seeds[has_image, 0], VIEW_SIZE)
    for row, view in zip(np.flatnonzero(has_image).tolist(), views, strict=True):
        write("image", row, "jpg", _jpeg(view))
    for row in np.flatnonzero(has_audio).tolist():
        samples = render_sound(attributes.scene(row), int(seeds[row, 1]), SECONDS, RATE)
        write("audio", row, "flac", _flac(samples))
    return b"".join(digest.digest() for digest in digests)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=97, colorsubsampling="444")


def _flac(samples: NDArray[np.float32]) -> bytes:
    """FLAC and not Ogg, whose streams carry a random number."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _readme(wanted: dict[str, int]) -> str:
    sources = "\n".join(f"* {source.what}: {source.credit} ({source.licence})" for source in SOURCES)
    return f"""# A miniature Earth

{wanted["places"]:,} places, seed {wanted["seed"]}, written by `geobind` (`geobind.data.earth.make_earth`).

**Real**: the satellite tiles, positions, environment, land cover and cities, from which the attributes of a
place were derived. **Simulated**: the ground-level views (`image`) and soundscapes (`audio`), rendered from
those attributes and random numbers; captions (`text`) were composed from them. No photograph, no recording.

`places.parquet`, a row for each place:

| column | meaning |
|---|---|
| place, split, cell | key; train, val or test; the cell of 5 degrees it lies in (no test cell touches a training cell) |
| latitude, longitude | degrees WGS84 |
| satellite, image, audio | files, relative to this folder; empty where a place has none |
| text, mentions | a caption, and the attributes it tells |
| temperature, coldest, warmest | °C: annual mean, coldest and warmest month |
| rain, summer_rain | mm a year; share that falls in the warmer half of the year |
| elevation, elevation_spread | metres; standard deviation within half a degree |
| land_cover | IGBP class |
| {", ".join(FIELDS)} | the attributes |
| city, city_km | nearest large city (in no caption) |

`captions.parquet`: {CAPTIONS} captions for each view (place, split, image, text, mentions).
Tiles are {TILE_DEGREES} degrees (222 km) wide, sounds {SECONDS} s at {RATE:,} Hz.

```python
from geobind import Pairs

pairs = Pairs.from_table(
    "places.parquet",
    columns={{
        "satellite": "satellite", "image": "image", "audio": "audio", "text": "text",
        "environment": [{", ".join(f'"{name}"' for name in ENVIRONMENT)}],
    }},
)
```

Sources:

{sources}
"""
