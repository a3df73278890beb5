"""The one module of a stage: its learners and temperatures, seen as a single call by DDP and compilers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from geobind.binding.losses import CONTRASTIVE, TRIPLET, Keys, Positives
from geobind.binding.stage import Link
from geobind.space import GeoBind
from geobind.towers.base import Batch


class Binder(nn.Module):
    """Learners to unit embeddings, and one logit scale a link.

    `forward({modality: batch}) -> ({modality: (batch, dim)}, (links,) scales)`. Without `norms_learn`,
    batch normalisation stays in evaluation mode: an embedding does not depend on its neighbours.
    """

    fixed: Tensor
    learned: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self, space: GeoBind, learners: list[str], links: list[Link], *, norms_learn: bool = True,
        compiled: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norms_learn = norms_learn
        self.learners = nn.ModuleDict({modality: space.tower(modality) for modality in learners})
        self._forward: dict[str, Callable[..., Tensor]] = dict(self.learners.items())
        if compiled:  # with the random numbers of the plain tower, which cached gradients draw twice
            options: dict[str, Any] = {"fallback_random": True}
            self._forward = {m: torch.compile(tower, options=options) for m, tower in self.learners.items()}
        self.links = links
        log_scales = {
            "fixed": [math.log(1 / link.temperature) for link in links],
            "low": [math.log(1 / link.temperature_range[1]) for link in links],
            "high": [math.log(1 / link.temperature_range[0]) for link in links],
        }
        for name, values in log_scales.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)
        learned = [link.learn_temperature and link.loss in CONTRASTIVE for link in links]
        self.register_buffer("learned", torch.tensor(learned, dtype=torch.float32), persistent=False)
        # Without a gradient DDP would wait for it, and with one of zero AdamW would still decay it.
        self.log_scale = nn.Parameter(self.fixed.clone(), requires_grad=any(learned))

    def train(self, mode: bool = True) -> Binder:
        super().train(mode)
        if not self.norms_learn:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, batches: dict[str, Batch]) -> tuple[dict[str, Tensor], Tensor]:
        embeddings = {
            modality: F.normalize(self._forward[modality](**batch).float(), dim=-1)
            for modality, batch in batches.items()
        }
        return embeddings, self._scales()

    def _scales(self) -> Tensor:
        return torch.where(self.learned > 0, self.log_scale, self.fixed).exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep every temperature within its link's range (0.01 to 1 unless set), as CLIP does."""
        self.log_scale.copy_(torch.clamp(self.log_scale, self.low, self.high))

    @torch.no_grad()
    def temperatures(self) -> dict[tuple[str, str], float]:
        return {link.pair: 1 / scale for link, scale in zip(self.links, self._scales().tolist(), strict=True)}


def stage_loss(
    embeddings: dict[str, Tensor], scales: Tensor, places: Tensor, links: list[Link], positives: Positives,
    extra: list[Keys | None],
) -> Tensor:  # fmt: skip
    """Weighted mean of the links' losses over one (global) batch; places (batch,) int64, extra keys a link."""
    total = sum(link.weight for link in links)
    losses = []
    for link, scale, keys in zip(links, scales, extra, strict=True):
        query, gallery = embeddings[link.query], embeddings[link.gallery]
        if link.loss in TRIPLET:
            loss = TRIPLET[link.loss](query, gallery, link.margin, places, positives)
        else:
            loss = CONTRASTIVE[link.loss](query, gallery, scale, places, positives, keys)
        losses.append(link.weight * loss)
    return torch.stack(losses).sum() / total
