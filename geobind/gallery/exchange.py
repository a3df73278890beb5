"""Galleries as GeoParquet in Major TOM's schema, and published embeddings as rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError, shorten
from geobind.gallery.schema import MAJOR_TOM, Origin, rows
from geobind.gallery.store import Gallery
from geobind.media.windows import open_raster
from geobind.storage import replacing

ALPHAEARTH = Origin("satellite", "alphaearth")
_ROWS_AT_ONCE = 16_384


def write_geoparquet(gallery: Gallery, path: str | Path, *, where: str | None = None) -> int:
    """Write a gallery, or the rows that an SQL condition keeps, as GeoParquet 1.1, and count the rows.

    >>> write_geoparquet(gallery, "africa.parquet")   # geopandas.read_parquet("africa.parquet"), QGIS
    12000

    Columns are those of the gallery; `geometry` is the footprint, or the centre as a point where there is
    none. The file appears when it is whole. Source: GeoParquet 1.1, and Major TOM's embedding tables.
    Raises GeoBindError for a condition that cannot be used, and a file that cannot be written.
    """
    path = Path(path)
    snapshot = gallery.snapshot()
    geo = {
        "version": "1.1.0", "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point", "Polygon"]}},
    }  # fmt: skip
    written = 0
    metadata = {"geo": json.dumps(geo), "geobind": json.dumps(snapshot.record)}
    table = snapshot.table.schema.with_metadata(metadata)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, table) as file:
        for batch in snapshot.batches(list(table.names), where=where):
            content = pa.Table.from_batches([batch.select(table.names)])
            column = content.schema.get_field_index("geometry")
            content = content.set_column(column, table.field("geometry"), _points_where_none(content))
            file.write_table(content.replace_schema_metadata(metadata))
            written += batch.num_rows
    return written


def read_geoparquet(gallery: Gallery, path: str | Path, *, origin: Origin | None = None) -> int:
    """Add the rows of a table in Major TOM's schema to a gallery, and count those that were new.

    >>> read_geoparquet(Gallery("copy"), "africa.parquet")

    Tables that a gallery wrote say which tower made each vector; for others `origin` does, say
    Origin("satellite", "majortom:dinov2"), and only vectors of that name are then comparable with them.
    Read in constant memory; adding twice adds nothing. Raises GeoBindError for a table without `embedding`.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise GeoBindError(f"table {path} cannot be read ({shorten(str(error))}): give GeoParquet") from None
    names = file.schema_arrow.names
    own = {"modality", "tower", "chain"} <= set(names)
    if "embedding" not in names or not (own or origin):
        raise GeoBindError(
            f"table {path} has the columns {', '.join(names[:12])}: expected `embedding`, and `modality`, `tower` and "
            f"`chain` or an origin that says which tower made them (--tower majortom:dinov2)"
        )
    added = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE):
        table = pa.Table.from_batches([batch])
        for part, made_by in _by_origin(table, origin):
            added += gallery.add(_as_rows(part, made_by, str(path)))
    return added


def _by_origin(table: pa.Table, origin: Origin | None) -> Iterator[tuple[pa.Table, Origin]]:
    if origin is not None:
        yield table, origin
        return
    columns = (table[name].to_pylist() for name in ("modality", "tower", "chain"))
    made_by = [Origin(m, t, tuple(c or ())) for m, t, c in zip(*columns, strict=True)]
    for one in dict.fromkeys(made_by):
        yield table.take(pa.array([i for i, other in enumerate(made_by) if other == one])), one


def _as_rows(table: pa.Table, origin: Origin, path: str) -> pa.Table:
    flat = table["embedding"].combine_chunks()
    vectors = flat.flatten().to_numpy().reshape(len(table), -1).astype(np.float32)
    have = set(table.column_names)
    ids = table["unique_id"].to_pylist() if "unique_id" in have else None
    if "source" in have:
        sources = table["source"].to_pylist()
    else:
        sources = [f"{path}#{key}" for key in (ids or range(len(table)))]
    columns: dict[str, Any] = {
        name: table[name].combine_chunks().cast(kind)
        for name, kind in MAJOR_TOM.items()
        if name in have and name not in ("unique_id", "embedding")
    }
    return rows(vectors, origin=origin, sources=sources, unique_ids=ids, columns=columns)


