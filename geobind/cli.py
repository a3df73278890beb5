"""The command line: parses, calls the public API, prints."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from geobind import __version__
from geobind.errors import GeoBindError, GeoBindWarning

if TYPE_CHECKING:
    from rich.table import Table

_POSITION = re.compile(r"-[\d.]+\s*,\s*[-+\d.]+")


class _Values(TyperCommand):
    """A command whose values may begin with a minus: -33.9,18.4 is a position and no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f" {arg}" if _POSITION.fullmatch(arg) else arg for arg in args])


app = typer.Typer(
    name="geobind",
    help="Learn and use one embedding space for everything known about a place, bound by satellite images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Space = Annotated[str, typer.Argument(metavar="DIR", help="A saved space: a folder or a Hub id.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the accelerator where there is one.")
]
OnError = Literal["raise", "skip"]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that decode files; chosen by the data if not given.")
]


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit status 1."""
    warnings.showwarning = _show_warning
    try:
        app()
    except GeoBindError as error:
        print(f"geobind: {error}", file=sys.stderr)
        sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    if issubclass(category, GeoBindWarning):
        print(f"geobind: warning: {message}", file=sys.stderr)
    elif category not in (FutureWarning, DeprecationWarning):
        print(f"{category.__name__}: {message}", file=sys.stderr)


@app.command()
def bind(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML) of towers, pairs and stages.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the space, its checkpoints and logs; an interrupted run goes on.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=2, help="Train each stage on its first rows only.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at unreadable media instead of replacing it.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Train every stage of a recipe. On several processes or GPUs: accelerate launch -m geobind bind ..."""
    from geobind.binding.processes import is_main_process
    from geobind.recipe import Recipe

    plan = Recipe.load(recipe)
    if dry_run:
        from geobind.binding.plan import plan_table

        _print_tables([plan_table(plan.plan(limit=limit))])
        return
    with _interruptible(out):
        plan.run(
            out, limit=limit, strict=strict, workers=workers, report=lambda result: print(result.summary())
        )
    if is_main_process():
        print(f"Space written to {out}. Next: geobind evaluate {out}")


@app.command()
def evaluate(
    space: Space,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Judge on this recipe's pairs and evaluations instead of the saved ones."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the rows of metrics.json to this file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics.json, metrics.md and recall.png; DIR if not given."),
    ] = None,
    device: Device = None,
) -> None:
    """Retrieval tables of every pair that the recipe names, both directions, with intervals and chance."""
    from geobind.recipe import Recipe
    from geobind.retrieval.evaluation import evaluate as run
    from geobind.space import GeoBind
    from geobind.storage import write_text

    loaded = GeoBind.from_pretrained(space)
    folder = out if out is not None else Path(space)
    if out is None and not folder.is_dir():
        raise GeoBindError(f"{space} is on the Hub: say with --out into which folder the metrics go")
    if recipe is not None:
        judged = Recipe.load(recipe)
    elif loaded.recipe is not None:
        judged = Recipe.parse(loaded.recipe, f"the recipe saved in {space}")
    else:
        raise GeoBindError(f"{space} was saved without a recipe: give one with --recipe")
    evaluations = judged.open_evaluations()
    if not evaluations:
        raise GeoBindError(
            "the recipe names no evaluations: add `evaluations:` to it, or give another with --recipe"
        )
    baseline = judged.open_baseline(loaded)
    report = run(loaded, evaluations, baseline=baseline, device=device, progress=sys.stderr.isatty())
    _print_tables(report.tables())
    report.write(folder)
    if json_file is not None:
        write_text(json_file, report.to_json())
    print(f"Written: {folder}/metrics.json, metrics.md, recall.png")


@app.command(cls=_Values)
def embed(
    space: Space,
    modality: Annotated[
        str, typer.Argument(help="Which tower: satellite, image, text, audio, location, ...")
    ],
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="Files and folders; sentences for text (or .txt, one a line); lat,lon for location; .npz features for vectors.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Parquet file of keys and embeddings.")],
    on_error: Annotated[OnError, typer.Option(help="What to do with unreadable values.")] = "raise",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    device: Device = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode files.")] = 0,
) -> None:
    """Embed values of one modality into a Parquet file (columns key, embedding)."""
    from geobind.files import embed_to_parquet
    from geobind.space import GeoBind

    count, skipped = embed_to_parquet(
        GeoBind.from_pretrained(space), modality, values, out, on_error=on_error, batch_size=batch_size,
        device=device, workers=workers, progress=sys.stderr.isatty(),
    )  # fmt: skip
    print(
        f"{count} embeddings of {modality} written to {out}"
        + (f", {skipped} unreadable left out" if skipped else "")
    )


@app.command()
def info(
    space: Space, as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False
) -> None:
    """What a space holds: towers, parameters, fingerprints, what was bound to what, temperatures."""
    from geobind.describe import describe, space_tables
    from geobind.space import GeoBind

    content = describe(GeoBind.from_pretrained(space))
    if as_json:
        print(json.dumps(content, indent=2))
        return
    _print_tables(space_tables(content))


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the Earth, the space, tables, maps and report.html.")
    ] = Path("runs/demo"),
    places: Annotated[int, typer.Option(min=600, help="Places of the miniature Earth.")] = 12_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    export: Annotated[
        Path | None,
        typer.Option(help="Only write the Earth, as ordinary files and tables, into this folder."),
    ] = None,
) -> None:
    """A miniature Earth: five modalities bound through satellite images in minutes, with world maps."""
    from geobind.demo.run import export_earth, run_demo, summary_tables

    with _interruptible(export or out):
        if export is not None:
            export_earth(export, places=places, seed=seed)
            print(f"Earth of {places:,} places written to {export}; README.md there explains it")
            return
        results = run_demo(out, places=places, seed=seed)
    _print_tables([*results.report.tables(), *summary_tables(results)])
    print(f"Written: {out}/report.html, maps.png, metrics.json, metrics.md; {out}/space is the space")


@contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Ctrl-C ends a long job with a line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"geobind: stopped; what is finished is kept in {out}, and the same command goes on",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


@app.command()
def doctor(
    space: Annotated[str | None, typer.Argument(metavar="[DIR]", help="Also look into this space.")] = None,
) -> None:
    """Versions, device, caches and licences of what is installed and loaded."""
    from geobind.describe import doctor_tables
    from geobind.space import GeoBind

    _print_tables(doctor_tables(None if space is None else GeoBind.from_pretrained(space)))


def _print_tables(tables: Iterable[Table]) -> None:
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)


def _version(value: bool) -> None:
    if value:
        print(f"geobind {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
