"""Contrastive and triplet losses over a batch, with rows of one place as joint positives or masked.

Two rows of one place are never negatives of each other: a place can have several captions, sounds or
photos, and a batch can hold two of them.

The matrix that compares every query with every key is made in blocks of rows. A batch that fits into
one block is computed as it stands; of a larger one, each block is made once more in the backward pass
instead of being kept, so that memory grows with the batch and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LossName = Literal["infonce", "symmetric", "triplet", "batch_triplet"]
Positives = Literal["joint", "masked"]

ENTRIES = 1 << 24  # of a block: 64 MiB in float32, the whole matrix of a batch of 4,096
HIDDEN = -1e4  # a logit whose exponential is 0; where a block hides a whole column, -inf would give NaN


class Keys(NamedTuple):
    """Vectors (m, dim) of unit length, and the ids of their places (m,) int64."""

    vectors: Tensor
    places: Tensor

    def to(self, device: torch.device) -> Keys:
        return Keys(self.vectors.to(device), self.places.to(device))


def info_nce(
    queries: Tensor, keys: Tensor, scale: Tensor | float, places: Tensor, positives: Positives = "joint",
    extra: Keys | None = None,
) -> Tensor:  # fmt: skip
    """InfoNCE from queries to keys: mean over rows i of -log softmax_j(scale q_i k_j) at its positives.

    With one row a place this is eq. 1 of the GeoBind paper (arXiv 2404.11720). `joint` averages
    the log-probability over all keys of the row's place; `masked` takes only the row's own key and
    leaves the place's other keys out of the sum. `extra` keys are negatives of every query but those
    of their own place, for which they do not count.

    >>> info_nce(sat, image, 1 / 0.07, places=torch.arange(len(sat)))

    Shapes: queries, keys (batch, dim) of unit length; places (batch,) ids. Returns a scalar.
    """
    own, forth, _ = _compare(queries, keys, scale, places, positives, extra, back=False)
    return (forth - own).mean()


def symmetric(
    queries: Tensor, keys: Tensor, scale: Tensor | float, places: Tensor, positives: Positives = "joint",
    extra: Keys | None = None,
) -> Tensor:  # fmt: skip
    """Mean of InfoNCE in both directions: eq. 2 to 4 of the GeoBind paper; `extra` keys in the first.

    A positive counts in both directions with the same weight, so that one matrix serves both.
    """
    own, forth, back = _compare(queries, keys, scale, places, positives, extra, back=True)
    return ((forth + back) / 2 - own).mean()


def _compare(
    queries: Tensor, keys: Tensor, scale: Tensor | float, places: Tensor, positives: Positives,
    extra: Keys | None, *, back: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """By row: the mean logit of its positives, the logsumexp of its logits, and with `back` that of its key's."""
    scaled = scale * queries

    def block(start: int, stop: int) -> list[Tensor]:
        rows = scaled[start:stop]
        logits = rows @ keys.T
        same_place = _same_place(places[start:stop], places)
        if positives == "joint":
            own = logits.masked_fill(~same_place, 0.0).sum(1) / same_place.sum(1)
        else:
            own = logits.diagonal(start)
            same_place.diagonal(start).fill_(False)
            logits = logits.masked_fill(same_place, HIDDEN)
        compared = logits
        if extra is not None:
            hidden = _same_place(places[start:stop], extra.places)
            others = (rows @ extra.vectors.T).masked_fill(hidden, HIDDEN)
            compared = torch.cat([logits, others], dim=1)
        return [own, compared.logsumexp(1), *([logits.logsumexp(0)] if back else [])]

    columns = len(keys) + (0 if extra is None else len(extra.vectors))
    own, forth, *parts = zip(*_in_blocks(block, len(queries), columns), strict=True)
    return torch.cat(own), torch.cat(forth), torch.stack(parts[0]).logsumexp(0) if back else keys.new_empty(0)


