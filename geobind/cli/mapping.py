"""The command that draws: map."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from geobind.cli.app import Device, Ray, Space, Values, app, interruptible
from geobind.errors import GeoBindError

Several = list[str] | None


@app.command("map", cls=Values)
def map_command(
    space: Space,
    out: Annotated[Path, typer.Option(help="The map: a Cloud-Optimised GeoTIFF.")],
    text: Annotated[Several, typer.Option(help="A sentence; each gives a band.")] = None,
    audio: Annotated[Several, typer.Option(help="A sound file; each gives a band.")] = None,
    image: Annotated[Several, typer.Option(help="A photo from the ground; each gives a band.")] = None,
    query: Annotated[
        Several, typer.Option(help="""A blend, such as '+text:"a beach" +audio:surf.ogg -text:crowds@0.5'.""")
    ] = None,
    area: Annotated[
        str | None,
        typer.Option(
            metavar="AREA",
            help="west,south,east,north in degrees, a GeoJSON file, or a raster whose extent it is; all of the imagery if not given.",
        ),
    ] = None,
    imagery: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="A raster (GeoTIFF, VRT), a folder of located tiles, a gallery, an XYZ template with {z}/{x}/{y}, a search stac:URL?collection=NAME, or earth (the miniature Earth).",
        ),
    ] = "earth",
    ground: Annotated[
        float | None, typer.Option(help="Side of a tile on the ground in metres; the imagery's if not given.")
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(
            help="Side of a cell in units of the CRS (metres, or degrees); the tile's if not given."
        ),
    ] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of the map, such as EPSG:32633; the imagery's if not given.")
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Bands of the raster for the tower, such as 4,3,2.")
    ] = None,
    stretch: Annotated[
        str | None, typer.Option(help="LOW,HIGH: values that become black and white, such as 0,3000.")
    ] = None,
    template: Annotated[
        Several,
        typer.Option(help="Wording with {} for the texts, may be repeated: 'a satellite image of {}'."),
    ] = None,
    values: Annotated[
        Literal["cosine", "percentile"],
        typer.Option(help="percentile: share, 0 to 1, of the background's cosines that are lower."),
    ] = "cosine",
    spread: Annotated[
        bool, typer.Option("--spread", help="Also a band of the deviation over the templates.")
    ] = False,
    when: Annotated[
        Several, typer.Option(help="A moment such as 2024-07-01T14:00 (UTC); each gives bands of its own.")
    ] = None,
    attribution: Annotated[str, typer.Option(help="Who is to be credited for the imagery.")] = "",
    png: Annotated[Path | None, typer.Option(help="Also a picture of the map.")] = None,
    modality: Annotated[str, typer.Option(help="The tower of the tiles.")] = "satellite",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    device: Device = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that cut tiles.")] = 0,
    ray: Ray = False,
) -> None:
    """A map of where queries fit, as a GeoTIFF; the same command goes on after an interruption."""
    from geobind.mapping.imagery import open_imagery
    from geobind.mapping.run import write_map
    from geobind.retrieval.query import Query, Term
    from geobind.space import GeoBind

    templates = tuple(template or ("{}",))
    queries = {one: Query([Term("text", one)], templates=templates) for one in text or ()}
    for name, files in (("audio", audio), ("image", image)):
        queries |= {Path(file).name: Query([Term(name, file)]) for file in files or ()}
    queries |= {one: Query.parse(one, templates=templates) for one in query or ()}
    if not queries:
        raise GeoBindError("a map needs a query: give --text, --audio, --image or --query")
    source = open_imagery(
        imagery, attribution=attribution, bands=None if bands is None else [int(b) for b in _numbers(bands, "bands")],
        stretch=None if stretch is None else _pair(stretch),
    )  # fmt: skip
    with interruptible(out.with_name(out.name + ".work")):
        write_map(
            GeoBind.from_pretrained(space), queries, area, source, out, ground=ground, step=step, crs=crs,
            values=values, spread=spread, when=tuple(when or ()), modality=modality, batch_size=batch_size,
            device=device, workers=workers, ray=ray, progress=sys.stderr.isatty(),
        )  # fmt: skip
    print(f"Map of {len(queries)} quer{'y' if len(queries) == 1 else 'ies'} written to {out}")
    if png is not None:
        from geobind.mapping.draw import draw_map

        draw_map(out, png)
        print(f"Picture written to {png}")


def _numbers(text: str, name: str) -> list[float]:
    try:
        found = json.loads(f"[{text}]")
        if all(isinstance(number, int | float) for number in found):
            return found
    except ValueError:
        pass
    raise GeoBindError(f"--{name} {text}: give numbers with commas between")


def _pair(text: str) -> tuple[float, float]:
    numbers = _numbers(text, "stretch")
    if len(numbers) != 2:
        raise GeoBindError(f"--stretch {text}: give two numbers, such as 0,3000")
    return numbers[0], numbers[1]
