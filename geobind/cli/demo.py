"""`geobind demo`: the miniature Earth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geobind.cli.app import app, interruptible, print_tables


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

    with interruptible(export or out):
        if export is not None:
            export_earth(export, places=places, seed=seed)
            print(f"Earth of {places:,} places written to {export}; README.md there explains it")
            return
        results = run_demo(out, places=places, seed=seed)
    print_tables(summary_tables(results))
    print(f"Written: {out}/report.html, maps.png, metrics.json, metrics.md; {out}/space is the space")
