"""`geobind import`: checkpoints of other systems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from geobind.cli.app import app

Activation = Literal["gelu", "quick_gelu"]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="An official checkpoint: .ckpt, .pt, .bin or .safetensors.")],
    system: Annotated[str, typer.Option("--as", help="Whose it is: sat2cap, geoclap or open_clip.")],
    out: Annotated[Path, typer.Option(help="Folder for the space.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub id of the text tower's tokenizer.")
    ] = None,
    activation: Annotated[
        Activation | None, typer.Option(help="open_clip without open_clip_config.json beside the file.")
    ] = None,
    modality: Annotated[
        str, typer.Option(help="open_clip: what its pictures are (image for BioCLIP).")
    ] = "satellite",
    target: Annotated[
        str | None,
        typer.Option(help="Folder or Hub id of the frozen joint model that the file was trained against."),
    ] = None,
) -> None:
    """Turn a checkpoint of another system into a space; every key is accounted for, no code is run."""
    from geobind.interop.importing import import_checkpoint

    space = import_checkpoint(
        file, system, out, tokenizer=tokenizer, activation=activation, modality=modality, target=target
    )
    print(
        f"Space of {', '.join(space.modalities)} ({space.dim} numbers) written to {out}. Next: geobind info {out}"
    )
