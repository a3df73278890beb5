"""Contrastive losses over a batch, with rows of one place as joint positives or masked.

Two rows of one place are never negatives of each other: a place can have several captions, sounds or
photos, and a batch can hold two of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Positives = Literal["joint", "masked"]


def info_nce(
    queries: Tensor, keys: Tensor, scale: Tensor | float, same_place: Tensor, positives: Positives = "joint"
) -> Tensor:
    """InfoNCE from queries to keys: mean over rows i of -log softmax_j(scale q_i k_j) at its positives.

    With one row a place this is eq. 1 of the GeoBind paper (arXiv 2404.11720). `joint` averages
    the log-probability over all keys of the row's place; `masked` takes only the row's own key and
    leaves the place's other keys out of the sum.

    >>> info_nce(sat, image, 1 / 0.07, same_place=torch.eye(len(sat), dtype=torch.bool))

    Shapes: queries, keys (batch, dim) of unit length; same_place (batch, batch) bool, true on the
    diagonal. Returns a scalar.
    """
    logits = scale * (queries @ keys.T)
    if positives == "masked":
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(same_place & ~own, float("-inf"))
        return -(logits.diagonal() - logits.logsumexp(1)).mean()
    log_probability = logits - logits.logsumexp(1, keepdim=True)
    weight = same_place.to(logits.dtype) / same_place.sum(1, keepdim=True)
    return -(weight * log_probability).sum(1).mean()


def symmetric(
    queries: Tensor, keys: Tensor, scale: Tensor | float, same_place: Tensor, positives: Positives = "joint"
) -> Tensor:
    """Mean of InfoNCE in both directions: eq. 2 to 4 of the GeoBind paper."""
    forth = info_nce(queries, keys, scale, same_place, positives)
    back = info_nce(keys, queries, scale, same_place.T, positives)
    return (forth + back) / 2


LOSSES = {"infonce": info_nce, "symmetric": symmetric}


def same_place_matrix(places: Tensor) -> Tensor:
    """(batch,) place ids to (batch, batch): true where two rows are of one place."""
    return torch.eq(places[:, None], places[None, :])
