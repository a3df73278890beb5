"""Extra negatives of a link: keys of its frozen gallery beyond those of the batch.

A batch of 100 gives each query 99 negatives; Sat2Cap (arXiv 2307.15904) adds 9,000 keys. The gallery is
frozen, so a key never gets stale: with cached targets they are other training rows, drawn anew at
every step; without, the keys of the last steps. Rows held out for validation are never among them, and
each key carries its place, so that the loss leaves it out for queries of that place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geobind.binding.cache import Targets
from geobind.binding.losses import Keys
from geobind.binding.stage import Stage
from geobind.data.order import other_rows
from geobind.data.pairs import Pairs
from geobind.space import GeoBind


class CachedKeys:
    """Random training rows with cached targets: a function of (seed, step), without those of the batch.

    With at least as many negatives as rows, each query meets every target: the softmax is over the
    whole training set.
    """

    def __init__(self, targets: Targets, places: np.ndarray, count: int, seed: int) -> None:
        self.targets, self.places, self.count, self.seed = targets, places, count, seed

    def keys(self, step: int, batch: np.ndarray) -> Keys:
        rows = other_rows(len(self.places), self.count, seed=self.seed, step=step, batch=batch)
        return Keys(torch.from_numpy(self.targets[rows]), torch.from_numpy(self.places[rows]))


class Queue:
    """The last `count` keys, first in first out, where targets are not cached."""

    def __init__(self, count: int, dim: int) -> None:
        self.count = count
        self.held = Keys(torch.empty(0, dim), torch.empty(0, dtype=torch.int64))

    def keys(self, step: int, batch: np.ndarray) -> Keys:
        return self.held

    def push(self, keys: Keys) -> None:
        """Append keys; the oldest make room."""
        joined = (torch.cat([old.to(new.device), new]) for old, new in zip(self.held, keys, strict=True))
        self.held = Keys(*(part[-self.count :] for part in joined))


class ExtraNegatives:
    """Those of all links of a stage, on one process; they are the same on every process."""

    def __init__(self, space: GeoBind, stage: Stage, pairs: Pairs, targets: Mapping[str, Targets]) -> None:
        self.space, self.stage, self.pairs = space, stage, pairs
        self._sources: list[CachedKeys | Queue | None] = []
        for link in stage.links:
            count = min(link.extra_negatives, len(pairs))
            if not count:
                self._sources.append(None)
            elif link.gallery in targets:
                self._sources.append(CachedKeys(targets[link.gallery], pairs.places, count, stage.seed))
            else:
                self._sources.append(Queue(count, space.dim))

    def fill(self, **embedding: Any) -> None:
        """Embed random training rows for the queues, so that the first step has its negatives."""
        for modality, queue in self._queues():
            rows = np.random.default_rng(self.stage.seed).permutation(len(self.pairs))[: queue.count]
            vectors = self.space.embed_rows(modality, self.pairs.subset(rows), **embedding)
            fine = np.isfinite(vectors).all(1)  # an unreadable row is one of NaN
            queue.push(Keys(torch.from_numpy(vectors[fine]), torch.from_numpy(self.pairs.places[rows[fine]])))

    def keys(self, step: int, batch: np.ndarray, device: torch.device) -> list[Keys | None]:
        """Keys of each link for a step whose batch, of all processes, holds these rows."""
        return [None if source is None else source.keys(step, batch).to(device) for source in self._sources]

    def push(self, embeddings: Mapping[str, Tensor], places: Tensor) -> None:
        """Note a step's batch, of all processes."""
        for modality, queue in self._queues():
            queue.push(Keys(embeddings[modality].detach(), places))

    def state(self) -> list[tuple[Tensor, ...]]:
        """What a checkpoint keeps; the inverse of `load`."""
        return [tuple(queue.held) for _, queue in self._queues()]

    def load(self, state: Sequence[Sequence[Tensor]]) -> None:
        for (_, queue), held in zip(self._queues(), state, strict=True):
            queue.held = Keys(*held)

    def _queues(self) -> list[tuple[str, Queue]]:
        found = zip(self.stage.links, self._sources, strict=True)
        return [(link.gallery, source) for link, source in found if isinstance(source, Queue)]
