"""Commands that use a space for a task: classify, probe, calibrate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geobind.cli.app import Device, OnError, Space, Values, app, print_tables
from geobind.errors import GeoBindError

if TYPE_CHECKING:
    from geobind.space import GeoBind


@app.command(cls=Values)
def classify(
    space: Space,
    modality: Annotated[str, typer.Argument(help="What is classified: satellite, image, audio, ...")],
    values: Annotated[list[str], typer.Argument(metavar="FILES...", help="As for `geobind embed`.")],
    classes: Annotated[
        str, typer.Option(help="Names with commas between, or a .txt file of one class a line.")
    ],
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Wording with {} for the class, may be repeated; a set for the modality if not given."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cosine of every class as JSON.")] = False,
    on_error: Annotated[OnError, typer.Option(help="What to do with unreadable values.")] = "raise",
    device: Device = None,
) -> None:
    """Zero-shot classification: which of the classes' names each value is nearest to."""
    from geobind.console import add_row, table
    from geobind.files import read_values
    from geobind.space import GeoBind
    from geobind.tasks.zero_shot import classify as run
    from geobind.tasks.zero_shot import read_classes

    loaded = GeoBind.from_pretrained(space)
    names = read_classes(classes)
    found = []
    for part in read_values(modality, loaded.tower(modality).processor.takes, values):
        result = run(
            loaded, modality, part.values, names, templates=template, on_error=on_error, device=device,
            progress=sys.stderr.isatty(),
        )  # fmt: skip
        found += list(zip(part.keys.to_pylist(), result.labels, result.cosines.tolist(), strict=True))
    if as_json:
        rows = [
            {"key": key, "class": label, "cosines": dict(zip(names, row, strict=True)) if label else None}
            for key, label, row in found
        ]
        print(json.dumps(rows, indent=2))
        return
    shown = table(
        f"{len(names)} classes", modality, "class", "cosine", "next", "cosine ", right=("cosine", "cosine ")
    )
    for key, label, row in found:
        if label is None:
            add_row(shown, key, "unreadable", "", "", "")
            continue
        first, second = sorted(range(len(names)), key=lambda i: -row[i])[:2]
        add_row(shown, key, names[first], f"{row[first]:.3f}", names[second], f"{row[second]:.3f}")
    print_tables([shown])


@app.command()
def calibrate(
    space: Space,
    split: Annotated[
        str | None, typer.Option(help="Rows of this split; val where there is one, else train, if not given.")
    ] = None,
    device: Device = None,
) -> None:
    """Keep with a space how high its cosines run by chance, from its recipe's pairs, for percentile scores."""
    from geobind.recipe import Recipe
    from geobind.retrieval.scores import backgrounds
    from geobind.retrieval.scores import calibrate as run
    from geobind.space import GeoBind

    loaded = GeoBind.from_pretrained(space)
    if loaded.recipe is None or not Path(space).is_dir():
        raise GeoBindError(
            f"{space} has no recipe, or is on the Hub: use geobind.calibrate(space, backgrounds) in Python"
        )
    recipe = Recipe.parse(loaded.recipe, f"the recipe saved in {space}")
    pairs = [recipe.open_pairs(name) for name in recipe.pairs]
    run(loaded, backgrounds(loaded, pairs, split=split, device=device, progress=sys.stderr.isatty()))
    loaded.save_pretrained(space)
    print(f"Calibrated in {space}: " + ", ".join(f"{a}-{b}" for a, b in sorted(loaded.calibration)))


@app.command()
def probe(
    space: Space,
    modality: Annotated[str, typer.Argument(help="What is classified: satellite, image, audio, ...")],
    labels: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV or Parquet with a label, a split and values.")
    ],
    label: Annotated[str, typer.Option(help="The column of the labels.")],
    column: Annotated[
        str | None,
        typer.Option(help="The column of the values; the one named like the modality if not given."),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Feature file of the values, for towers of vectors.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="column=value that rows must have; may be repeated.")
    ] = None,
    test: Annotated[str, typer.Option(help="The split to test, once.")] = "test",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Also probe: unbound (the tower as the recipe starts it), inputs (its vectors as they are), or a space; may be repeated."
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Wording of the names of the classes, with {} for the class, may be repeated; a set for the modality if not given."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    device: Device = None,
) -> None:
    """Nearest neighbours, a linear probe and names of classes on frozen embeddings, from a table of labels."""
    from geobind.data.pairs import Pairs
    from geobind.space import GeoBind
    from geobind.tasks.probe import probe as run

    loaded = GeoBind.from_pretrained(space)
    wanted = {}
    for pair in only or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise GeoBindError(f"--only {pair}: write column=value")
        wanted[name] = value
    pairs = Pairs.from_table(
        labels, columns={modality: column or modality}, group=label, only=wanted,
        features=None if features is None else {modality: features},
    )  # fmt: skip
    report = run(
        loaded, pairs, modality, test=test, templates=template, device=device, progress=sys.stderr.isatty(),
        baselines={name: _baseline(loaded, modality, name) for name in baseline or ()},
    )  # fmt: skip
    if as_json:
        print(report.to_json())
        return
    print_tables([report.table()])


def _baseline(space: GeoBind, modality: str, name: str) -> GeoBind:
    """The space that a name of --baseline stands for."""
    from geobind.recipe import Recipe
    from geobind.space import GeoBind
    from geobind.towers.base import build_tower

    if name == "unbound":
        if space.recipe is None:
            raise GeoBindError(
                "--baseline unbound: the space was saved without a recipe, give another baseline"
            )
        return GeoBind(space.dim, [Recipe.parse(space.recipe).tower(modality)])
    if name == "inputs":
        tower = space.tower(modality)
        if tower.processor.takes != "vector":
            raise GeoBindError(
                f"--baseline inputs: the {modality} tower takes no vectors that could be probed as they are"
            )
        plain = build_tower(
            "vector", modality=modality, dim=tower.width, width=tower.width, standardize=False, head="none"
        )
        return GeoBind(tower.width, [plain])
    return GeoBind.from_pretrained(name)
