"""A space of letters and places, a folder of files named by place, and a gallery of vectors in memory."""

from __future__ import annotations

import numpy as np
import pytest

from geobind.gallery.schema import Origin, rows
from geobind.gallery.store import Gallery
from tests.toy import toy_space

N, DIM = 600, 12
ORIGIN = Origin("satellite", "tower-a", ("clip:1",))


@pytest.fixture(scope="module")
def space():
    """Every tower of the toys is bound to satellite, so that all are comparable."""
    made = toy_space()
    made.record_binding(
        ["text", "location", "environment"],
        {("text", "satellite"): 0.1, ("location", "satellite"): 0.1, ("environment", "satellite"): 0.1},
    )
    return made


@pytest.fixture
def tiles(tmp_path):
    """120 files called by their place in two folders, and one that is empty."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "tiles"
    for i in range(120):
        name = f"{rng.uniform(-80, 80):.4f}_{rng.uniform(-180, 180):.4f}.jpg"
        path = folder / f"{i % 2}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(rng.choice(list("abcdefghijklmnop"), 40)))
    (folder / "broken.jpg").write_text("")
    return folder


class Known:
    """Rows in memory, by which a gallery's answers are checked."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(N, DIM)) + 1  # of one cone, as embeddings are
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        self.latitude, self.longitude = rng.uniform(-85, 85, N), rng.uniform(-180, 180, N)
        self.latitude[:5] = self.longitude[:5] = np.nan
        self.times = np.datetime64("2020-01-01T12:00:00") + np.arange(N) * np.timedelta64(2, "D")
        self.sources = [f"tile_{i}" for i in range(N)]

    def rows(self, keep=slice(None), **options):
        places = np.stack([self.latitude, self.longitude], axis=1)[keep]
        return rows(
            self.vectors[keep], origin=ORIGIN, sources=self.sources[keep], locations=places,
            times=self.times[keep], **options,
        )  # fmt: skip

    def best(self, query, mask=None, k=10):
        """Brute force: sources of the k best among those of the mask."""
        scores = self.vectors @ (query / np.linalg.norm(query))
        if mask is not None:
            scores = np.where(mask, scores, -np.inf)
        count = k if mask is None else min(k, int(mask.sum()))
        return [self.sources[i] for i in np.argsort(-scores, kind="stable")[:count]]


@pytest.fixture(scope="session")
def known():
    return Known()


@pytest.fixture
def gallery(known, tmp_path):
    made = Gallery(tmp_path / "gallery")
    made.add(known.rows())
    return made