def add_alphaearth(gallery: Gallery, path: str | Path, *, step: int = 1, year: int | None = None) -> int:
    """Add AlphaEarth's vectors of a raster to a gallery, and count those that were new: see `read_alphaearth`.

    >>> add_alphaearth(Gallery("alphaearth"), "2021/10N/x-0000000000-0000000000.tiff", step=16)

    They are rows of satellite of the tower `alphaearth`, named by their place and year, so adding twice adds nothing.
    A space with a `vector` tower of width 64 for satellite draws maps of them.
    """
    added, waiting, held = 0, [], 0

    def rows_of(parts: list[Any]) -> pa.Table:
        vectors, places, years = (np.concatenate(part) for part in zip(*parts, strict=True))
        names = [
            f"alphaearth#{y.astype('datetime64[Y]')},{a:.6f},{o:.6f}"
            for (a, o), y in zip(places, years, strict=True)
        ]
        return rows(vectors, origin=ALPHAEARTH, sources=names, locations=places, times=years)

    for part in read_alphaearth(path, step=step, year=year):
        waiting.append(part)
        held += len(part[0])
        if held >= _ROWS_AT_ONCE:
            added, waiting, held = added + gallery.add(rows_of(waiting)), [], 0
    return added + (gallery.add(rows_of(waiting)) if waiting else 0)


def read_alphaearth(
    path: str | Path, *, step: int = 1, year: int | None = None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.datetime64]]]:
    """AlphaEarth's annual vectors, row by row of pixels: (n, 64) unit length, (n, 2) latitude, longitude, (n,) years.

    >>> for vectors, places, years in read_alphaearth("2021/10N/x-0000000000-0000000000.tiff", step=16): ...

    They are satellite features: `vector` towers of width 64 learn from them. `step` takes every step-th
    pixel of 10 m; pixels without data are left out. The year is that of the path unless it is given.
    Stored int8 v stands for sign(v) (v / 127.5)^2, and -128 for no data (the data set's description, CC-BY 4.0).
    Raises GeoBindError for a raster that is none of 64 channels of int8, and where no year is known.
    """
    found = re.search(r"(?<!\d)(20[0-9]{2})(?!\d)", str(path))
    if year is None and found is None:
        raise GeoBindError(f"{path} names no year: give year=2021")
    moment = np.datetime64(f"{year or found[1]}-01-01T00:00:00")  # type: ignore[index]
    with open_raster(path) as raster:
        from rasterio.transform import xy
        from rasterio.warp import transform
        from rasterio.windows import Window

        if raster.count != 64 or set(raster.dtypes) != {"int8"} or raster.crs is None:
            raise GeoBindError(
                f"{path} has {raster.count} channels of {raster.dtypes[0]}: expected AlphaEarth's 64 of int8, georeferenced"
            )
        for top in range(0, raster.height, step):
            stored = raster.read(window=Window(0, top, raster.width, 1))[:, 0, ::step].T
            valid = (stored != -128).all(1)
            if not valid.any():
                continue
            columns = np.arange(0, raster.width, step)[valid]
            x, y = xy(raster.transform, np.full(len(columns), top), columns)
            longitude, latitude = transform(raster.crs, "EPSG:4326", x, y)
            vectors = dequantise(stored[valid])
            yield vectors, np.stack([latitude, longitude], axis=1), np.full(len(columns), moment)


def dequantise(stored: ArrayLike) -> NDArray[np.float32]:
    """AlphaEarth's int8 (..., 64) as vectors of unit length; NaN where any channel is -128.

    >>> dequantise([[127] + 63 * [0]])[0, 0]
    1.0
    """
    whole = np.asarray(stored, np.float32)
    values = np.sign(whole) * np.square(whole / 127.5)
    values[(whole == -128).any(-1)] = np.nan
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, length, out=values, where=length > 0)


def _points_where_none(table: pa.Table) -> pa.Array:
    """The column geometry, with the centre as a point where there is no footprint."""
    import shapely

    shapes: Sequence[bytes | None] = table["geometry"].to_pylist()
    places = zip(table["centre_lon"].to_pylist(), table["centre_lat"].to_pylist(), strict=True)
    filled = [
        shape if shape is not None or x is None else shapely.to_wkb(shapely.Point(x, y))
        for shape, (x, y) in zip(shapes, places, strict=True)
    ]
    return pa.array(filled, pa.binary())
