"""Values of one modality into a gallery: in constant memory, and whenever it was stopped, from there on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from geobind.console import progress_bar
from geobind.errors import GeoBindError, MediaError
from geobind.gallery.schema import Origin, row_id, rows
from geobind.gallery.sources import Known, Source, open_sources
from geobind.gallery.store import Gallery
from geobind.space import GeoBind
from geobind.towers.base import Row

BLOCK = 2048
"""Values embedded between two transactions: what a killed run may do again."""


@dataclass
class Counts:
    """What became of the values: embedded now, in the gallery before, and a message for each unreadable one."""

    added: int = 0
    present: int = 0
    unreadable: list[str] = field(default_factory=list)


def embed_to_gallery(
    space: GeoBind,
    modality: str,
    arguments: Sequence[str],
    gallery: Gallery,
    *,
    column: str | None = None,
    tile: int = 256,
    on_error: Literal["raise", "skip"] = "skip",
    batch_size: int = 64,
    device: str | None = None,
    workers: int = 0,
    progress: bool = False,
) -> Counts:
    """Embed what the arguments name (see `open_sources`) into a gallery.

    >>> embed_to_gallery(space, "satellite", ["tiles/"], Gallery("tiles.gallery")).added
    12000

    Each value is keyed by its source and the tower, so that the same call, after an end at any moment, goes
    on with what is missing, and two calls at once add every value once. Blocks of 2,048 values are embedded
    and added in one transaction each. Raises GeoBindError where the gallery is of another space or all
    values are unreadable, MediaError for the first unreadable value with on_error="raise".
    """
    origin = Origin.of(space, modality)
    if gallery.exists:
        gallery.check(origin, space.dim)
    sources, total = open_sources(
        modality, space.tower(modality).processor.takes, arguments, column=column, tile=tile
    )
    counts = Counts()
    with progress_bar(disable=not progress) as bar:
        task = bar.add_task(f"embedding {modality}", total=total, note="")
        began = time.monotonic()
        for source in sources:
            for block in _blocks(source):
                embedded = embed_block(
                    space, origin, source, block, gallery, counts, on_error=on_error, batch_size=batch_size,
                    device=device, workers=workers,
                )  # fmt: skip
                counts.added += gallery.add(embedded) if embedded is not None else 0
                fresh = counts.added + len(counts.unreadable)
                note = f"{fresh / (time.monotonic() - began + 1e-9):,.0f}/s"
                bar.update(task, advance=len(block), note=note)
    if counts.added:
        gallery.optimize()
    elif counts.unreadable and not counts.present:
        raise GeoBindError(
            f"none of the {total} {modality} values can be read, the first because: {counts.unreadable[0]}"
        )
    return counts


def embed_block(
    space: GeoBind, origin: Origin, source: Source, block: Sequence[int], gallery: Gallery, counts: Counts,
    *, on_error: Literal["raise", "skip"], batch_size: int, device: str | None, workers: int,
) -> pa.Table | None:  # fmt: skip
    """Rows of those values of a block that the gallery lacks; None where it has them all. Counts the others."""
    known = source.known(block)
    ids = [row_id(origin, name) for name in known.sources]
    there = gallery.present(ids)
    counts.present += sum(key in there for key in ids)
    # The first of equal values; rows that lack the modality have no name.
    first = {key: i for i, key in reversed(list(enumerate(ids))) if key not in there and known.sources[i]}
    missing = sorted(first.values())
    if not missing:
        return None
    part = _Part(source, [block[i] for i in missing])
    vectors, positions = [], []
    with closing(
        space.embed_batches(
            origin.modality, part, batch_size=batch_size, device=device, on_error="skip", workers=workers
        )
    ) as batches:
        for done, embedded, errors in batches:
            if errors and on_error == "raise":
                raise MediaError(errors[0])
            counts.unreadable += errors
            vectors.append(embedded)
            positions += done
    if not positions:
        return None
    chosen = [missing[i] for i in positions]
    return _rows(np.concatenate(vectors), origin, known, chosen, [ids[i] for i in chosen])


def _rows(vectors: np.ndarray, origin: Origin, known: Known, chosen: list[int], ids: list[str]) -> pa.Table:
    columns: dict[str, Any] = {}
    if known.geometry is not None:
        columns["geometry"] = [known.geometry[i] for i in chosen]
    return rows(
        vectors, origin=origin, sources=[known.sources[i] for i in chosen], unique_ids=ids,
        locations=None if known.locations is None else known.locations[chosen],
        times=None if known.times is None else known.times[chosen], columns=columns,
    )  # fmt: skip


def _blocks(source: Source) -> Iterator[range]:
    for start in range(0, len(source), BLOCK):
        yield range(start, min(start + BLOCK, len(source)))


class _Part(Sequence[Row]):
    """Some rows of a source."""

    def __init__(self, source: Source, positions: list[int]) -> None:
        self.source, self.positions = source, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Row:  # type: ignore[override]
        return self.source[self.positions[position]]
