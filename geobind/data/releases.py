"""Published data sets that can be downloaded: where they are, what they weigh, under which licence."""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from geobind.errors import GeoBindError, did_you_mean
from geobind.media.http import opened_url

KNOWN = {
    "soundingearth": (
        "hub:MVRL/SoundingEarth", "tiles (Google Earth), sounds at 32 kHz, captions, positions, 10 km-cell split",
    ),
    "soundingearth-zenodo": (
        "zenodo:5600379", "the original: metadata.csv and tiles; the recordings themselves are on archive.org",
    ),
    "soundingearth-a2i": ("hub:dukesun99/SoundingEarth-A2I", "the task sound to tile of the MTEB leaderboard"),
    "soundingearth-i2a": ("hub:dukesun99/SoundingEarth-I2A", "the task tile to sound of the MTEB leaderboard"),
    "geosound": ("hub:MVRL/GeoSound", "tiles (Bing, Sentinel-2), sounds at 32 kHz, captions; for research only"),
}  # fmt: skip
UNAVAILABLE = {
    "sat2cap": (
        "its tiles are Bing imagery, whose terms forbid passing them on, and its photos are YFCC100M's; use instead "
        "the positions of geotagged photos that you have, with open tiles (Sentinel-2, NAIP) around them as a "
        "folder or table of pairs, or `geobind data fetch soundingearth`; shards that you have are read as they are"
    ),
    "bing": (
        "Bing's terms forbid downloading its tiles; use instead Sentinel-2 or NAIP from an open STAC catalogue, or "
        "the tiles within `geobind data fetch geosound`"
    ),
}
_ZENODO = "https://zenodo.org"
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class RemoteFile:
    """One file: path in the folder, where it comes from, bytes, and `md5:`, `sha256:` or `git:` with its digest."""

    path: str
    url: str
    size: int
    checksum: str | None


@dataclass(frozen=True)
class Release:
    """A data set as its host lists it today."""

    name: str
    title: str
    licence: str
    page: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def find_release(name: str) -> Release:
    """Ask the host what a data set consists of: a name of `KNOWN`, `hub:owner/name` or `zenodo:number`.

    >>> find_release("soundingearth").licence
    'cc-by-4.0'

    The Hub is asked at $HF_ENDPOINT where that is set, Zenodo at $ZENODO_ENDPOINT. Raises GeoBindError for
    a name that is none, data that cannot be had (with what to use instead), and a host that cannot be reached.
    """
    if name.lower() in UNAVAILABLE:
        raise GeoBindError(f"{name} cannot be downloaded: {UNAVAILABLE[name.lower()]}")
    address = KNOWN[name.lower()][0] if name.lower() in KNOWN else name
    kind, _, identity = address.partition(":")
    if kind == "hub" and identity.count("/") == 1:
        return _hub(name, identity)
    if kind == "zenodo" and identity.isdigit():
        return _zenodo(name, identity)
    raise GeoBindError(
        f"no data set {name!r}{did_you_mean(name, [*KNOWN, *UNAVAILABLE])}; others are hub:owner/name or zenodo:number"
    )


def _hub(name: str, identity: str) -> Release:
    """https://huggingface.co/docs/hub/api: /api/datasets/ID and /api/datasets/ID/tree/main."""
    base = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    card, _ = _json(f"{base}/api/datasets/{identity}")
    files = []
    for entry in _pages(f"{base}/api/datasets/{identity}/tree/main?recursive=true"):
        if entry.get("type") != "file":
            continue
        large = entry.get("lfs")
        checksum = f"sha256:{large['oid']}" if large else f"git:{entry['oid']}"
        url = f"{base}/datasets/{identity}/resolve/main/{quote(entry['path'])}"
        files.append(RemoteFile(_safe(entry["path"], base), url, entry["size"], checksum))
    licence = (card.get("cardData") or {}).get("license") or "not stated"
    licence = ", ".join(licence) if isinstance(licence, list) else licence
    return Release(name, identity, licence, f"{base}/datasets/{identity}", tuple(files))


def _zenodo(name: str, identity: str) -> Release:
    """https://developers.zenodo.org: /api/records/ID lists files with md5 checksums."""
    base = os.environ.get("ZENODO_ENDPOINT", _ZENODO).rstrip("/")
    record, _ = _json(f"{base}/api/records/{identity}")
    files = tuple(
        RemoteFile(_safe(file["key"], base), file["links"]["self"], file["size"], file.get("checksum"))
        for file in record.get("files", [])
    )
    metadata = record.get("metadata", {})
    licence = (metadata.get("license") or {}).get("id", "not stated")
    return Release(name, metadata.get("title", identity), licence, f"{base}/records/{identity}", files)


def _safe(path: str, base: str) -> str:
    if path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise GeoBindError(f"{base} lists the file {path!r}, which would lie outside the folder: refused")
    return path


def _pages(url: str) -> Iterator[dict[str, Any]]:
    following: str | None = url
    while following:
        entries, following = _json(following)
        yield from entries


def _json(url: str) -> tuple[Any, str | None]:
    """A JSON document and the address of its next page."""
    try:
        with opened_url(url) as response:
            content = json.loads(response.read())
            link = re.search(r'<([^>]+)>;\s*rel="next"', response.headers.get("Link", ""))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise GeoBindError(f"{url} cannot be reached ({reason}): check the network, or try later") from None
    except ValueError:
        raise GeoBindError(
            f"{url} does not answer with JSON: is the address a {_HUB} or {_ZENODO}?"
        ) from None
    return content, link[1] if link else None
