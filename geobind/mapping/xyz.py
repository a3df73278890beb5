"""Imagery from a tile server: an XYZ template, asked politely and kept on disk."""

from __future__ import annotations

import hashlib
import io
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geobind.errors import GeoBindError
from geobind.mapping.area import DEGREES, MERCATOR, MERCATOR_HIGHEST, MERCATOR_WORLD, project
from geobind.mapping.imagery import Imagery, NoImagery
from geobind.media.http import ATTEMPTS, FAILURES, attempts, failure_reason, opened_url
from geobind.media.images import load_image
from geobind.storage import cache_folder, replacing, writing

_SIDE = 256  # pixels of a server's tile


class XYZ(Imagery):
    """Tiles of Web Mercator from `{z}/{x}/{y}` addresses; the zoom is the one nearest to the tower's pixels.

    >>> XYZ("https://tiles.example.org/{z}/{x}/{y}.png", attribution="Example, CC BY 4.0")

    The server is told who asks (User-Agent geobind), asked for each tile once (they are kept in
    `cache_folder()`), again after a pause where it fails, and at most four times. Whether bulk downloads
    are allowed, and whom to credit, is for its terms to say.
    Raises GeoBindError for a template without {z}, {x}, {y}.
    """

    crs = MERCATOR
    bounds = (-MERCATOR_WORLD / 2, -MERCATOR_WORLD / 2, MERCATOR_WORLD / 2, MERCATOR_WORLD / 2)

    def __init__(self, template: str, *, attribution: str = "", zoom: int = 19) -> None:
        if missing := [part for part in ("{z}", "{x}", "{y}") if part not in template]:
            raise GeoBindError(
                f"tile template {template} lacks {missing[0]}: write https://host/{{z}}/{{x}}/{{y}}.png"
            )
        self.template, self.attribution, self.zoom = template, attribution, zoom
        self.identity = template
        self.folder = cache_folder() / "xyz" / hashlib.sha256(template.encode()).hexdigest()[:16]

    def tile(self, latitude: float, longitude: float, ground: float, pixels: int) -> NDArray[Any]:
        if abs(latitude) > MERCATOR_HIGHEST:
            raise NoImagery(f"tile servers end at {MERCATOR_HIGHEST:.2f} degrees of latitude")
        x, y = (float(v) for v in project(longitude, latitude, DEGREES, self.crs))
        side = ground / math.cos(math.radians(latitude))
        ideal = math.log2(pixels / side * MERCATOR_WORLD / _SIDE)
        zoom = min(max(math.ceil(ideal - 0.01), 0), self.zoom)
        size = MERCATOR_WORLD / 2**zoom / _SIDE  # of a pixel
        count = max(1, round(side / size))
        left = round((x + MERCATOR_WORLD / 2) / size - count / 2)
        top = round((MERCATOR_WORLD / 2 - y) / size - count / 2)
        found = np.zeros((count, count, 3), np.uint8)
        for row in range(top // _SIDE, (top + count - 1) // _SIDE + 1):
            if not 0 <= row < 2**zoom:
                continue
            for column in range(left // _SIDE, (left + count - 1) // _SIDE + 1):
                picture = _picture(self._fetched(zoom, column % 2**zoom, row))
                y0, x0 = row * _SIDE - top, column * _SIDE - left
                ys, xs = slice(max(y0, 0), min(y0 + _SIDE, count)), slice(max(x0, 0), min(x0 + _SIDE, count))
                found[ys, xs] = picture[ys.start - y0 : ys.stop - y0, xs.start - x0 : xs.stop - x0]
        return found

    def default_ground(self, pixels: int) -> float:
        raise GeoBindError("a tile server has every resolution: give the ground size of a tile in metres")

    def _fetched(self, zoom: int, column: int, row: int) -> str:
        """The path of a tile in the cache."""
        path = self.folder / str(zoom) / str(column) / str(row)
        if not path.exists():
            url = self.template.format(z=zoom, x=column, y=row)
            content = _download(url)
            try:
                with Image.open(io.BytesIO(content)) as picture:
                    size = picture.size
            except OSError:
                raise GeoBindError(f"{url}: the server sends no picture: check the address") from None
            if size != (_SIDE, _SIDE):
                raise GeoBindError(
                    f"{url}: the tile has {size[0]} x {size[1]} pixels: give a template of {_SIDE} x {_SIDE}"
                )
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        return str(path)


@lru_cache(64)
def _picture(path: str) -> NDArray[np.uint8]:
    return load_image(Path(path))


def _download(url: str) -> bytes:
    reason = ""
    for _ in attempts():
        try:
            with opened_url(url) as response:
                return response.read()
        except FAILURES as error:
            reason = failure_reason(error)
    raise GeoBindError(
        f"{url}: no answer after {ATTEMPTS} attempts ({reason}): try later; what was made is kept"
    )
