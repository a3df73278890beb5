"""Commands that make and look into a space: bind, evaluate, info, doctor."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from geobind.cli.app import (
    Changes,
    Device,
    Space,
    Workers,
    app,
    interruptible,
    parse_changes,
    print_tables,
)
from geobind.errors import GeoBindError


@app.command()
def bind(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML) of towers, pairs and stages.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the space, its checkpoints and logs; an interrupted run goes on.")
    ],
    changes: Changes = None,
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

    plan = Recipe.load(recipe, parse_changes(changes))
    if dry_run:
        from geobind.binding.plan import plan_table

        print_tables([plan_table(plan.plan(limit=limit))])
        return
    with interruptible(out):
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
    changes: Changes = None,
    protocol: Annotated[
        Literal["partner", "published"],
        typer.Option(help="published: count as the papers do, which docs/published.md explains."),
    ] = "partner",
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
        judged = Recipe.load(recipe, parse_changes(changes))
    elif loaded.recipe is not None:
        judged = Recipe.parse(loaded.recipe, f"the recipe saved in {space}", parse_changes(changes))
    else:
        raise GeoBindError(f"{space} was saved without a recipe: give one with --recipe")
    evaluations = judged.open_evaluations()
    if protocol == "published":  # groups have no published counterpart, and stay
        evaluations = [
            replace(e, protocol="published") if e.protocol == "partner" else e for e in evaluations
        ]
    if not evaluations:
        raise GeoBindError(
            "the recipe names no evaluations: add `evaluations:` to it, or give another with --recipe"
        )
    baseline = judged.open_baseline(loaded)
    report = run(loaded, evaluations, baseline=baseline, device=device, progress=sys.stderr.isatty())
    print_tables(report.tables())
    report.write(folder)
    if json_file is not None:
        write_text(json_file, report.to_json())
    print(f"Written: {folder}/metrics.json, metrics.md, recall.png")


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
    print_tables(space_tables(content))


@app.command()
def doctor(
    space: Annotated[str | None, typer.Argument(metavar="[DIR]", help="Also look into this space.")] = None,
) -> None:
    """Versions, device, caches and licences of what is installed and loaded."""
    from geobind.describe import doctor_tables
    from geobind.space import GeoBind

    print_tables(doctor_tables(None if space is None else GeoBind.from_pretrained(space)))
