"""The map of queries over an area: every cell's tile embedded once, and compared with every query."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from geobind import __version__
from geobind.cluster import divided
from geobind.console import progress_bar
from geobind.errors import GeoBindError, shorten
from geobind.mapping.area import Area, Cells, project_bounds, units_of_metre
from geobind.mapping.cube import Blocks, Work
from geobind.mapping.geotiff import data_array, write_cog
from geobind.mapping.imagery import Imagery, open_imagery
from geobind.mapping.rows import Tiles, from_worker, tile_pixels
from geobind.mapping.vectors import GalleryImagery
from geobind.media.windows import need_rasterio
from geobind.retrieval.query import Query, Term
from geobind.retrieval.scores import score
from geobind.space import GeoBind

if TYPE_CHECKING:
    from xarray import DataArray

AreaValue = str | Path | tuple[float, float, float, float] | Area
QueryValue = str | Query
Queries = QueryValue | Sequence[QueryValue] | Mapping[str, QueryValue]
Values = Literal["cosine", "percentile"]
_Found = Generator[tuple[int, NDArray[np.float32]], None, None]


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """How a map is made.

    * `ground`: metres of a tile's side; the tower's pixels at the imagery's own resolution if not given;
    * `step`: side of a cell in units of the CRS; `ground` if not given. With a smaller step tiles overlap:
      a cell's value is that of the tile around its centre;
    * `crs`: of the map; the imagery's if not given;
    * `values`: "cosine", or "percentile" (0 to 1) of the background that `geobind calibrate` keeps;
    * `spread`: a second band a query: the standard deviation of its cosine over the query's prompts;
    * `when`: moments (ISO 8601), one band each, for a tower conditioned on time;
    * `ray`: a Ray cluster makes the blocks (see `geobind.cluster.divided`);
    * `modality`: the tower of the tiles; `batch_size`, `workers`, `device`: as for `GeoBind.embed`.
    """

    ground: float | None = None
    step: float | None = None
    crs: str | None = None
    values: Values = "cosine"
    spread: bool = False
    when: Sequence[str] = ()
    modality: str = "satellite"
    batch_size: int = 64
    workers: int = 0
    device: str | None = None
    ray: bool = False
    progress: bool = False


def map(
    space: GeoBind,
    query: Queries,
    area: AreaValue | None = None,
    imagery: str | Path | Imagery = "earth",
    **options: Any,
) -> DataArray:
    """How well every cell of an area fits a query: an xarray DataArray (band, y, x) of cosines.

    >>> found = geobind.map(space, "a beach with palms", "-157.9,21.2,-157.6,21.4", "oahu.tif", step=100)
    >>> found.sel(band="a beach with palms").plot()

    `query`: a text, a `Query` (or its text, '+text:"a beach" -text:crowds'), several of them, or a mapping
    of band names to them. `area`: (west, south, east, north) in degrees, a GeoJSON file, a raster's extent;
    all of the imagery if not given. `imagery`: see `open_imagery`. NaN where there is no imagery.
    `options`: see `MapOptions`. All is in memory: use `write_map` for large areas.
    Raises GeoBindError for an area outside the imagery, and tiles that the tower cannot take.
    """
    job = _Job(space, query, area, open_imagery(imagery), _options(options))
    with tempfile.TemporaryDirectory(prefix="geobind-map-") as folder:
        work = job.work(Path(folder) / "work")
        job.run(work)
        values = job.finished(work.rows(0, job.cells.shape[0]))
    return data_array(job.cells, job.names, values, job.tags())


def write_map(
    space: GeoBind,
    query: Queries,
    area: AreaValue | None,
    imagery: str | Path | Imagery,
    out: str | Path,
    **options: Any,
) -> Path:
    """`map` into a Cloud-Optimised GeoTIFF, in constant memory, whatever the area.

    >>> write_map(space, ["a beach", "a harbour"], "coast.geojson", "coast.vrt", "coast.tif", workers=4)

    Finished blocks lie in the folder `OUT.work` until the map is whole; after a kill the same call goes on
    from them. The file's tags say query, towers' fingerprints, imagery, attribution and time.
    Raises GeoBindError as `map` does, and where the file cannot be written.
    """
    out = Path(out)
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise GeoBindError(f"{out}: a map is a GeoTIFF: name it {out.with_suffix('.tif')}")
    job = _Job(space, query, area, open_imagery(imagery), _options(options))
    work = job.work(out.with_name(out.name + ".work"))
    job.run(work)
    write_cog(out, job.cells, job.names, lambda top, height: job.finished(work.rows(top, height)), job.tags())
    work.remove()
    return out


def _options(given: Mapping[str, Any]) -> MapOptions:
    try:
        return MapOptions(**given)
    except TypeError:
        unknown = sorted(set(given) - set(MapOptions.__dataclass_fields__))
        raise GeoBindError(
            f"a map has no option {unknown[0]}; known: {', '.join(MapOptions.__dataclass_fields__)}"
        ) from None


class _Job:
    """Everything that is decided before the first tile."""

    def __init__(
        self, space: GeoBind, query: Queries, area: AreaValue | None, imagery: Imagery, options: MapOptions
    ) -> None:
        need_rasterio()
        self.queries = _named(query)
        if isinstance(imagery, GalleryImagery):
            imagery = imagery.of(
                space, options.modality, [t.modality for q in self.queries.values() for t in q.terms]
            )
        self.area = imagery.area(area)
        imagery = imagery.over(self.area)
        self.space, self.imagery, self.options = space, imagery, options
        stored = isinstance(imagery, GalleryImagery)
        self.embeds = not isinstance(imagery, GalleryImagery) or imagery.through_tower
        self.pixels = 0 if stored else tile_pixels(space, imagery, options.modality)
        if options.when and stored:
            raise GeoBindError("the vectors of a gallery are of the time of their tiles: leave when out")
        if options.when and "datetime" not in space.tower(options.modality).processor.columns:
            raise GeoBindError(
                f"the {options.modality} tower is not conditioned on time: leave when out, or bind one with `condition`"
            )
        self.ground = options.ground or imagery.default_ground(self.pixels)
        if not 0 < self.ground < 2e7:
            raise GeoBindError(f"ground {self.ground:g}: give the side of a tile in metres")
        self.crs = options.crs or imagery.crs
        self.cells = Cells.of(self.area, self.crs, options.step or self._default_step())
        imagery.check_cells(self.cells.step / self._units(), self.ground)
        self.blocks = Blocks(self.cells)
        if not len(self.blocks):
            raise GeoBindError(
                f"the area holds no centre of a cell of {self.cells.step:g}: give a smaller step, or a larger area"
            )
        self._embed_queries()

    def _default_step(self) -> float:
        return self.ground * self._units()

    def _units(self) -> float:
        """Units of the map's CRS that a metre is long in the middle of the area."""
        left, bottom, right, top = project_bounds(self.area.bounds, self.area.crs, "EPSG:4326")
        return units_of_metre(self.crs, (bottom + top) / 2, (left + right) / 2)[1]

    def _embed_queries(self) -> None:
        """A matrix (rows, dim) of all that is compared, and which of its rows make up which query."""
        rows: list[NDArray[np.float32]] = []
        self.parts: list[slice] = []
        for query in self.queries.values():
            singles = (
                [Query(query.terms, query.combine, [t]) for t in query.templates]
                if self.options.spread
                else []
            )
            vectors = [q.vector(self.space, device=self.options.device) for q in (query, *singles)]
            self.parts.append(slice(len(rows), len(rows) + len(vectors)))
            rows += vectors
        self.matrix = np.stack(rows)
        if self.options.spread and any(part.stop - part.start < 3 for part in self.parts):
            raise GeoBindError("a spread needs prompts: give at least two templates, such as 'a photo of {}'")
        if self.options.values == "percentile":
            self.finished(
                np.zeros((len(self.names), 1, 1), np.float32)
            )  # calibrated, or an error before the work

    @property
    def names(self) -> list[str]:
        """Of the bands: queries, each with its spread, for each moment."""
        named = [
            n
            for name in self.queries
            for n in ((name, f"{name} (spread)") if self.options.spread else (name,))
        ]
        return [f"{n} @ {when}" for when in self.options.when for n in named] if self.options.when else named

    def record(self) -> dict[str, Any]:
        """What decides the values: a map in work goes on only where it is the same."""
        modalities = {term.modality for q in self.queries.values() for term in q.terms} & {
            *self.space.modalities
        }
        o = self.options
        if self.embeds:
            modalities.add(o.modality)
        return {
            "queries": {name: shorten(query, 2000) for name, query in self.queries.items()},
            "vectors": [round(float(v), 5) for v in self.matrix.sum(1)],
            "fingerprints": {m: self.space.fingerprint(m) for m in sorted(modalities)},
            "imagery": self.imagery.identity, "ground": self.ground, "crs": self.crs, "step": self.cells.step,
            "cells": [self.cells.column, self.cells.row, *self.cells.shape], "count": len(self.blocks),
            "when": list(o.when), "spread": o.spread,
        }  # fmt: skip

    def tags(self) -> dict[str, str]:
        """Metadata of the finished file."""
        record = self.record()
        return {
            "GEOBIND_VERSION": __version__,
            "GEOBIND_QUERIES": json.dumps(record["queries"], ensure_ascii=False),
            "GEOBIND_FINGERPRINTS": json.dumps(record["fingerprints"]),
            "GEOBIND_VALUES": self.options.values,
            "GEOBIND_GROUND_METRES": f"{self.ground:.10g}",
            "GEOBIND_IMAGERY": self.imagery.identity,
            "GEOBIND_ATTRIBUTION": self.imagery.attribution,
            "TIFFTAG_COPYRIGHT": self.imagery.attribution,
            "TIFFTAG_DATETIME": datetime.now(UTC).strftime("%Y:%m:%d %H:%M:%S"),
        }

    def work(self, folder: Path) -> Work:
        return Work(folder, self.record(), len(self.names), self.blocks)

    def run(self, work: Work) -> None:
        """Embed and compare the cells of the blocks that are not done."""
        left = [block for block in range(self.blocks.count) if not work.done[block]]
        with closing(self._over_ray(left) if self.options.ray else self._computed(left)) as found:
            for block, values in found:
                work.write(block, values)

    def _over_ray(self, left: Sequence[int]) -> _Found:
        """`_computed` by the processes of a Ray cluster, in any order."""
        o = self.options
        sent = copy.copy(self)
        sent.space = GeoBind(self.space.dim, [self.space.tower(o.modality)] if self.embeds else [])
        sent.options = replace(o, progress=False)
        with (
            progress_bar(disable=not o.progress) as bar,
            closing(divided(sent._alone, left, workers=o.workers, device=o.device)) as results,
        ):
            task = bar.add_task("blocks of the map", total=len(left), note="")
            for block, values in results:
                yield block, values
                bar.update(task, advance=1)

    def _alone(self, block: int) -> NDArray[np.float32]:
        ((_, values),) = self._computed([block])
        return values

    def _computed(self, left: Sequence[int]) -> _Found:
        """Of some blocks, one after the other, the values (bands, height * width)."""
        o = self.options
        if isinstance(self.imagery, GalleryImagery):
            for block in left:
                yield block, self._looked_up(self.imagery, block)
            return
        rows = Tiles(
            self.space, self.imagery, self.blocks, left, modality=o.modality, ground=self.ground,
            pixels=self.pixels, when=o.when,
        )  # fmt: skip
        moments = len(rows.when)
        ends = np.cumsum(
            [(self.blocks.ends[b] - self.blocks.begin(b)) * moments for b in left], dtype=np.int64
        )
        finished, seen, values = 0, 0, self._empty(left[0]) if left else None

        def whole() -> _Found:
            nonlocal finished, values
            while finished < len(left) and ends[finished] <= seen:
                yield left[finished], values  # type: ignore[misc]
                finished += 1
                values = self._empty(left[finished]) if finished < len(left) else None

        yield from whole()  # blocks without a cell of the area
        if not len(rows):
            return
        try:
            with closing(
                self.space.embed_batches(
                    o.modality, rows, batch_size=o.batch_size, device=o.device, on_error="skip",
                    workers=o.workers, progress=o.progress,
                )
            ) as batches:  # fmt: skip
                for positions, vectors, errors in batches:
                    found = self._compare(vectors)
                    known = np.asarray(positions, np.int64)
                    last = seen + len(positions) + len(errors)
                    # A batch may end one block and begin others.
                    while seen < last:
                        begin, end = int(ends[finished - 1]) if finished else 0, int(ends[finished])
                        mine = (known >= begin) & (known < end)
                        cell, moment = np.divmod(known[mine] - begin, moments)
                        index = self.blocks.inside(left[finished])[0][cell]
                        shaped = values.reshape(moments, -1, values.shape[1])  # type: ignore[union-attr]
                        shaped[moment, :, index] = found[:, mine].T
                        seen = min(last, end)
                        yield from whole()
        except GeoBindError as error:
            raise from_worker(error) from None

    def _looked_up(self, gallery: GalleryImagery, block: int) -> NDArray[np.float32]:
        """The values of a block whose vectors are there."""
        o, values = self.options, self._empty(block)
        window, inside = self.blocks.window(block), self.blocks.inside(block)[0]
        index, vectors = gallery.vectors(self.cells, window, inside, self.ground)
        if self.embeds and len(index):
            vectors = self.space.embed(o.modality, list(vectors), batch_size=o.batch_size, device=o.device)
        values[:, index] = self._compare(vectors)
        return values

    def _empty(self, block: int) -> NDArray[np.float32]:
        _, height, _, width = self.blocks.window(block)
        return np.full((len(self.names), height * width), np.nan, np.float32)

    def _compare(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(bands of a moment, n) of embeddings (n, dim)."""
        # Row by row in double: a cell's value is the same in whichever batch it comes.
        cosines = (self.matrix.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
        bands = []
        for part in self.parts:
            bands.append(cosines[part.start])
            if self.options.spread:
                bands.append(cosines[part.start + 1 : part.stop].std(0))
        return np.stack(bands)

    def finished(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (bands, height, width) as the file has them."""
        if self.options.values == "cosine":
            return values
        of_moment = []
        for query in self.queries.values():
            modalities = {term.modality for term in query.terms}
            if len(query.terms) != 1:
                raise GeoBindError("percentiles are of queries of one term: ask for cosine")
            of_moment += [modalities.pop(), *([None] if self.options.spread else [])]
        found = values.copy()
        for band, modality in enumerate(of_moment * max(1, len(self.options.when))):
            if modality is not None:
                scored = score(self.space, (modality, self.options.modality), values[band], "percentile")
                found[band] = np.where(np.isnan(values[band]), np.nan, scored)
        return found


def _named(query: Queries) -> dict[str, Query]:
    """Queries by the names of their bands."""
    if isinstance(query, Mapping):
        given = dict(query)
    else:
        several = [query] if isinstance(query, str | Query) else list(query)
        given = {}
        for one in several:
            name = one if isinstance(one, str) else ", ".join(_term_name(t) for t in one.terms)
            given[name if name not in given else f"{name} ({len(given) + 1})"] = one
    if not given:
        raise GeoBindError("a map needs a query: give a text, such as 'a beach with palms'")
    return {name: Query.parse(one) if isinstance(one, str) else one for name, one in given.items()}


def _term_name(term: Term) -> str:
    """A term as the name of a band says it."""
    value = Path(term.value).name if term.modality != "text" and isinstance(term.value, str) else term.value
    sign = "-" if term.weight < 0 else ""
    return (
        f"{sign}{shorten(value, 60).strip(chr(39))}" if isinstance(value, str) else f"{sign}{term.modality}"
    )
