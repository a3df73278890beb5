"""Before the first step: learners into the space, rows chosen and checked, frozen sides embedded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator

from geobind.binding.cache import Targets, cache_targets
from geobind.binding.stage import Stage
from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, did_you_mean
from geobind.space import GeoBind
from geobind.towers.base import Tower
from geobind.towers.head import head_options
from geobind.towers.rows import warn_unconditioned

VALIDATION_SPLITS = ("val", "validation", "valid", "dev")


@dataclass
class Prepared:
    """Rows to train on and rows to choose the best epoch by (none: the last epoch is kept)."""

    train: Pairs
    validation: Pairs | None


def prepare(space: GeoBind, stage: Stage, *, limit: int | None = None) -> Prepared:
    """`select` rows, and fit the learners that need it to those for training. Raises what `select` raises."""
    prepared = select(space, stage, limit=limit)
    for modality in stage.moving:
        tower = space.tower(modality)
        warn_unconditioned(modality, tower.processor, prepared.train)
        if not tower.fitted:
            _, first = np.unique(prepared.train.keys(modality), return_index=True)
            tower.fit(prepared.train[int(row)] for row in first)
    return prepared


def select(space: GeoBind, stage: Stage, *, limit: int | None = None) -> Prepared:
    """Check a stage against its space and pairs; add its learners; choose its rows.

    Raises GeoBindError, one line naming stage and remedy: a modality without tower or column, a
    learner or target whose dimension is not the space's, rows of fewer than two places.
    """
    where = f"stage {stage.name!r}"
    for learner in stage.learners:
        if isinstance(learner, Tower):
            learner.add_head(space.dim, head_options("auto", learner.dim, space.dim))
            space.add(learner)
    pairs = stage.require_pairs()
    for modality in stage.modalities:
        if modality not in space.modalities:
            raise GeoBindError(
                f"{where}: no tower for {modality!r}{did_you_mean(modality, space.modalities)}"
            )
        if modality in stage.frozen and _untrained_head(space, modality):
            raise GeoBindError(
                f"{where}: the frozen target {modality!r} gives {space.tower(modality).width} numbers, the space has {space.dim}, "
                f"and its head was never trained: set dim to {space.tower(modality).width}, or make it a learner"
            )
        if modality not in pairs.modalities:
            raise GeoBindError(
                f"{where}: {pairs.name} has no {modality!r}{did_you_mean(modality, pairs.modalities)}"
            )
    prepared = _choose_rows(stage, pairs.having(stage.modalities), limit)
    if len(np.unique(prepared.train.places)) < 2:
        raise GeoBindError(
            f"{where}: all {len(prepared.train)} training rows of {pairs.name} are of one place, so no row has a "
            f"negative: give rows of two or more places, or a finer place column"
        )
    return prepared


def _untrained_head(space: GeoBind, modality: str) -> bool:
    tower = space.tower(modality)
    return tower.head is not None and not set(space.chain(modality)) - {tower.origin}


def _choose_rows(stage: Stage, pairs: Pairs, limit: int | None) -> Prepared:
    splits = set(pairs.splits) - {None}
    train = pairs if stage.split is None or not splits else pairs.split(stage.split)
    if limit is not None:
        train = train.subset(np.arange(min(limit, len(train))))
    own = [name for name in VALIDATION_SPLITS if name in splits]
    if own:
        return Prepared(train, pairs.split(own[0]))
    if stage.validation == 0:
        return Prepared(train, None)
    if len(np.unique(train.places)) < 2:
        return Prepared(train, None)
    kept, held_out = train.holdout(stage.validation, stage.seed)
    # Too few places to judge by: a recall over three rows would choose an epoch by chance.
    return Prepared(kept, held_out) if len(held_out) >= 10 else Prepared(train, None)


def cache_frozen(
    space: GeoBind, stage: Stage, pairs: Pairs, accelerator: Accelerator, *, strict: bool, **embedding: Any
) -> tuple[dict[str, Targets], Pairs]:
    """Targets of the stage's frozen modalities, and the rows of which all targets could be read.

    The main process embeds and writes, the others wait and read.
    """
    if not stage.cache_targets:
        return {}, pairs
    targets: dict[str, Targets] = {}
    for modality in stage.frozen:
        options = {"strict": strict, "device": accelerator.device, **embedding}
        if accelerator.is_main_process:
            targets[modality] = cache_targets(space, modality, pairs, **options)
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            targets[modality] = cache_targets(space, modality, pairs, write=False, **options)
    readable = np.ones(len(pairs), bool)
    for target in targets.values():
        readable &= target.readable
    if readable.all():
        return targets, pairs
    if not readable.any():
        raise GeoBindError(
            f"stage {stage.name!r}: no target of {pairs.name} can be read: check the root of its paths"
        )
    kept = np.flatnonzero(readable)
    for target in targets.values():
        target.rows = target.rows[kept]
    return targets, pairs.subset(kept)
