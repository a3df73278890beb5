"""Folders in the layout of transformers, from converted weights: what towers are then built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from geobind.errors import GeoBindError
from geobind.interop.reading import State
from geobind.media.images import ImageTransform
from geobind.storage import replace_folder, writing
from geobind.towers.checkpoints import first_line
from geobind.towers.pixels import save_image_transform
from geobind.towers.pretrained import quiet

_TOKENIZER_FILES = ["tokenizer*.json", "vocab.*", "merges.txt", "special_tokens_map.json", "*.model"]


def check_new(out: Path) -> None:
    """Raise GeoBindError where something stands in the place of a folder to be written."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise GeoBindError(f"{out} is there already: give another folder with --out, or remove it")


def write_new(out: Path, write: Callable[[Path], None]) -> None:
    """Write a folder that is whole or not there."""
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(out, write)


def write_model(folder: Path, config: Any, state: State, transform: ImageTransform | None = None) -> Path:
    """A folder with `config.json`, `model.safetensors` and, for pictures, `preprocessor_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if transform is not None:
        save_image_transform(transform, folder)
    return folder


def tokenizer_folder(tokenizer: str | Path | None, usual: str) -> Path:
    """The local folder of a tokenizer: a folder, or a Hub id that is cached or can be reached.

    `usual` is the Hub id to advise. Raises GeoBindError where none was given or it cannot be had.
    """
    if tokenizer is None:
        raise GeoBindError(
            f"the checkpoint has a text tower and no words: give the tokenizer, a folder or a Hub id "
            f"(--tokenizer {usual})"
        )
    folder = Path(tokenizer).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(tokenizer), allow_patterns=["config.json", *_TOKENIZER_FILES]))
    except Exception as error:  # the Hub client raises many kinds; the remedy is one
        raise GeoBindError(
            f"tokenizer {str(tokenizer)!r} is neither a folder nor a Hub id that is cached or can be reached "
            f"({first_line(error)[:80]}): check the path or the network, or give a folder with its files"
        ) from None
