"""Cloud-Optimised GeoTIFFs of maps: written from the map in work in constant memory, and read back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError
from geobind.mapping.area import Cells
from geobind.media.windows import need_rasterio
from geobind.storage import writing

if TYPE_CHECKING:
    from xarray import DataArray

_TILE = 512
_CACHE = 64  # MB that GDAL may keep, so that memory does not grow with the map


def write_cog(
    path: Path,
    cells: Cells,
    names: Sequence[str],
    rows: Callable[[int, int], NDArray[np.float32]],
    tags: Mapping[str, str],
) -> None:
    """Write bands of cells as a Cloud-Optimised GeoTIFF, float32, NaN for no data, with overviews.

    `rows(top, height)` gives (bands, height, width); `names` become band descriptions, `tags` metadata.
    The file appears under its name when it is whole.
    """
    rasterio = need_rasterio()
    from rasterio.errors import RasterioError
    from rasterio.shutil import copy
    from rasterio.windows import Window

    height, width = cells.shape
    plain, whole = path.with_name(path.name + ".plain.tmp"), path.with_name(path.name + ".tmp")
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": len(names), "height": height, "width": width,
        "crs": cells.crs, "transform": cells.transform, "nodata": float("nan"), "tiled": True,
        "blockxsize": _TILE, "blockysize": _TILE, "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    with writing(path):
        try:
            with rasterio.Env(GDAL_CACHEMAX=_CACHE):
                with rasterio.open(plain, "w", **profile) as file:
                    for top in range(0, height, _TILE):
                        count = min(_TILE, height - top)
                        file.write(rows(top, count), window=Window(0, top, width, count))
                    for number, name in enumerate(names, 1):
                        file.set_band_description(number, name)
                    file.update_tags(**tags)
                copy(
                    plain, whole, driver="COG", compress="DEFLATE", predictor="YES", blocksize=_TILE,
                    overview_resampling="AVERAGE", BIGTIFF="IF_SAFER", num_threads=1,
                )  # fmt: skip
        except RasterioError as error:
            raise GeoBindError(
                f"cannot write {path} ({error}): free space, or choose another place"
            ) from None
        finally:
            plain.unlink(missing_ok=True)
        os.replace(whole, path)


def data_array(
    cells: Cells, names: Sequence[str], values: NDArray[np.float32], tags: Mapping[str, Any]
) -> DataArray:
    """An xarray DataArray (band, y, x) of a map, with the centres of its cells as coordinates."""
    try:
        import xarray
    except ImportError:
        raise GeoBindError('maps in Python need xarray: pip install "geobind[geo]"') from None
    x, _ = cells.centres(0, 1, 0, cells.shape[1])
    _, y = cells.centres(0, cells.shape[0], 0, 1)
    return xarray.DataArray(
        values, dims=("band", "y", "x"), coords={"band": list(names), "y": y, "x": x}, name="similarity",
        attrs={"crs": cells.crs, "transform": tuple(cells.transform)[:6], **tags},
    )  # fmt: skip


def read_map(path: str | Path) -> DataArray:
    """A map file that `write_map` wrote, as the DataArray that `geobind.map` gives.

    >>> read_map("beaches.tif").sel(band="a beach").plot()

    Raises GeoBindError for a file that is no map of geobind.
    """
    rasterio = need_rasterio()
    from rasterio.errors import RasterioIOError

    try:
        file = rasterio.open(path)
    except RasterioIOError as error:
        raise GeoBindError(f"map {path} cannot be opened ({error}): give a file of geobind map") from None
    with file:
        tags = {key: value for key, value in file.tags().items() if key.startswith("GEOBIND_")}
        if not tags or file.crs is None:
            raise GeoBindError(
                f"{path} is no map of geobind: write one with geobind map SPACE ... --out {path}"
            )
        step = file.transform.a
        cells = Cells(
            file.crs.to_string(),
            step,
            round(file.transform.c / step),
            round(-file.transform.f / step),
            file.shape,
        )
        return data_array(cells, file.descriptions, file.read(), tags)
