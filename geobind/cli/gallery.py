"""Commands that embed, and search what was embedded: embed, search, gallery."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from geobind.cli.app import Device, OnError, Ray, Space, Values, app, interruptible, print_tables
from geobind.errors import GeoBindError

Gallery = Annotated[
    str, typer.Argument(metavar="GALLERY", help="A gallery: a folder, or s3://, gs://, az://.")
]


class _Query(typer.core.TyperCommand):
    """A command whose query may begin with a minus: -text:crowds is a term and no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        import re

        return super().parse_args(ctx, [f" {a}" if re.match(r"-[A-Za-z_]\w+:", a) else a for a in args])


@app.command(cls=Values)
def embed(
    space: Space,
    modality: Annotated[
        str, typer.Argument(help="Which tower: satellite, image, text, audio, location, ...")
    ],
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="Files and folders; sentences for text (or .txt, one a line); lat,lon for location; .npz features for vectors. "
            "With --gallery also tables, tar shards and big GeoTIFFs.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Parquet file of keys and embeddings.")] = None,
    gallery: Annotated[
        str | None,
        typer.Option(help="Gallery to add to: a folder or s3://...; the same command goes on after a stop."),
    ] = None,
    on_error: Annotated[
        OnError | None,
        typer.Option(help="Unreadable values; raise with --out, skip with --gallery if not given."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Gallery: a table's column, or the member of a tar shard's samples, if not that of the modality's name; "
            "a,b,c make a vector."
        ),
    ] = None,
    tile: Annotated[
        int, typer.Option(min=8, help="Gallery: side in pixels of the tiles of a big GeoTIFF.")
    ] = 256,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    device: Device = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode files.")] = 0,
    ray: Ray = False,
) -> None:
    """Embed values of one modality into a gallery, or into a Parquet file (columns key, embedding)."""
    from geobind.files import embed_to_parquet
    from geobind.gallery.embedding import embed_to_gallery
    from geobind.gallery.store import Gallery as Store
    from geobind.space import GeoBind

    if (out is None) == (gallery is None):
        raise GeoBindError("say where the embeddings go: either --gallery GALLERY or --out FILE.parquet")
    if ray and out is not None:
        raise GeoBindError("--ray embeds into a gallery: give --gallery in place of --out")
    loaded = GeoBind.from_pretrained(space)
    progress = sys.stderr.isatty()
    if out is not None:
        count, skipped = embed_to_parquet(
            loaded, modality, values, out, on_error=on_error or "raise", batch_size=batch_size,
            device=device, workers=workers, progress=progress,
        )  # fmt: skip
        print(
            f"{count} embeddings of {modality} written to {out}"
            + (f", {skipped} unreadable left out" if skipped else "")
        )
        return
    where = str(Path(space).absolute()) if Path(space).exists() else space
    with interruptible(Path(str(gallery))):
        counts = embed_to_gallery(
            loaded, modality, values, Store(str(gallery), space=where), column=column, tile=tile,
            on_error=on_error or "skip", batch_size=batch_size, device=device, workers=workers, ray=ray,
            progress=progress,
        )  # fmt: skip
    for message in counts.unreadable:
        print(f"unreadable: {message}", file=sys.stderr)
    print(
        f"{counts.added} embeddings of {modality} added to {gallery}"
        + (f", {counts.present} were there" if counts.present else "")
        + (f", {len(counts.unreadable)} unreadable left out" if counts.unreadable else "")
    )


