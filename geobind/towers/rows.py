"""What embedding feeds a tower: bare values as rows, rows as processed items, items as batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from geobind.errors import GeoBindError, GeoBindWarning, MediaError
from geobind.towers.base import Batch, Processor, Row
from geobind.towers.place_time import COLUMNS


def conditioned_rows(
    modality: str, values: Sequence[Any] | np.ndarray, processor: Processor, **given: Any
) -> list[dict[str, Any]]:
    """Rows of bare values and what `embed` is given of place and time: one for all values, or one each.

    Raises GeoBindError for a tower that reads no such column, other lengths, and half a position.
    """
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in processor.columns:
            raise GeoBindError(
                f"the {modality} tower reads no {name} (it has no `condition`): leave {name}= out, or bind one that has"
            )
        if np.ndim(value) == 0:
            given[name] = [value] * len(values)
        elif len(value) != len(values):
            raise GeoBindError(
                f"{name} has {len(value)} values for {len(values)} of {modality}: give one for all, or one each"
            )
    if ("latitude" in given) != ("longitude" in given):
        raise GeoBindError("a position needs both latitude= and longitude=, in degrees")
    return [
        {modality: value, **{name: each[row] for name, each in given.items()}}
        for row, value in enumerate(values)
    ]


def warn_unconditioned(modality: str, processor: Processor, rows: Sequence[Row]) -> None:
    """Say so where a conditioned tower is told neither place nor time (judged by the first row)."""
    wanted = [name for name in COLUMNS if name in processor.columns]
    if wanted and len(rows) and not any(name in rows[0] for name in wanted):
        warnings.warn(
            f"the {modality} tower is conditioned on {', '.join(wanted)} and is given none of them: they count as "
            f"unknown; give embed {', '.join(f'{name}=' for name in wanted)}, or a stage rows with these columns",
            GeoBindWarning,
            stacklevel=5,
        )


class ProcessedRows(Dataset[Any]):
    """Light items of rows with their positions; an unreadable one comes as its error message."""

    def __init__(self, rows: Sequence[Row], processor: Processor) -> None:
        self.rows, self.processor = rows, processor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[int, Batch | str]:
        try:
            return position, self.processor.light(self.rows[position])
        except MediaError as error:
            return position, f"row {position}: {error}"


class CollateReadable:
    """Readable items as one batch (None where there are none), with their positions; messages of the others."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def __call__(self, items: list[tuple[int, Batch | str]]) -> tuple[list[int], Batch | None, list[str]]:
        good = [(position, item) for position, item in items if not isinstance(item, str)]
        errors = [item for _, item in items if isinstance(item, str)]
        batch = self.processor.collate([item for _, item in good]) if good else None
        return [position for position, _ in good], batch, errors
