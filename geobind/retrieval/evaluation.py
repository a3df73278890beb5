"""Retrieval between two modalities of a space, both ways: how well, and how well by chance."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindWarning
from geobind.retrieval.bootstrap import bootstrap
from geobind.retrieval.items import (
    Embedded,
    Evaluation,
    Protocol,
    Side,
    Source,
    match,
    shared_with_train,
    sides_of,
)
from geobind.retrieval.metrics import (
    group_chance,
    group_metrics,
    group_values,
    partner_chance,
    partner_metrics,
    partner_values,
)
from geobind.retrieval.published import published_chance, published_metrics, published_values
from geobind.retrieval.ranks import Partners, average_precision, partner_ranks
from geobind.retrieval.report import Report

if TYPE_CHECKING:
    import torch

    from geobind.space import GeoBind


def evaluate(
    space: GeoBind,
    evaluations: Sequence[Evaluation],
    *,
    baseline: GeoBind | None = None,
    baseline_name: str = "baseline",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    progress: bool = True,
    draws: int = 1000,
    seed: int = 0,
) -> Report:
    """Both directions of each evaluation, with 95 % intervals, chance and, if given, a baseline space.

    >>> report = evaluate(space, [Evaluation(("text", "satellite"), captions)])
    >>> report.rows[0]["query"], report.rows[0]["recall@10"], report.rows[0]["chance"]["recall@10"]
    ('text', 0.51, 0.017)

    Each distinct value of a modality in a pairs set is embedded once; for a tower that is told place or
    time, once with each. Values that cannot be read are left out, for the baseline too, and counted. `draws` and `seed` are those of `bootstrap`. docs/evaluation.md
    defines the protocols, the metrics and the fields of a row.

    Warns where nothing binds two modalities. Raises GeoBindError, before anything is embedded, for a
    modality without a tower, a split that is not there, a gallery of one, and no group or no query.
    """
    sides = [sides_of(evaluation, space) for evaluation in evaluations]
    for evaluation, (one, two) in zip(evaluations, sides, strict=True):
        match(evaluation, one, two)
        match(evaluation, two, one)
        if not space.comparable(*evaluation.between):
            _warn(
                f"{evaluation}: nothing binds the two in this space, so expect chance; link them in a stage"
            )

    against = [
        baseline is not None and _compares(baseline, baseline_name, space, evaluation)
        for evaluation in evaluations
    ]
    options = (batch_size, device, progress)
    found = _embed(space, [side for both in sides for side in both], *options)
    beside: dict[Source, Embedded] = {}
    if baseline is not None:
        wanted = [side for both, wanted in zip(sides, against, strict=True) if wanted for side in both]
        beside = _embed(baseline, wanted, *options)
    rows: list[dict[str, Any]] = []
    for evaluation, both, other in zip(evaluations, sides, against, strict=True):
        compared = [found, beside] if other else [found]
        one, two = (side.readable(compared) for side in both)
        unreadable = sum(len(side.keys) for side in both) - len(one.keys) - len(two.keys)
        for query, gallery in ((one, two), (two, one)):
            row = {
                "pairs": evaluation.name,
                "protocol": evaluation.protocol,
                "query": query.modality,
                "gallery": gallery.modality,
                "split": evaluation.split,
                "trained": bool(space.trained(query.modality, gallery.modality)),
                "unreadable": unreadable,
                **_direction(evaluation, query, gallery, compared, draws=draws, seed=seed),
            }
            if baseline is not None:
                row = {**row, "baseline_name": baseline_name, "baseline": row.get("baseline")}
            rows.append(row)
    return Report(rows)


# --- embeddings and metrics --------------------------------------------------------------------------------


def _compares(baseline: GeoBind, name: str, space: GeoBind, evaluation: Evaluation) -> bool:
    """Whether the baseline has both towers, and not merely those of the space itself."""
    if not {*evaluation.between} <= {*baseline.modalities}:
        _warn(f"{evaluation}: {name} has no tower for one of the two, so it is not compared")
        return False
    return any(baseline.tower(modality) is not space.tower(modality) for modality in evaluation.between)


def _embed(
    space: GeoBind,
    sides: Iterable[Side],
    batch_size: int,
    device: str | torch.device | None,
    progress: bool,
) -> dict[Source, Embedded]:
    """Every value that some evaluation needs, once."""
    pairs: dict[Source, Pairs] = {}
    rows: dict[Source, dict[str, int]] = {}
    for side in sides:
        pairs[side.source] = side.pairs
        wanted = rows.setdefault(side.source, {})
        for key, row in zip(side.keys, side.rows, strict=True):
            wanted.setdefault(key, int(row))
    return {
        source: Embedded(
            position={key: position for position, key in enumerate(wanted)},
            vectors=space.embed_rows(
                source[1],
                [pairs[source][row] for row in wanted.values()],
                batch_size=batch_size,
                device=device,
                on_error="skip",
                progress=progress,
            ),
        )
        for source, wanted in rows.items()
    }


def _direction(
    evaluation: Evaluation,
    query: Side,
    gallery: Side,
    compared: Sequence[dict[Source, Embedded]],
    *,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Counts and metrics of one direction in the first space, and those of the second as `baseline`."""
    items, partners = match(evaluation, query, gallery)
    measured = [
        _measure(evaluation.protocol, query.vectors(found)[items], gallery.vectors(found), partners)
        for found in compared
    ]
    metrics, values = measured[0]
    intervals = bootstrap(values, medians=("median_rank",), draws=draws, seed=seed)
    chance = {
        "partner": partner_chance,
        "group": group_chance,
        "published": lambda counts, size: published_chance(size),
    }[evaluation.protocol]
    row = {
        "queries": len(items),
        "gallery_size": len(gallery.keys),
        "shared_with_train": shared_with_train(evaluation, query) | shared_with_train(evaluation, gallery),
        **metrics,
        "low": {name: low for name, (low, _) in intervals.items()},
        "high": {name: high for name, (_, high) in intervals.items()},
        "chance": chance(partners.counts, partners.shape[1]),
    }
    return row if len(measured) == 1 else {**row, "baseline": measured[1][0]}


def _measure(
    protocol: Protocol, queries: NDArray[np.float32], gallery: NDArray[np.float32], partners: Partners
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The metrics, and what each query contributes to them."""
    if protocol != "group":
        ranks = partner_ranks(queries, gallery, partners)
        if protocol == "published":
            return published_metrics(ranks, len(gallery)), published_values(ranks, len(gallery))
        return partner_metrics(ranks), partner_values(ranks)
    precisions = average_precision(queries, gallery, partners)
    return group_metrics(*precisions), group_values(*precisions)


def _warn(message: str) -> None:
    warnings.warn(message, GeoBindWarning, stacklevel=3)