def triplet(
    queries: Tensor, keys: Tensor, margin: float, places: Tensor, positives: Positives = "joint"
) -> Tensor:
    """Triplet loss with one negative a query, the key of the row before it that is of another place.

    Mean over rows of max(0, |q - k+| - |q - k-| + margin), with Euclidean distances: "native TL" of
    SoundingEarth (Heidler et al., arXiv 2108.00688), there on vectors that are not of unit length.
    Shapes as in `info_nce`.
    """

    def one_before(rows: Tensor, same_place: Tensor) -> Tensor:
        every = torch.arange(len(keys), device=rows.device)
        back = (rows[:, None] - every[None, :]) % len(keys)  # how many rows before i stands j
        nearest = back.masked_fill(same_place, len(keys)).argmin(1, keepdim=True)
        return torch.zeros_like(same_place).scatter(1, nearest, True) & ~same_place

    return _hinge(queries, keys, margin, places, positives, one_before)


def batch_triplet(
    queries: Tensor, keys: Tensor, margin: float, places: Tensor, positives: Positives = "joint"
) -> Tensor:
    """Triplet loss with every row of another place as negative, mean of both directions.

    "Batch TL" of SoundingEarth (see `triplet`), whose mean also counts the positive as its own negative,
    which adds margin / batch and no gradient.
    """

    def others(rows: Tensor, same_place: Tensor) -> Tensor:
        return ~same_place

    forth = _hinge(queries, keys, margin, places, positives, others)
    back = _hinge(keys, queries, margin, places, positives, others)
    return (forth + back) / 2


def _hinge(
    queries: Tensor, keys: Tensor, margin: float, places: Tensor, positives: Positives,
    choose: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:  # fmt: skip
    """Mean of max(0, positive - negative + margin) over a row's negatives, then its positives, then rows.

    `choose` takes rows (n,) and which keys are of their places (n, batch), and gives their negatives.
    """

    def block(start: int, stop: int) -> list[Tensor]:
        rows = torch.arange(start, stop, device=queries.device)
        same_place = _same_place(places[start:stop], places)
        negatives = choose(rows, same_place)
        partners = same_place
        if positives == "masked":
            partners = torch.zeros_like(same_place)
            partners.diagonal(start).fill_(True)
        # Euclidean distances of unit vectors. The root has no slope at 0, so it stops short.
        distances = (2 - 2 * (queries[start:stop] @ keys.T)).clamp_min(1e-9).sqrt()
        anchor, positive = partners.nonzero(as_tuple=True)
        far = distances.masked_fill(~negatives, -HIDDEN)  # so that the hinge of these is 0
        hinge = torch.relu(distances[anchor, positive, None] + margin - far[anchor])  # (triplets, batch)
        each = hinge.sum(1) / negatives.sum(1).clamp_min(1)[anchor]
        return [(each / partners.sum(1)[anchor]).sum(), negatives.any(1).sum()]

    totals, rows = zip(*_in_blocks(block, len(queries), len(keys)), strict=True)
    # A row without a negative has no triplet.
    return torch.stack(totals).sum() / torch.stack(rows).sum().clamp_min(1)


CONTRASTIVE = {"infonce": info_nce, "symmetric": symmetric}
TRIPLET = {"triplet": triplet, "batch_triplet": batch_triplet}


def _same_place(places: Tensor, others: Tensor) -> Tensor:
    """(n,) and (m,) ids to (n, m): true where two are of one place."""
    return torch.eq(places[:, None], others[None, :])


def _in_blocks(block: Callable[[int, int], list[Tensor]], rows: int, columns: int) -> list[Any]:
    """What `block(start, stop)` gives for all rows of a matrix, at most ENTRIES of it at once."""
    size = max(1, ENTRIES // columns)
    if size >= rows:
        return [block(0, rows)]
    recomputed: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    return [checkpoint(block, start, min(start + size, rows), **recomputed) for start in range(0, rows, size)]
