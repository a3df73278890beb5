"""The one module of a stage: its learners and temperatures, seen as a single call by DDP and compilers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geobind.binding.losses import LOSSES, Positives, same_place_matrix
from geobind.binding.stage import Link
from geobind.space import GeoBind
from geobind.towers.base import Batch

MAX_LOG_SCALE = math.log(100)


class Binder(nn.Module):
    """Learners to unit embeddings, and one logit scale a link.

    `forward({modality: batch}) -> ({modality: (batch, dim)}, (links,) scales)`.
    """

    learned: Tensor

    def __init__(self, space: GeoBind, learners: list[str], links: list[Link]) -> None:
        super().__init__()
        self.learners = nn.ModuleDict({modality: space.tower(modality) for modality in learners})
        initial = torch.tensor([math.log(1 / link.temperature) for link in links])
        self.log_scale = nn.Parameter(initial)
        self.register_buffer("learned", torch.tensor([float(link.learn_temperature) for link in links]))
        self.links = links

    def forward(self, batches: dict[str, Batch]) -> tuple[dict[str, Tensor], Tensor]:
        embeddings = {
            modality: F.normalize(self.learners[modality](**batch).float(), dim=-1)
            for modality, batch in batches.items()
        }
        log_scale = self.log_scale * self.learned + self.log_scale.detach() * (1 - self.learned)
        return embeddings, log_scale.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep every logit scale within 1..100 (temperature 1..0.01), as CLIP does."""
        self.log_scale.clamp_(0, MAX_LOG_SCALE)

    def temperatures(self) -> dict[tuple[str, str], float]:
        scales = self.log_scale.detach().exp().tolist()
        return {link.pair: 1 / scale for link, scale in zip(self.links, scales, strict=True)}


def stage_loss(
    embeddings: dict[str, Tensor], scales: Tensor, places: Tensor, links: list[Link], positives: Positives
) -> Tensor:
    """Weighted mean of the links' losses over one (global) batch; places (batch,) int64."""
    same_place = same_place_matrix(places)
    total = sum(link.weight for link in links)
    losses = [
        link.weight
        * LOSSES[link.loss](embeddings[link.query], embeddings[link.gallery], scale, same_place, positives)
        for link, scale in zip(links, scales, strict=True)
    ]
    return torch.stack(losses).sum() / total
