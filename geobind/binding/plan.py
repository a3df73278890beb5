"""What a stage would do: its towers, rows, cached targets, steps and memory, without doing any of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.table import Table
from torch import nn

from geobind.binding import optim
from geobind.binding.cache import read_digests, target_folder, value_digest
from geobind.binding.prepare import select
from geobind.binding.stage import Stage
from geobind.console import add_row, size_text, table
from geobind.data.order import epoch_batches
from geobind.data.pairs import Pairs
from geobind.space import GeoBind

TRAINED_BYTES = 16  # float32 weight, gradient and Adam's two moments of a parameter


@dataclass(frozen=True)
class CachePlan:
    """Targets of a frozen modality: rows that need one, distinct values among them, bytes of those.

    `present` is how many are in the cache already; None where an earlier stage moves the tower first, after
    which they depend on its training.
    """

    rows: int
    distinct: int
    bytes: int
    present: int | None


@dataclass(frozen=True)
class StagePlan:
    """One stage before it runs. `learners` are trainable parameters by modality, `frozen` all parameters."""

    stage: str
    learners: dict[str, int]
    frozen: dict[str, int]
    cache: dict[str, CachePlan]
    rows: int
    validation_rows: int
    places: int
    batch_size: int
    extra_negatives: dict[str, int]
    """Of each frozen gallery: keys beyond the batch's with which a query is compared."""
    steps_per_epoch: int
    epochs: int
    lr: float
    schedule: str
    memory: int
    """Bytes of weights, gradients and optimiser state; activations come on top."""

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def plan_stage(
    space: GeoBind, stage: Stage, *, limit: int | None = None, moved: Collection[str] = ()
) -> StagePlan:
    """Plan a stage whose towers the space holds or the stage adds. Raises what `prepare.select` raises.

    `moved` names modalities that earlier stages, not run yet, will have trained.
    """
    selected = select(space, stage, limit=limit)
    batches = epoch_batches(
        selected.train.places, batch_size=stage.batch_size, seed=stage.seed, epoch=0,
        rows_per_place=stage.rows_per_place,
    )  # fmt: skip
    sides = [selected.train] if selected.validation is None else [selected.train, selected.validation]
    towers = {modality: space.tower(modality) for modality in stage.modalities}
    trained = {modality: _count(towers[modality], trainable=True) for modality in stage.moving}
    return StagePlan(
        stage=stage.name,
        learners=trained,
        frozen={modality: _count(towers[modality]) for modality in stage.frozen},
        cache={m: _plan_cache(space, m, sides, m in moved) for m in stage.frozen if stage.cache_targets},
        rows=len(selected.train),
        validation_rows=sum(map(len, sides[1:])),
        places=len(set(selected.train.places.tolist())),
        batch_size=batches.shape[1],
        extra_negatives={
            link.gallery: min(link.extra_negatives, len(selected.train))
            for link in stage.links
            if link.extra_negatives
        },
        steps_per_epoch=batches.shape[0],
        epochs=stage.epochs,
        lr=optim.learning_rate(space, stage),
        schedule=stage.schedule,
        memory=TRAINED_BYTES * sum(trained.values())
        + 4 * (sum(map(_count, towers.values())) - sum(trained.values())),
    )


def _count(tower: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in tower.parameters() if p.requires_grad or not trainable)


def _plan_cache(space: GeoBind, modality: str, sides: Sequence[Pairs], moved: bool) -> CachePlan:
    columns = space.tower(modality).processor.columns
    digests = {value_digest(side[row], columns) for side in sides for row in range(len(side))}
    present = None
    if not moved:
        present = len(digests.intersection(read_digests(target_folder(space, modality), space.dim)))
    return CachePlan(sum(map(len, sides)), len(digests), 4 * space.dim * len(digests), present)


def plan_table(plans: Sequence[StagePlan]) -> Table:
    """Plans as one table for a terminal of 100 columns, a section a stage."""
    shown = table("Plan", "Stage", "", "")
    shown.caption = "Memory is weights, gradients and optimiser state; activations are not included."
    for plan in plans:
        shown.add_section()
        for number, (what, value) in enumerate(_lines(plan)):
            add_row(shown, "" if number else plan.stage, what, value)
    return shown


def _lines(plan: StagePlan) -> list[tuple[str, str]]:
    lines = [("learner", f"{modality}, {n:,} trainable parameters") for modality, n in plan.learners.items()]
    for modality, n in plan.frozen.items():
        lines.append(("frozen", f"{modality}, {n:,} parameters"))
        cached = modality in plan.cache
        lines.append(("targets", _cache_text(plan.cache[modality]) if cached else "computed in every step"))
        if modality in plan.extra_negatives:
            source = "random cached targets" if cached else "a queue of the last targets"
            lines.append(("extra negatives", f"{plan.extra_negatives[modality]:,} of {source}"))
    held_out = f", {plan.validation_rows:,} held out to choose the epoch" if plan.validation_rows else ""
    return [
        *lines,
        ("rows", f"{plan.rows:,} to train, of {plan.places:,} places{held_out}"),
        ("steps", f"{plan.steps:,} = {plan.epochs} epochs of {plan.steps_per_epoch:,} batches of {plan.batch_size:,}"),
        ("learning rate", f"{plan.lr:g}, {plan.schedule.replace('_', ' ')}"),
        ("memory", size_text(plan.memory)),
    ]  # fmt: skip


def _cache_text(cache: CachePlan) -> str:
    found = (
        "an earlier stage trains this tower"
        if cache.present is None
        else f"{cache.present:,} in the cache already"
    )
    return f"{cache.distinct:,} distinct values of {cache.rows:,} rows, {size_text(cache.bytes)}; {found}"
