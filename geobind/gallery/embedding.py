"""Values of one modality into a gallery: in constant memory, and whenever it was stopped, from there on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from geobind.cluster import divided
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
    ray: bool = False,
    progress: bool = False,
) -> Counts:
    """Embed what the arguments name (see `open_sources`) into a gallery.

    >>> embed_to_gallery(space, "satellite", ["tiles/"], Gallery("tiles.gallery")).added
    12000

    Each value is keyed by its source and the tower, so that the same call, after an end at any moment, goes
    on with what is missing, and two calls at once add every value once. Blocks of 2,048 values are embedded
    and added in one transaction each; with `ray` a Ray cluster embeds them (see `geobind.cluster.divided`)
    and this process adds them. Raises GeoBindError where the gallery is of another space or all
    values are unreadable, MediaError for the first unreadable value with on_error="raise".
    """
    origin = Origin.of(space, modality)
    if gallery.exists:
        gallery.check(origin, space.dim)
    sources, total = open_sources(
        modality, space.tower(modality).processor.takes, arguments, column=column, tile=tile
    )
    counts = Counts()
    work = _Work(
        space=GeoBind(space.dim, [space.tower(modality)]),
        origin=origin,
        batch_size=batch_size,
        device=device,
        workers=workers,
    )
    with progress_bar(disable=not progress) as bar:
        task = bar.add_task(f"embedding {modality}", total=total, note="")
        began = time.monotonic()

        def missing() -> Iterator[_Missing]:
            for source in sources:
                for block in _blocks(source):
                    found = _missing(source, block, origin, gallery, counts)
                    bar.update(task, advance=len(block) - len(found.ids))
                    if found.ids:
                        yield found

        blocks = missing()
        with closing(
            divided(work, blocks, workers=workers, device=device) if ray else ((b, work(b)) for b in blocks)
        ) as results:
            for block, (embedded, errors) in results:
                if errors and on_error == "raise":
                    raise MediaError(errors[0])
                counts.unreadable += errors
                if embedded is not None:
                    added = gallery.add(embedded)
                    counts.added += added
                    counts.present += embedded.num_rows - added
                fresh = counts.added + len(counts.unreadable)
                note = f"{fresh / (time.monotonic() - began + 1e-9):,.0f}/s"
                bar.update(task, advance=len(block.ids), note=note)
    if counts.added:
        gallery.optimize()
    elif counts.unreadable and not counts.present:
        raise GeoBindError(
            f"none of the {total} {modality} values can be read, the first because: {counts.unreadable[0]}"
        )
    return counts


@dataclass(frozen=True)
class _Missing:
    """Values of a block that the gallery lacks: their rows, keys, and what is known of them."""

    rows: Sequence[Row]
    ids: list[str]
    known: Known


def _missing(
    source: Source, block: Sequence[int], origin: Origin, gallery: Gallery, counts: Counts
) -> _Missing:
    """Counts the others."""
    known = source.known(block)
    ids = [row_id(origin, name) for name in known.sources]
    there = gallery.present(ids)
    counts.present += sum(key in there for key in ids)
    # The first of equal values; rows that lack the modality have no name.
    first = {key: i for i, key in reversed(list(enumerate(ids))) if key not in there and known.sources[i]}
    chosen = sorted(first.values())
    return _Missing(source.part([block[i] for i in chosen]), [ids[i] for i in chosen], known.take(chosen))


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Blocks to rows of a gallery, and a message for each value that cannot be read."""

    space: GeoBind
    origin: Origin
    batch_size: int
    device: str | None
    workers: int

    def __call__(self, block: _Missing) -> tuple[pa.Table | None, list[str]]:
        vectors, positions, unreadable = [], [], []
        with closing(
            self.space.embed_batches(
                self.origin.modality, block.rows, batch_size=self.batch_size, device=self.device,
                on_error="skip", workers=self.workers,
            )
        ) as batches:  # fmt: skip
            for done, embedded, errors in batches:
                unreadable += errors
                vectors.append(embedded)
                positions += done
        if not positions:
            return None, unreadable
        known = block.known.take(positions)
        table = rows(
            np.concatenate(vectors), origin=self.origin, sources=known.sources,
            unique_ids=[block.ids[i] for i in positions], locations=known.locations, times=known.times,
            columns={} if known.geometry is None else {"geometry": known.geometry},
        )  # fmt: skip
        return table, unreadable


def _blocks(source: Source) -> Iterator[range]:
    for start in range(0, len(source), BLOCK):
        yield range(start, min(start + BLOCK, len(source)))
