"""What the demo's page shows: the queries of its maps, example places, nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geobind.data.earth import attributes as a
from geobind.data.earth.attributes import FIELDS, Scene
from geobind.data.earth.earth import RATE, SECONDS
from geobind.data.earth.sounds import render_sound
from geobind.demo.maps import Grid, Panel, map_scores
from geobind.demo.page import Neighbours, Place
from geobind.space import GeoBind

# Which sentence stands for which land cover, on the maps and in their check against MODIS.
SENTENCES = {
    "ice": "an icy waste",
    "desert": "sand dunes",
    "tundra": "treeless tundra",
    "shrubland": "scattered shrubs",
    "grassland": "open grassland",
    "savanna": "grass with scattered trees",
    "cropland": "farmland with villages",
    "rainforest": "a tropical rainforest",
    "conifer forest": "a forest of spruce",
    "broadleaf forest": "a forest of leafy trees",
    "wetland": "a swamp",
    "water": "the open sea",
    "urban": "near a large city",
}
TEXTS = ("a tropical rainforest", "sand dunes", "an icy waste", "farmland with villages", "a rocky coast")
SURF = Scene(
    cover=a.SHRUBLAND, relief=a.FLAT, coast=1, climate=a.TEMPERATE, settlement=a.NO_SETTLEMENT, tone=a.OLIVE
)
INSECTS = Scene(
    cover=a.SAVANNA, relief=a.FLAT, coast=0, climate=a.TROPICAL, settlement=a.NO_SETTLEMENT, tone=a.OLIVE
)
_RENDERINGS = 8  # of a sound that asks: its mean says what they have in common


def panels(space: GeoBind, grid: Grid, vectors: NDArray[np.float32]) -> list[Panel]:
    """The maps of five sentences, two simulated sounds, and a sound blended with a sentence."""
    surf, insects = (_sounds(scene) for scene in (SURF, INSECTS))
    of_text = {text: space.embed("text", [text])[0] for text in (*TEXTS, "ice and snow")}
    of_surf, of_insects = (_mean(space.embed("audio", sounds)) for sounds in (surf, insects))
    asked = [
        *(Panel(text, "text", map_scores(vectors, of_text[text], grid.weights)) for text in TEXTS),
        Panel("surf", "sound", map_scores(vectors, of_surf, grid.weights), surf[0]),
        Panel("insects at night", "sound", map_scores(vectors, of_insects, grid.weights), insects[0]),
    ]
    blend = _mean(np.stack([of_surf, of_text["ice and snow"]]))
    return [*asked, Panel("surf + ice and snow", "blend", map_scores(vectors, blend, grid.weights), surf[0])]


def _sounds(scene: Scene) -> list[tuple[NDArray[np.float32], int]]:
    return [(render_sound(scene, seed, SECONDS, RATE), RATE) for seed in range(_RENDERINGS)]


def _mean(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = vectors.mean(0)
    return mean / np.linalg.norm(mean)


def places(earth: Path, split: str = "test") -> list[Place]:
    """The places of a split, as the page shows them."""
    table = pq.read_table(earth / "places.parquet", filters=[("split", "=", split)])

    def place(row: dict) -> Place:
        return Place(
            latitude=row["latitude"],
            longitude=row["longitude"],
            near=f"{row['city_km']:,} km from {row['city']}",
            satellite=earth / row["satellite"],
            image=earth / row["image"] if row["image"] else None,
            audio=earth / row["audio"] if row["audio"] else None,
            captions=[row["text"]],
            environment={
                "temperature": f"{row['temperature']:.0f} °C ({row['coldest']:.0f} to {row['warmest']:.0f})",
                "rain": f"{row['rain']:,.0f} mm a year",
                "elevation": f"{row['elevation']:,.0f} m",
            },
            attributes={field: row[field] for field in FIELDS},
        )

    return [place(row) for row in table.to_pylist()]


def examples(earth: Path, count: int = 6) -> list[Place]:
    """Test places of as many different land covers, spread over the list."""
    found: dict[str, Place] = {}
    for place in places(earth):
        found.setdefault(place.attributes["cover"], place)
    return list(found.values())[:count]


def neighbours(space: GeoBind, earth: Path, count: int = 5) -> list[Neighbours]:
    """The nearest test places of a few queries: a sentence, a sound, a tile, a photo."""
    gallery = places(earth)
    complete = [place for place in gallery if place.image and place.audio]
    vectors = {
        modality: space.embed(modality, [getattr(place, modality) for place in complete])
        for modality in ("satellite", "image", "audio")
    }

    def nearest(query: NDArray[np.float32], modality: str) -> list[int]:
        return np.argsort(-(vectors[modality] @ query), kind="stable")[:count].tolist()

    shown = []
    for text in ("a tropical rainforest", "sand dunes"):
        query = space.embed("text", [text])[0]
        shown += [
            Neighbours(
                "text", text, modality, _found(query, vectors[modality], complete, nearest(query, modality))
            )
            for modality in ("satellite", "image")
        ]
    first = {place.attributes["cover"]: row for row, place in reversed(list(enumerate(complete)))}
    for modality, target, cover in (
        ("audio", "satellite", "water"),
        ("satellite", "image", "savanna"),
        ("satellite", "audio", "urban"),
    ):
        if cover in first:
            row = first[cover]
            query = vectors[modality][row]
            best = nearest(query, target)
            right = best.index(row) if row in best else None
            found = _found(query, vectors[target], complete, best)
            shown.append(Neighbours(modality, complete[row], target, found, right))
    return shown


def _found(
    query: NDArray[np.float32], vectors: NDArray[np.float32], gallery: list[Place], best: list[int]
) -> list[tuple[float, Place]]:
    return [(float(vectors[row] @ query), gallery[row]) for row in best]
