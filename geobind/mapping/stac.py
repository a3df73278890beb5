"""Imagery found by a STAC search: the newest clear scene of each place, read by windows from where it lies."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError, did_you_mean, shorten
from geobind.mapping.area import DEGREES, Area, project_bounds
from geobind.mapping.imagery import Imagery, NoImagery, RasterImagery
from geobind.media.geojson import read_polygon
from geobind.media.http import ATTEMPTS
from geobind.media.windows import need_rasterio

STAC = "stac:"
_ASSETS = ("visual", "image")  # pictures of 8 bit: Sentinel-2's true colour, NAIP
_CLOUD = 20.0
_KNOWN = {"collection": "", "datetime": "", "cloud": "", "asset": ""}
_EXAMPLE = "stac:https://host/v1?collection=sentinel-2-l2a&datetime=2024-06/2024-08&cloud=20"
_MOST = 2000  # scenes of a search
_OPEN = 16  # scenes a process holds open
_COLOURS = ("red", "green", "blue")
_GDAL = {
    "GDAL_HTTP_USERAGENT": "geobind", "GDAL_HTTP_MAX_RETRY": str(ATTEMPTS - 1), "GDAL_HTTP_RETRY_DELAY": "0.4",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "TRUE",
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A picture that a search found: its address, what it covers (WKB in degrees), and its bands of red, green, blue."""

    name: str
    href: str
    shape: bytes
    bands: tuple[int, ...] | None = None


class StacImagery(Imagery):
    """Scenes of a collection of a STAC API; a tile is of the newest one that covers it.

    >>> StacImagery("stac:https://earth-search.aws.element84.com/v1?collection=sentinel-2-l2a&datetime=2024-06/2024-08")

    After the API's address: `collection`; `datetime`, a moment or FROM/TO; `cloud`, the highest cloud cover in
    percent (20; collections that do not tell are taken as they are); `asset`, the picture (visual, else image).
    One search is made an area, newest first; it ends when the scenes cover the area. Only windows of the scenes
    are asked for, again after a pause where the server is overloaded. The collection's providers and licence are
    the attribution if none is given. Addresses that need signing are not read.
    Raises GeoBindError for an address that is none, and a search that finds nothing.
    """

    def __init__(
        self,
        address: str,
        *,
        bands: list[int] | None = None,
        stretch: tuple[float, float] | None = None,
        attribution: str = "",
    ) -> None:
        parts = urlsplit(address.removeprefix(STAC))
        given = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        for key in given:
            if key not in _KNOWN:
                raise GeoBindError(f"{address}: no option {key}{did_you_mean(key, _KNOWN)}: write {_EXAMPLE}")
        if parts.scheme not in ("http", "https") or not given.get("collection"):
            raise GeoBindError(f"{address} is no STAC search: write {_EXAMPLE}")
        self.api = parts._replace(query="").geturl()
        self.collection, self.datetime = given["collection"], given.get("datetime")
        self.asset = given.get("asset")
        try:
            self.cloud = float(given.get("cloud", _CLOUD))
        except ValueError:
            raise GeoBindError(
                f"{address}: cloud is {given['cloud']!r}: give percent, such as cloud=20"
            ) from None
        self.bands, self.stretch, self.attribution = bands, stretch, attribution
        self.identity = address
        self.scenes: list[Scene] = []
        self._opened: OrderedDict[str, RasterImagery] = OrderedDict()
        self._tree: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict(), "_tree": None}

    def over(self, area: Area) -> StacImagery:
        found = copy.copy(self)
        found.scenes, providers = self._search(area)
        digest = hashlib.sha256("\n".join(scene.name for scene in found.scenes).encode()).hexdigest()[:16]
        found.identity = f"{self.identity} {len(found.scenes)} scenes {digest} {self.bands} {self.stretch}"
        found.attribution = self.attribution or providers
        found._opened, found._tree = OrderedDict(), None
        found.crs = found._raster(found.scenes[0]).crs
        return found

    def tile(self, latitude: float, longitude: float, ground: float, pixels: int) -> NDArray[Any]:
        for scene in self._covering(latitude, longitude):
            try:
                with _environment():
                    return self._raster(scene).tile(latitude, longitude, ground, pixels)
            except NoImagery:
                continue  # its edge: an older one may be whole
            except GeoBindError as error:
                raise _unread(scene, error) from None
        raise NoImagery(f"no scene covers {latitude:.5f}, {longitude:.5f}")

    def default_ground(self, pixels: int) -> float:
        return self._raster(self.scenes[0]).default_ground(pixels)

    def check(self, channels: int, mean: tuple[float, ...]) -> None:
        self._raster(self.scenes[0]).check(channels, mean)

    def _raster(self, scene: Scene) -> RasterImagery:
        if scene.href not in self._opened:
            bands = self.bands or (list(scene.bands) if scene.bands else None)
            try:
                with _environment():
                    self._opened[scene.href] = RasterImagery(scene.href, bands=bands, stretch=self.stretch)
            except GeoBindError as error:
                raise _unread(scene, error) from None
        self._opened.move_to_end(scene.href)
        while len(self._opened) > _OPEN:
            self._opened.popitem(last=False)
        return self._opened[scene.href]

    def _covering(self, latitude: float, longitude: float) -> Iterator[Scene]:
        """The scenes over a point, newest first."""
        import shapely

        if self._tree is None:
            self._tree = shapely.STRtree(shapely.from_wkb([scene.shape for scene in self.scenes]))
        points = shapely.points([longitude - 360, longitude, longitude + 360], [latitude] * 3)
        for position in np.unique(self._tree.query(points, predicate="intersects")[1]):
            yield self.scenes[position]

    def _search(self, area: Area) -> tuple[list[Scene], str]:
        """The scenes over an area, newest first, and who provides them."""
        client_module = _need_pystac_client()
        from pystac.errors import STACError
        from pystac_client.conformance import ConformanceClasses
        from pystac_client.errors import ClientTypeError
        from pystac_client.exceptions import APIError
        from pystac_client.stac_api_io import StacApiIO
        from urllib3.util import Retry

        retry = Retry(
            ATTEMPTS - 1, backoff_factor=0.4, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None
        )
        try:
            api = client_module.Client.open(
                self.api, stac_io=StacApiIO({"User-Agent": "geobind"}, timeout=60, max_retries=retry)
            )
            providers = _providers(self._collection(api))
            sort = [{"field": "properties.datetime", "direction": "desc"}]
            ordered = api.conforms_to(ConformanceClasses.SORT)
            search = api.search(
                method="POST" if _posts(api) else "GET", collections=[self.collection], bbox=_box(area),
                datetime=self.datetime, sortby=sort if ordered else None, limit=100, max_items=_MOST,
            )  # fmt: skip
            return self._chosen(search.items(), area, ordered), providers
        except APIError as error:
            raise GeoBindError(
                f"{self.api}: the search fails ({shorten(str(error).strip() or type(error).__name__, 160)}): "
                f"check the address and the options, or try later"
            ) from None
        except (ClientTypeError, STACError, KeyError, TypeError, ValueError) as error:
            raise GeoBindError(
                f"{self.api} answers what is no STAC ({shorten(str(error), 120)}): give the address of an API"
            ) from None

    def _collection(self, api: Any) -> Any:
        from pystac_client.exceptions import APIError

        try:
            if found := api.get_collection(self.collection):
                return found
        except APIError as error:
            if error.status_code != 404:
                raise
        known = [collection.id for collection in api.get_collections()]
        raise GeoBindError(
            f"{self.api} has no collection {self.collection}{did_you_mean(self.collection, known)}: "
            f"it has {', '.join(known[:12])}"
        )

    def _chosen(self, items: Iterator[Any], area: Area, ordered: bool) -> list[Scene]:
        """Clear scenes, newest first, until they cover the area."""
        import shapely

        wanted = shapely.box(*project_bounds(area.bounds, area.crs, DEGREES))
        left, seen, found = wanted, 0, []
        for item in items:
            seen += 1
            if (item.properties.get("eo:cloud_cover") or 0) > self.cloud or item.geometry is None:
                continue
            shape = read_polygon(item.geometry)
            found.append((str(item.properties.get("datetime") or ""), self._scene(item, shape)))
            for turn in (-360, 0, 360):
                left = left.difference(shapely.affinity.translate(shape, turn))
            if ordered and left.is_empty:
                break
        if not found:
            why = (
                f"none of {seen} has at most {self.cloud:g} % cloud: raise cloud"
                if seen
                else "give another area or datetime"
            )
            raise GeoBindError(
                f"{self.api}: no scene of {self.collection} over {', '.join(f'{v:g}' for v in wanted.bounds)}"
                f"{f' in {self.datetime}' if self.datetime else ''}: {why}"
            )
        found.sort(key=lambda dated: dated[0], reverse=True)
        return [scene for _, scene in found]

    def _scene(self, item: Any, shape: Any) -> Scene:
        names = [self.asset] if self.asset else _ASSETS
        name = next((name for name in names if name in item.assets), None)
        if name is None:
            raise GeoBindError(
                f"scene {item.id} has no asset {' or '.join(names)}: name one of "
                f"{', '.join(list(item.assets)[:12])} with asset=..."
            )
        asset = item.assets[name]
        return Scene(
            item.id, asset.get_absolute_href() or asset.href, shape.wkb, _colour_bands(asset.extra_fields)
        )