@app.command(cls=_Query)
def search(
    gallery: Gallery,
    query: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY...",
            help="""A text, or terms: +text:"a beach" +audio:surf.ogg -text:crowds +location:21.3,-157.8@0.5 image:photo.jpg""",
        ),
    ],
    space: Annotated[
        str | None, typer.Option(help="The space; the one that filled the gallery if not given.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many results.")] = 10,
    combine: Annotated[
        Literal["sum", "product", "minimum"],
        typer.Option(help="How several terms are joined; product and minimum are AND."),
    ] = "sum",
    template: Annotated[
        list[str] | None,
        typer.Option(help="""Around each text, such as "a satellite photo of {}"; several are averaged."""),
    ] = None,
    bbox: Annotated[
        str | None, typer.Option(help="west,south,east,north; west above east crosses the date line.")
    ] = None,
    polygon: Annotated[str | None, typer.Option(help="GeoJSON, or a file of it.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Not before: 2021, 2021-06, 2021-06-30T12:00.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Not after; 2021 is its whole year.")] = None,
    modality: Annotated[str | None, typer.Option(help="Only rows of this modality.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL on any column: \"product_id LIKE 'S2A%'\".")] = None,
    score: Annotated[
        Literal["cosine", "logit", "probability", "percentile"],
        typer.Option(
            help="logit, probability (among the rows compared): pairs that a stage has linked; percentile: after geobind calibrate."
        ),
    ] = "cosine",
    recall: Annotated[
        float | None,
        typer.Option(help="Approximate, by the index, at this recall@10 (0.98); exact if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
    as_geojson: Annotated[bool, typer.Option("--geojson", help="Print GeoJSON.")] = False,
    page: Annotated[
        Path | None, typer.Option("--html", help="Write a page with thumbnails and players.")
    ] = None,
    device: Device = None,
) -> None:
    """Find what meets a query best: text, sound, photo, tile, place, vector, or several at once."""
    from geobind.gallery.filters import Filter
    from geobind.gallery.search import search as run
    from geobind.gallery.store import Gallery as Store
    from geobind.retrieval.query import VECTOR, Query
    from geobind.space import GeoBind

    store = Store(gallery)
    asked = Query.parse(
        " ".join(term.strip() for term in query), combine=combine, templates=template or ("{}",)
    )
    folder = space or store.record["space"]
    needed = any(term.modality != VECTOR for term in asked.terms)
    if needed and folder is None:
        raise GeoBindError(
            f"gallery {gallery} does not say with which space it was made: give it with --space"
        )
    box = None
    if bbox is not None:
        try:
            box = [float(side) for side in bbox.split(",")]
        except ValueError:
            raise GeoBindError(f"bbox {bbox!r}: give west,south,east,north in degrees") from None
    keep = Filter(
        bbox=box,
        polygon=polygon,
        time=(start, end) if start or end else None,
        modality=modality,
        where=where,
    )
    results = run(
        GeoBind.from_pretrained(folder) if folder and needed else None,
        store, asked, k=k, filter=keep, scored=score, recall=recall, device=device,
    )  # fmt: skip
    if not len(results):
        print(f"geobind: no row of {gallery} passes the filters: widen them", file=sys.stderr)
    if page is not None:
        from geobind.gallery.page import write_page

        write_page(results, page, title=" ".join(query))
        print(f"Written: {page}", file=sys.stderr)
    if as_json or as_geojson:
        print(results.to_json() if as_json else results.to_geojson())
    elif page is None and len(results):
        from geobind.gallery.page import results_table

        print_tables(
            [results_table(results, f"{len(results)} best of {results.searched:,}, by {results.scored}")]
        )


@app.command("gallery")
def gallery_command(
    gallery: Gallery,
    index: Annotated[
        bool, typer.Option("--index", help="Build the approximate index, and measure its recall.")
    ] = False,
    export: Annotated[Path | None, typer.Option(help="Write it as GeoParquet in Major TOM's schema.")] = None,
    add: Annotated[
        Path | None, typer.Option(help="Add the rows of such a table, or AlphaEarth's vectors of a GeoTIFF.")
    ] = None,
    tower: Annotated[
        str | None,
        typer.Option(help="With --add: which tower made a table's vectors, such as majortom:dinov2."),
    ] = None,
    step: Annotated[
        int, typer.Option(min=1, help="With --add of AlphaEarth: every so many pixels of 10 m.")
    ] = 1,
) -> None:
    """What a gallery holds, as JSON; with an option: its index, GeoParquet out and in."""
    from geobind.gallery.exchange import add_alphaearth, read_geoparquet, write_geoparquet
    from geobind.gallery.index import build_index
    from geobind.gallery.schema import Origin
    from geobind.gallery.store import Gallery as Store
    from geobind.gallery.tiles import TIFF

    store = Store(gallery)
    if add is not None:
        if add.suffix.lower() in TIFF:
            added = add_alphaearth(store, add, step=step)
        else:
            added = read_geoparquet(store, add, origin=None if tower is None else Origin("satellite", tower))
        print(f"{added:,} rows added to {gallery}")
    if export is not None:
        print(f"{write_geoparquet(store, export):,} rows written to {export}")
    if index:
        for share, rows in itertools.groupby(build_index(store), key=lambda row: row["share"]):
            found = ", ".join(f"{row['probes']}: {row['recall']:.3f}" for row in rows)
            print(f"recall@10 where filters keep {share:.0%}, by partitions looked into: {found}")
    if not (add or export or index):
        print(
            json.dumps(
                {"rows": len(store), "modalities": store.modalities, "version": store.version} | store.record,
                indent=2,
            )
        )
