"""Checkpoints of a stage: `last.pt` to resume from, the one before it, and the best learners.

Written beside and renamed, so an interrupted write leaves the previous checkpoint in place.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from geobind.errors import GeoBindError


class Checkpoints:
    """The checkpoint files of one stage in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last, self.previous, self.best = (
            folder / "last.pt",
            folder / "previous.pt",
            folder / "best.safetensors",
        )

    def save_last(self, state: dict[str, Any]) -> None:
        temporary = self.folder / "last.pt.tmp"
        self._write(temporary, lambda: torch.save(state, temporary))
        if self.last.exists():
            os.replace(self.last, self.previous)
        os.replace(temporary, self.last)

    def load_last(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read; None where there is none.

        Raises GeoBindError when files are there and none of them is whole.
        """
        found = [path for path in (self.last, self.previous) if path.exists()]
        for path in found:
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile):
                continue
        if found:
            raise GeoBindError(
                f"no checkpoint in {self.folder} can be read: delete that folder to train the stage again"
            )
        return None

    def save_best(self, learners: dict[str, Tensor]) -> None:
        temporary = self.folder / "best.safetensors.tmp"
        state = {key: value.detach().cpu().contiguous().clone() for key, value in learners.items()}
        self._write(temporary, lambda: save_file(state, temporary))
        os.replace(temporary, self.best)

    def load_best(self) -> dict[str, Tensor]:
        return load_file(self.best)

    def _write(self, path: Path, write: Any) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write()
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            path.unlink(missing_ok=True)
            raise GeoBindError(
                f"cannot write {path} ({error}): free space or choose another folder; the checkpoint before it is intact"
            ) from None