def _colour_bands(fields: dict[str, Any]) -> tuple[int, ...] | None:
    """Of an asset with more bands than colours, the numbers of red, green and blue."""
    bands = fields.get("bands") or fields.get("eo:bands") or []
    names = [str(b.get("eo:common_name") or b.get("common_name") or b.get("name")).lower() for b in bands]
    return tuple(names.index(colour) + 1 for colour in _COLOURS) if set(_COLOURS) <= set(names) else None


def _providers(collection: Any) -> str:
    names = [provider.name for provider in collection.providers or ()]
    return "; ".join([", ".join(dict.fromkeys(names)), collection.license or ""]).strip("; ")


def _posts(api: Any) -> bool:
    return any(link.rel == "search" and link.extra_fields.get("method") == "POST" for link in api.links)


def _box(area: Area) -> list[float]:
    """West above east is a box across the date line, as GeoJSON and STAC have it."""
    west, south, east, north = project_bounds(area.bounds, area.crs, DEGREES)
    if east - west >= 360:
        return [-180.0, south, 180.0, north]
    return [west, south, east - 360 if east > 180 else east, north]


def _environment() -> Any:
    """GDAL's settings for files behind a server."""
    return need_rasterio().Env(**_GDAL)


def _unread(scene: Scene, error: GeoBindError) -> GeoBindError:
    if not scene.href.startswith(("http://", "https://", "s3://")):
        return error
    return GeoBindError(
        f"scene {scene.name} cannot be read ({shorten(str(error), 300)}): its server is down, or asks for a login or "
        f"signed addresses; what was made is kept"
    )


def _need_pystac_client() -> Any:
    try:
        import pystac_client
    except ImportError:
        raise GeoBindError('a STAC search needs pystac-client: pip install "geobind[geo,stac]"') from None
    return pystac_client
