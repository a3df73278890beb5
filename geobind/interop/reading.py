"""Weights of other projects' files, read without running what is in them."""

from __future__ import annotations

import argparse
import pathlib
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geobind.errors import GeoBindError, shorten
from geobind.towers.checkpoints import first_line

State = dict[str, Tensor]


class _Attributes(dict[str, Any]):
    """What Lightning keeps hyper-parameters in: a mapping, under three names over the years."""


# All that a pickle may build beside tensors and plain values: none of these runs anything.
_ALLOWED: list[Any] = [
    argparse.Namespace,
    (pathlib.PurePosixPath, "pathlib.PosixPath"),
    (pathlib.PurePosixPath, "pathlib._local.PosixPath"),
    (_Attributes, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (_Attributes, "lightning.pytorch.utilities.parsing.AttributeDict"),
    (_Attributes, "lightning_fabric.utilities.data.AttributeDict"),
    (_Attributes, "lightning.fabric.utilities.data.AttributeDict"),
]


def read_state(path: str | Path) -> State:
    """The tensors of a checkpoint by their published keys: safetensors, or a pickle opened with `weights_only`.

    >>> sorted(read_state("sat2cap.ckpt"))[0]
    'geo_encoder.fc1.bias'

    A state dict within a Lightning or open_clip checkpoint (`state_dict`) is unwrapped, the prefix
    `module.` of distributed training dropped. Raises GeoBindError, one line, for a file that is not
    there, is cut off, holds no state dict, or whose pickle would run code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise GeoBindError(
            f"{path} is no file: download the checkpoint first and give its path (a Hub id is not one)"
        )
    state: Any = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    for key in ("state_dict", "model"):  # Lightning and open_clip; timm and MAE
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise GeoBindError(f"{path} holds no state dict (keys to tensors): give the file of the weights")
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise GeoBindError(
            f"{path} cannot be read ({first_line(error)}): it is cut off or no safetensors file; download it again"
        ) from None


def _pickle(path: Path) -> Any:
    with torch.serialization.safe_globals(_ALLOWED):
        try:
            # Mapped, so that an optimiser's state is never read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        except UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"{found[1]} " if found else ""
            if not found and "Unsupported" not in str(error):
                raise GeoBindError(
                    f"{path} is no checkpoint, or cut off ({first_line(error)[:120]}): download it again"
                ) from None
            raise GeoBindError(
                f"{path} is refused: its pickle asks for {what}beside tensors, which could run code; "
                f"have its author save the state dict alone, as safetensors"
            ) from None
        except Exception as error:  # a zip that ends early, a legacy file that does: many kinds
            reason = "a TorchScript archive" if "TorchScript" in str(error) else first_line(error)
            raise GeoBindError(
                f"{path} cannot be read as a checkpoint ({shorten(reason, 140)}): it is cut off or of "
                f"another format; download it again, or save its state dict alone"
            ) from None
