"""`geobind import` and `geobind export`: checkpoints of other systems, and formats of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from geobind.cli.app import Space, app, print_tables

Activation = Literal["gelu", "quick_gelu"]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="An official checkpoint: .ckpt, .pt, .bin or .safetensors.")],
    system: Annotated[str, typer.Option("--as", help="Whose it is: sat2cap, geoclap, open_clip or satmae.")],
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


@app.command()
def export(
    space: Space,
    to: Annotated[Literal["onnx", "sentence-transformers"], typer.Option("--to", help="What to write.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="onnx: also weights of 8 bits, with what they change.")
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(help="--int8: judge on this recipe's evaluations instead of the saved ones."),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(
            help="sentence-transformers: the tower that its pictures go through; satellite, else image."
        ),
    ] = None,
) -> None:
    """Write a space for other libraries: ONNX graphs, compared with the originals, or sentence-transformers."""
    from geobind.interop.onnx import export_onnx
    from geobind.interop.sentence_transformers import export_sentence_transformers
    from geobind.recipe import Recipe
    from geobind.space import GeoBind

    loaded = GeoBind.from_pretrained(space)
    if to == "sentence-transformers":
        export_sentence_transformers(loaded, out, picture=picture)
        print(
            f"Written. Elsewhere: SentenceTransformer({str(out)!r}).encode(...) of sentences and PIL images"
        )
        return
    judged = None
    if int8 and recipe is not None:
        judged = Recipe.load(recipe)
    elif int8 and loaded.recipe is not None:
        judged = Recipe.parse(loaded.recipe, f"the recipe saved in {space}")
    evaluations = [] if judged is None else judged.open_evaluations()
    report = export_onnx(loaded, out, int8=int8, evaluations=evaluations)
    print_tables(report.tables())
    if int8 and not evaluations:
        print("No pairs to judge int8 by: give a recipe with evaluations (--recipe) for its change in R@10")
    print(f"Written: {out}/onnx.json says what each graph takes")


@app.command()
def push(
    space: Annotated[Path, typer.Argument(metavar="DIR", help="A saved space.")],
    repo: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub; made where there is none.")
    ],
    licence: Annotated[str, typer.Option(help="The Hub's identifier: cc-by-4.0, apache-2.0, ...")] = "other",
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only write the model card.")] = False,
) -> None:
    """Write a space's model card and upload both to the Hub."""
    from geobind.interop.hub import push_to_hub, write_card

    if dry_run:
        print(f"Written: {write_card(space, licence=licence)}; nothing was uploaded")
        return
    print(f"Uploaded to {push_to_hub(space, repo, private=private, licence=licence)}")
