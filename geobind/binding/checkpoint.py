"""Checkpoints of a stage: the last three to resume from, and the best learners, each with its checksum.

`checkpoints.json` is the truth: it names the files that count, newest first. Files are written and synced before it,
and it is replaced at once, so that a run killed at any moment leaves the checkpoints before.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geobind.errors import GeoBindError, GeoBindWarning
from geobind.storage import read_json, write_text

KEPT = 3
INDEX = "checkpoints.json"


@dataclass(frozen=True)
class _File:
    """A file of the folder and its checksum; `step` is when it was written."""

    name: str
    sha256: str
    step: int


class Checkpoints:
    """The checkpoint files of one stage in a folder.

    >>> checkpoints = Checkpoints(Path("runs/geobind/stages/1-satellite"))
    >>> checkpoints.save(1200, state)
    >>> step, state = checkpoints.load()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = read_json(folder / INDEX)
        self._last = [_File(**entry) for entry in listed.get("last", [])]
        self._best = [_File(**entry) for entry in listed.get("best", [])]

    @property
    def step(self) -> int | None:
        """The step of the newest checkpoint, None where there is none."""
        return self._last[0].step if self._last else None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint. Raises GeoBindError where it cannot be written; those before it stay."""
        written = self._write(f"step-{step:09d}.pt", step, lambda path: torch.save(state, path))
        self._last = [written, *(entry for entry in self._last if entry.name != written.name)][:KEPT]
        # A best one older than every checkpoint is still the best as of each; a younger one is of the newest alone.
        oldest = self._last[-1].step
        young = [entry for entry in self._best if entry.step > oldest]
        self._best = young + [entry for entry in self._best if entry.step <= oldest][:1]
        self._settle()

    def save_best(self, step: int, learners: dict[str, Tensor]) -> None:
        """Write the best learners as of a step, which the checkpoint that is written next will go with."""
        state = {key: value.detach().cpu().contiguous().clone() for key, value in learners.items()}
        written = self._write(f"best-{step:09d}.safetensors", step, lambda path: save_file(state, path))
        self._best = [written, *(entry for entry in self._best if entry.name != written.name)]
        self._settle()

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest checkpoint that is whole; None where there is none.

        Warns of each that is damaged. Raises GeoBindError when all are.
        """
        listed = list(self._last)
        for entry in listed:
            path = self.folder / entry.name
            try:
                _check(path, entry.sha256)
                state = torch.load(path, map_location="cpu", weights_only=True)
            except _DAMAGED as error:
                warnings.warn(
                    f"checkpoint {path} is damaged ({str(error).splitlines()[0]}): going back to the one before it",
                    GeoBindWarning,
                    stacklevel=2,
                )
                self._last.remove(entry)
                continue
            return entry.step, state
        if listed:
            raise GeoBindError(
                f"no checkpoint in {self.folder} can be read: delete that folder to train the stage again"
            )
        return None

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The best learners as of a checkpoint's step. Raises GeoBindError where they are lost or damaged."""
        entry = next((entry for entry in self._best if entry.step <= step), None)
        if entry is None:
            raise GeoBindError(f"{self.folder} lists no best learners of step {step} or before: delete it")
        path = self.folder / entry.name
        try:
            _check(path, entry.sha256)
            return load_file(path)
        except _DAMAGED as error:
            raise GeoBindError(
                f"{path} is damaged ({str(error).splitlines()[0]}): delete {self.folder} to train the stage again"
            ) from None

    def _write(self, name: str, step: int, write: Callable[[Path], None]) -> _File:
        path = self.folder / name
        temporary = path.with_name(f"{name}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.replace(temporary, path)
        except (OSError, RuntimeError, SafetensorError) as error:  # a full disk has many names
            temporary.unlink(missing_ok=True)
            before = f"; the checkpoint of step {self.step} is intact" if self.step is not None else ""
            raise GeoBindError(
                f"cannot write {path} ({str(error).splitlines()[0]}): free space or choose another folder{before}"
            ) from None
        return _File(name, digest, step)

    def _settle(self) -> None:
        """Write the index, then remove what it no longer names."""
        listed = {"last": [asdict(entry) for entry in self._last], "best": [asdict(e) for e in self._best]}
        write_text(self.folder / INDEX, json.dumps(listed, indent=1) + "\n")
        named = {entry.name for entry in (*self._last, *self._best)}
        for path in (*self.folder.glob("step-*"), *self.folder.glob("best-*")):
            if path.name not in named:
                path.unlink(missing_ok=True)


_DAMAGED = (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError)


def _check(path: Path, sha256: str) -> None:
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise OSError(f"{path.stat().st_size:,} bytes that do not have its checksum")
