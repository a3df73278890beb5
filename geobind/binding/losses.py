"""Contrastive and triplet losses over a batch, with rows of one place as joint positives or masked.

Two rows of one place are never negatives of each other: a place can have several captions, sounds or
photos, and a batch can hold two of them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

LossName = Literal["infonce", "symmetric", "triplet", "batch_triplet"]
Positives = Literal["joint", "masked"]


class Extra(NamedTuple):
    """Keys beyond the batch: vectors (m, dim) of unit length, and which are of a query's own place (batch, m)."""

    vectors: Tensor
    same_place: Tensor


def info_nce(
    queries: Tensor, keys: Tensor, scale: Tensor | float, same_place: Tensor, positives: Positives = "joint",
    extra: Extra | None = None,
) -> Tensor:  # fmt: skip
    """InfoNCE from queries to keys: mean over rows i of -log softmax_j(scale q_i k_j) at its positives.

    With one row a place this is eq. 1 of the GeoBind paper (arXiv 2404.11720). `joint` averages
    the log-probability over all keys of the row's place; `masked` takes only the row's own key and
    leaves the place's other keys out of the sum. `extra` keys are negatives of every query but those
    of their own place, for which they do not count.

    >>> info_nce(sat, image, 1 / 0.07, same_place=torch.eye(len(sat), dtype=torch.bool))

    Shapes: queries, keys (batch, dim) of unit length; same_place (batch, batch) bool, true on the
    diagonal. Returns a scalar.
    """
    logits = scale * (queries @ keys.T)
    partners = same_place
    if positives == "masked":
        partners = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(same_place & ~partners, float("-inf"))
    compared = logits
    if extra is not None:
        others = scale * (queries @ extra.vectors.T)
        compared = torch.cat([logits, others.masked_fill(extra.same_place, float("-inf"))], dim=1)
    log_probability = (logits - compared.logsumexp(1, keepdim=True)).masked_fill(~partners, 0.0)
    return -(log_probability.sum(1) / partners.sum(1)).mean()


def symmetric(
    queries: Tensor, keys: Tensor, scale: Tensor | float, same_place: Tensor, positives: Positives = "joint",
    extra: Extra | None = None,
) -> Tensor:  # fmt: skip
    """Mean of InfoNCE in both directions: eq. 2 to 4 of the GeoBind paper; `extra` keys in the first."""
    forth = info_nce(queries, keys, scale, same_place, positives, extra)
    back = info_nce(keys, queries, scale, same_place.T, positives)
    return (forth + back) / 2


def triplet(
    queries: Tensor, keys: Tensor, margin: float, same_place: Tensor, positives: Positives = "joint"
) -> Tensor:
    """Triplet loss with one negative a query, the key of the row before it that is of another place.

    Mean over rows of max(0, |q - k+| - |q - k-| + margin), with Euclidean distances: "native TL" of
    SoundingEarth (Heidler et al., arXiv 2108.00688), there on vectors that are not of unit length.
    Shapes as in `info_nce`.
    """
    rows = torch.arange(len(queries), device=queries.device)
    back = (rows[:, None] - rows[None, :]) % len(rows)  # how many rows before i stands j
    nearest = back.masked_fill(same_place, len(rows)).argmin(1, keepdim=True)
    negatives = torch.zeros_like(same_place).scatter(1, nearest, True) & ~same_place
    return _hinge(_distances(queries, keys), margin, same_place, negatives, positives)


def batch_triplet(
    queries: Tensor, keys: Tensor, margin: float, same_place: Tensor, positives: Positives = "joint"
) -> Tensor:
    """Triplet loss with every row of another place as negative, mean of both directions.

    "Batch TL" of SoundingEarth (see `triplet`), whose mean also counts the positive as its own negative,
    which adds margin / batch and no gradient.
    """
    distances = _distances(queries, keys)
    forth = _hinge(distances, margin, same_place, ~same_place, positives)
    back = _hinge(distances.T, margin, same_place.T, ~same_place.T, positives)
    return (forth + back) / 2


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances of unit vectors: (len(a), len(b)). The root has no slope at 0, so it stops short."""
    return (2 - 2 * (a @ b.T)).clamp_min(1e-9).sqrt()


def _hinge(
    distances: Tensor, margin: float, same_place: Tensor, negatives: Tensor, positives: Positives
) -> Tensor:
    """Mean of max(0, positive - negative + margin) over a row's negatives, then its positives, then rows."""
    partners = same_place
    if positives == "masked":
        partners = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    anchor, positive = partners.nonzero(as_tuple=True)
    hinge = torch.relu(distances[anchor, positive, None] - distances[anchor] + margin)  # (triplets, batch)
    each = (hinge * negatives[anchor]).sum(1) / negatives.sum(1).clamp_min(1)[anchor]
    rows = negatives.any(1).sum().clamp_min(1)  # a row without a negative has no triplet
    return (each / partners.sum(1)[anchor]).sum() / rows


CONTRASTIVE = {"infonce": info_nce, "symmetric": symmetric}
TRIPLET = {"triplet": triplet, "batch_triplet": batch_triplet}


def same_place_matrix(places: Tensor, others: Tensor | None = None) -> Tensor:
    """(n,) place ids and (m,) others (the same ones, if not given) to (n, m): true where two are of one place."""
    return torch.eq(places[:, None], (places if others is None else others)[None, :])
