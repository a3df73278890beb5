"""Batches of a stage: rows in an order that is a function of (seed, epoch, step), whatever the workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from geobind.binding.stage import Stage
from geobind.data.order import epoch_batches, replacement, row_generator
from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, MediaError
from geobind.media.stored import Stored
from geobind.towers.base import Batch, Processor

ATTEMPTS = 20  # replacements of one row before we conclude that the data set, not the row, is broken

Item = tuple[int, dict[str, Batch], list[str]]


@dataclass
class StageBatch:
    """Rows of one process: their indices, place ids and the processed values of each modality, in parts.

    A part has the rows that pass through the towers at once: all, or the stage's `micro_batch`.
    """

    rows: np.ndarray
    places: Tensor
    parts: list[dict[str, Batch]]
    unreadable: list[str]

    def pin_memory(self) -> StageBatch:
        """Called by the loader where there is a device, so that copies to it wait for nothing."""
        for part in self.parts:
            for batch in part.values():
                batch.update({key: value.pin_memory() for key, value in batch.items()})
        return self


class _StageRows(Dataset[Item]):
    """Processed training rows; an unreadable one is replaced by another row, drawn from (seed, epoch, row)."""

    def __init__(
        self, pairs: Pairs, learners: dict[str, Processor], frozen: dict[str, Processor], seed: int
    ) -> None:
        self.pairs, self.learners, self.frozen, self.seed = pairs, learners, frozen, seed

    def __getitem__(self, index: tuple[int, int]) -> Item:
        epoch, wanted = index
        unreadable: list[str] = []
        row = wanted
        for attempt in range(ATTEMPTS):
            try:
                return row, self._process(epoch, row), unreadable
            except MediaError as error:
                unreadable.append(f"row {row}: {error}")
                row = replacement(self.seed, epoch, wanted, len(self.pairs), attempt)
        raise GeoBindError(f"{ATTEMPTS} rows in a row cannot be read, the last because: {unreadable[-1]}")

    def _process(self, epoch: int, row: int) -> dict[str, Batch]:
        raw = self.pairs[row]
        rng = row_generator(self.seed, epoch, row)
        processed = {modality: processor.light(raw, rng=rng) for modality, processor in self.learners.items()}
        return processed | {modality: processor.light(raw) for modality, processor in self.frozen.items()}


class _Order(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, row) of one process, from the step at which a run resumes."""

    def __init__(self, pairs: Pairs, stage: Stage, rank: int, processes: int) -> None:
        self.pairs, self.stage, self.rank, self.processes = pairs, stage, rank, processes
        self.epoch, self.start = 0, 0

    def batches(self) -> np.ndarray:
        return epoch_batches(
            self.pairs.places, batch_size=self.stage.batch_size, seed=self.stage.seed, epoch=self.epoch,
            rows_per_place=self.stage.rows_per_place, rank=self.rank, processes=self.processes,
        )  # fmt: skip

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for rows in self.batches()[self.start :]:
            yield [(self.epoch, int(row)) for row in rows]

    def __len__(self) -> int:
        return len(self.batches())


class _Collate:
    def __init__(self, processors: dict[str, Processor], places: np.ndarray, micro_batch: int | None) -> None:
        self.processors, self.places, self.micro_batch = processors, places, micro_batch

    def __call__(self, items: list[Item]) -> StageBatch:
        rows = np.array([row for row, _, _ in items])
        size = self.micro_batch or len(items)
        parts = [
            {
                modality: processor.collate(
                    [values[modality] for _, values, _ in items[start : start + size]]
                )
                for modality, processor in self.processors.items()
            }
            for start in range(0, len(items), size)
        ]
        unreadable = [message for _, _, messages in items for message in messages]
        return StageBatch(rows, torch.from_numpy(self.places[rows]), parts, unreadable)


class StageLoader:
    """Iterate the batches of an epoch: `for batch in loader.epoch(3, start=120)`."""

    def __init__(
        self, pairs: Pairs, stage: Stage, learners: dict[str, Processor], frozen: dict[str, Processor], *,
        workers: int | None = None, rank: int = 0, processes: int = 1,
    ) -> None:  # fmt: skip
        self._order = _Order(pairs, stage, rank, processes)
        if workers is None:
            workers = default_workers(pairs, [*learners, *frozen])
        self._loader = DataLoader(
            _StageRows(pairs, learners, frozen, stage.seed),
            batch_sampler=self._order,
            collate_fn=_Collate(learners | frozen, pairs.places, stage.micro_batch),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.accelerator.is_available(),
        )

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(self._order)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[StageBatch]:
        self._order.epoch, self._order.start = epoch, start
        return iter(self._loader)


def default_workers(pairs: Pairs, modalities: list[str]) -> int:
    """One worker a core of this process but one (at most 16) where files are decoded; none for vectors and text."""
    first = pairs[0]
    if not any(isinstance(first.get(modality), Path | Stored) for modality in modalities):
        return 0
    processes = int(
        os.environ.get("LOCAL_WORLD_SIZE", 1)
    )  # of this machine, as torchrun and accelerate say it
    return min(16, max(1, (os.cpu_count() or 2) // processes - 1))
