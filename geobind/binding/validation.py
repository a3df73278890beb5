"""Recall on held-out places, by which a stage chooses its best epoch."""

from __future__ import annotations

import numpy as np

from geobind.binding.cache import Targets
from geobind.binding.stage import Link
from geobind.data.pairs import Pairs
from geobind.retrieval.ranks import Partners, partner_ranks
from geobind.space import GeoBind


class Validation:
    """Mean recall@10 of a stage's links, both directions, over the distinct values of held-out rows.

    Frozen modalities come from their cached targets; learners are embedded anew at every call.
    """

    def __init__(self, space: GeoBind, links: list[Link], pairs: Pairs, targets: dict[str, Targets]) -> None:
        self.space, self.links, self.pairs, self.targets = space, links, pairs, targets
        self._first: dict[str, np.ndarray] = {}
        self._places: dict[str, list[np.ndarray]] = {}
        for modality in {modality for link in links for modality in link.pair}:
            _, first, item = np.unique(pairs.keys(modality), return_index=True, return_inverse=True)
            order = np.argsort(item, kind="stable")
            bounds = np.cumsum(np.bincount(item))[:-1]
            self._first[modality] = first
            self._places[modality] = np.split(pairs.places[order], bounds)
        self._partners = [
            Partners.from_places(self._places[link.query], self._places[link.gallery]) for link in links
        ]

    def recall(self) -> float:
        vectors = {modality: self._embed(modality) for modality in self._first}
        found = []
        for link, partners in zip(self.links, self._partners, strict=True):
            query, gallery = vectors[link.query], vectors[link.gallery]
            found += [
                partner_ranks(query, gallery, partners),
                partner_ranks(gallery, query, partners.transpose()),
            ]
        return float(np.mean([(ranks <= 10).mean() for ranks in found]))

    def _embed(self, modality: str) -> np.ndarray:
        rows = self._first[modality]
        if modality in self.targets:
            return self.targets[modality][rows]
        return self.space.embed_rows(modality, self.pairs.subset(rows))
