"""Results as one HTML file with thumbnails and players, and as a table for the terminal."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

import soundfile
from PIL import Image
from rich.table import Table

from geobind.console import add_row, table
from geobind.errors import GeoBindError
from geobind.gallery.search import Hit, Results
from geobind.gallery.tiles import TIFF, Windows
from geobind.media.images import load_image
from geobind.storage import write_text

_THUMBNAIL = 240
_SOUNDS = {".ogg": "ogg", ".wav": "wav", ".mp3": "mpeg", ".flac": "flac"}
_LARGEST_SOUND = 4_000_000
_WINDOW = re.compile(r"(.+)#(\d+),(\d+),(\d+),(\d+)")

_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222 }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 1rem; padding: 0; list-style: none }}
li {{ border: 1px solid #ddd; border-radius: 6px; overflow: hidden; background: #fafafa }}
img {{ width: 100%; aspect-ratio: 1; object-fit: cover; display: block }}
audio {{ width: 100% }} p {{ margin: .4rem .7rem }} .source {{ color: #666; font-size: 12px; overflow-wrap: anywhere }}
.none {{ aspect-ratio: 1; display: grid; place-items: center; color: #999; padding: 1rem; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1><p>{summary}</p><ol>
{cards}
</ol></html>
"""


def write_page(results: Results, path: str | Path, *, title: str) -> None:
    """Write results as one HTML file that needs nothing beside it.

    Images and tiles become thumbnails, sounds of up to 4 MB players; other values, and files that are no
    longer there, show their name. Places link to OpenStreetMap.
    """
    summary = f"{len(results)} best of {results.searched:,} compared, by {results.scored}"
    cards = "\n".join(_card(rank, hit) for rank, hit in enumerate(results, 1))
    write_text(Path(path), _PAGE.format(title=html.escape(title), summary=summary, cards=cards))


def results_table(results: Results, title: str) -> Table:
    """The hits for the terminal: rank, score, place, time, source."""
    shown = table(title, "Rank", "Score", "Modality", "Place", "Time", "Source", right=("Rank", "Score"))
    for rank, hit in enumerate(results, 1):
        add_row(shown, str(rank), f"{hit.score:.4f}", hit.modality, _place(hit), _time(hit), hit.source)
    return shown


def _card(rank: int, hit: Hit) -> str:
    place = html.escape(_place(hit))
    if hit.latitude is not None:
        address = f"https://www.openstreetmap.org/?mlat={hit.latitude:.5f}&mlon={hit.longitude:.5f}#map=11/{hit.latitude:.5f}/{hit.longitude:.5f}"
        place = f'<a href="{html.escape(address)}">{place}</a>'
    return (
        f"<li>{_media(hit)}<p><b>{rank}. {hit.score:.4f}</b> {html.escape(hit.modality)}</p>"
        f'<p>{place} {html.escape(_time(hit))}</p><p class="source">{html.escape(hit.source)}</p></li>'
    )


def _media(hit: Hit) -> str:
    suffix = Path(hit.source).suffix.lower()
    try:
        if suffix in _SOUNDS and Path(hit.source).stat().st_size <= _LARGEST_SOUND:
            soundfile.info(hit.source)
            content = base64.b64encode(Path(hit.source).read_bytes()).decode()
            return f'<audio controls src="data:audio/{_SOUNDS[suffix]};base64,{content}"></audio>'
        if hit.modality not in ("text", "location"):
            return f'<img alt="" src="data:image/jpeg;base64,{_thumbnail(hit.source)}">'
    except (GeoBindError, OSError, soundfile.SoundFileError):  # no picture, or it is gone
        pass
    return f'<div class="none">{html.escape(hit.source)}</div>'


def _thumbnail(source: str) -> str:
    window = _WINDOW.fullmatch(source)
    value: str | bytes = source
    if window is not None and Path(window[1]).suffix.lower() in TIFF:
        left, top, width, height = map(int, window.groups()[1:])
        tiles = Windows(window[1], max(width, height))
        value = tiles[next(i for i in range(len(tiles)) if tiles.window(i) == (left, top, width, height))]
    image = Image.fromarray(load_image(value, target=_THUMBNAIL))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def _place(hit: Hit) -> str:
    return "" if hit.latitude is None or hit.longitude is None else f"{hit.latitude:.4f}, {hit.longitude:.4f}"


def _time(hit: Hit) -> str:
    text = hit.timestamp or ""
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) >= 8 else text
