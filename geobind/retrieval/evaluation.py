"""Retrieval between two modalities of a space, both ways: on which items, what is right, and how well."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, GeoBindWarning, did_you_mean
from geobind.retrieval.bootstrap import bootstrap
from geobind.retrieval.metrics import (
    group_chance,
    group_metrics,
    group_values,
    partner_chance,
    partner_metrics,
    partner_values,
)
from geobind.retrieval.published import drawn_rows, published_chance, published_metrics, published_values
from geobind.retrieval.ranks import Partners, average_precision, partner_ranks
from geobind.retrieval.report import Report

if TYPE_CHECKING:
    import torch

    from geobind.space import GeoBind

Protocol = Literal["partner", "group", "published"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
_Source = tuple[int, str]  # the identity of a Pairs object, and a modality


@dataclass(frozen=True)
class Evaluation:
    """Two modalities, the pairs that hold their items, and what counts as a right answer.

    "partner": what was observed at the same place. "group": what has a group in common, which needs labels
    but no common place, so that `pairs` may be two sets, in the order of `between`. "published": the other
    half of the same row, counted as the papers do (docs/published.md).

    >>> Evaluation(("text", "satellite"), captions)
    >>> Evaluation(("audio", "text"), (sounds, captions), protocol="group")     # never trained together

    `split` None takes all rows; `sample` takes that many of those that hold both, always the same ones.
    Both directions are always evaluated. Raises GeoBindError for a modality that the pairs do not have, an
    unknown protocol, and two pairs sets or a sample where the protocol has no use for them.
    """

    between: tuple[str, str]
    pairs: Pairs | tuple[Pairs, Pairs]
    split: str | None = "test"
    protocol: Protocol = "partner"
    sample: int | None = None

    def __post_init__(self) -> None:
        if len(self.between) != 2 or self.between[0] == self.between[1]:
            raise GeoBindError(f"an evaluation is between two different modalities, got {list(self.between)}")
        if len(self.tables) != 2:
            raise GeoBindError(
                f"an evaluation has one pairs set, or one for each modality, got {len(self.tables)}"
            )
        if self.protocol not in PROTOCOLS:
            raise GeoBindError(
                f"{self}: no protocol {self.protocol!r}{did_you_mean(self.protocol, PROTOCOLS)}"
            )
        for modality, pairs in zip(self.between, self.tables, strict=True):
            if modality not in pairs.modalities:
                raise GeoBindError(
                    f"{self}: pairs {pairs.name!r} have no modality {modality!r}"
                    f"{did_you_mean(modality, pairs.modalities)}"
                )
        if self.protocol != "group" and self.tables[0] is not self.tables[1]:
            raise GeoBindError(
                f"{self}: partners share a place, so they come from one pairs set: name one, or use protocol: group"
            )
        if self.protocol == "group" and self.sample is not None:
            raise GeoBindError(
                f"{self}: a sample is of rows that hold both; leave it out under protocol: group"
            )

    @property
    def tables(self) -> tuple[Pairs, Pairs]:
        """The pairs set of each modality of `between`."""
        return (self.pairs, self.pairs) if isinstance(self.pairs, Pairs) else self.pairs

    @property
    def name(self) -> str:
        """The name of the pairs: "captions", or "sounds+captions"."""
        one, two = self.tables
        return one.name if one is two else f"{one.name}+{two.name}"

    def __str__(self) -> str:
        return f"evaluation of {' and '.join(self.between)} on {self.name} ({self.split or 'all rows'})"


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

    Each distinct value of a modality in a pairs set is embedded once, from the first row that holds it
    (towers that read position or time see those of that row). Values that cannot be read are left out,
    for the baseline too, and counted. `draws` and `seed` are those of `bootstrap`. docs/evaluation.md
    defines the protocols, the metrics and the fields of a row.

    Warns where nothing binds two modalities. Raises GeoBindError, before anything is embedded, for a
    modality without a tower, a split that is not there, a gallery of one, and no group or no query.
    """
    sides = [_sides(evaluation, space) for evaluation in evaluations]
    for evaluation, (one, two) in zip(evaluations, sides, strict=True):
        _match(evaluation, one, two)
        _match(evaluation, two, one)
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
    beside: dict[_Source, _Embedded] = {}
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


# --- items -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """The values of one modality in one pairs set, and the places, groups or row that each has."""

    pairs: Pairs
    modality: str
    keys: NDArray[np.object_]  # (items,) of the values
    rows: NDArray[np.intp]  # (items,) in `pairs`, the first that holds the value
    items: NDArray[np.intp]  # of each distinct (item, label), ascending
    labels: NDArray[np.int64]  # of each distinct (item, label): a place, a group or a row

    @property
    def source(self) -> _Source:
        return id(self.pairs), self.modality

    def readable(self, compared: Sequence[dict[_Source, _Embedded]]) -> _Side:
        """Without the items that some space could not embed."""
        good = np.all([np.isfinite(self.vectors(found)).all(1) for found in compared], axis=0)
        kept = good[self.items]
        items = (np.cumsum(good) - 1)[self.items[kept]]
        return _Side(self.pairs, self.modality, self.keys[good], self.rows[good], items, self.labels[kept])

    def vectors(self, found: dict[_Source, _Embedded]) -> NDArray[np.float32]:
        """(items, dim) embeddings."""
        embedded = found[self.source]
        return embedded.vectors[[embedded.position[key] for key in self.keys]]

    def labels_of_items(self) -> list[NDArray[np.int64]]:
        return np.split(self.labels, np.searchsorted(self.items, np.arange(1, len(self.keys))))


@dataclass(frozen=True)
class _Embedded:
    position: dict[str, int]  # key to row of `vectors`
    vectors: NDArray[np.float32]  # (values, dim), NaN where one could not be read


def _sides(evaluation: Evaluation, space: GeoBind) -> tuple[_Side, _Side]:
    """The items of both modalities, labelled by place or by group."""
    for modality in evaluation.between:
        if modality not in space.modalities:
            raise GeoBindError(
                f"{evaluation}: the space has no tower for {modality!r}{did_you_mean(modality, space.modalities)}"
            )
    rows = [_rows(evaluation, pairs) for pairs in evaluation.tables]
    if evaluation.protocol == "published":
        one, two = (_row_side(evaluation.tables[0], modality, rows[0]) for modality in evaluation.between)
        return one, two
    if evaluation.protocol == "partner":
        labels = [pairs.places[chosen] for pairs, chosen in zip(evaluation.tables, rows, strict=True)]
    else:
        names = [
            np.array([group or "" for group in pairs.groups[chosen]], dtype=str)
            for pairs, chosen in zip(evaluation.tables, rows, strict=True)
        ]
        known = np.unique(np.concatenate(names))
        labels = [np.where(some == "", -1, np.searchsorted(known, some)) for some in names]
    one, two = (
        _side(evaluation, pairs, modality, chosen, label)
        for pairs, modality, chosen, label in zip(
            evaluation.tables, evaluation.between, rows, labels, strict=True
        )
    )
    return one, two


def _rows(evaluation: Evaluation, pairs: Pairs) -> NDArray[np.intp]:
    """The rows of the evaluation's split, or its sample of them."""
    names = pairs.splits
    chosen = np.flatnonzero((names == evaluation.split) | (evaluation.split is None))
    if evaluation.split is not None and not len(chosen):
        known = {name for name in names if name}
        remedy = (
            did_you_mean(evaluation.split, known) if known else ": name its split column, or set split: null"
        )
        raise GeoBindError(f"{evaluation}: pairs {pairs.name!r} have no split {evaluation.split!r}{remedy}")
    if evaluation.protocol != "published" and evaluation.sample is None:
        return chosen
    held = [
        np.array([key is not None for key in pairs.keys(m)[chosen]], dtype=bool) for m in evaluation.between
    ]
    return drawn_rows(chosen[held[0] & held[1]], evaluation.sample, str(evaluation))


def _row_side(pairs: Pairs, modality: str, rows: NDArray[np.intp]) -> _Side:
    """One item a row, right for that row alone, though other rows may hold the same value."""
    numbers = np.arange(len(rows))
    return _Side(pairs, modality, pairs.keys(modality)[rows], rows, numbers, numbers)


def _side(
    evaluation: Evaluation, pairs: Pairs, modality: str, rows: NDArray[np.intp], labels: NDArray[np.int64]
) -> _Side:
    keys = pairs.keys(modality)[rows]
    has_value = np.array([key is not None for key in keys], dtype=bool)
    if not has_value.any():
        raise GeoBindError(f"{evaluation}: no row has {modality!r}; check the table, or take another split")
    labelled = has_value & (labels >= 0)
    if not labelled.any():
        raise GeoBindError(
            f"{evaluation}: no {modality!r} has a group; name the group column of pairs {pairs.name!r} (group: ...)"
        )
    distinct, first, item = np.unique(keys[labelled], return_index=True, return_inverse=True)
    both = np.unique(np.stack([item, labels[labelled]]), axis=1)
    return _Side(pairs, modality, distinct, rows[labelled][first], both[0], both[1])


def _match(evaluation: Evaluation, query: _Side, gallery: _Side) -> tuple[NDArray[np.intp], Partners]:
    """The items that ask (one at two places asks twice), and their right answers in the gallery."""
    if len(gallery.keys) < 2:
        raise GeoBindError(
            f"{evaluation}: a gallery of {len(gallery.keys)} {gallery.modality}, where at least 2 are needed; "
            f"take another split or more pairs"
        )
    items = query.items[np.isin(query.labels, gallery.labels)]
    if evaluation.protocol == "group":
        items = np.unique(items)
    if not len(items):
        problem = (
            "no place has both; check the place column"
            if evaluation.protocol == "partner"
            else "they have no group in common; check the group columns"
        )
        raise GeoBindError(f"{evaluation}: {problem}")
    labels = query.labels_of_items()
    return items, Partners.from_places([labels[item] for item in items], gallery.labels_of_items())


def _shared_with_train(evaluation: Evaluation, side: _Side) -> dict[str, int]:
    """How many of the items stand in the train split as well; nothing where that is no question."""
    in_train = side.pairs.splits == "train"
    if evaluation.split in (None, "train") or not in_train.any():
        return {}
    train = set(side.pairs.keys(side.modality)[in_train])
    return {side.modality: sum(key in train for key in side.keys)}


# --- embeddings and metrics --------------------------------------------------------------------------------


def _compares(baseline: GeoBind, name: str, space: GeoBind, evaluation: Evaluation) -> bool:
    """Whether the baseline has both towers, and not merely those of the space itself."""
    if not {*evaluation.between} <= {*baseline.modalities}:
        _warn(f"{evaluation}: {name} has no tower for one of the two, so it is not compared")
        return False
    return any(baseline.tower(modality) is not space.tower(modality) for modality in evaluation.between)


def _embed(
    space: GeoBind,
    sides: Iterable[_Side],
    batch_size: int,
    device: str | torch.device | None,
    progress: bool,
) -> dict[_Source, _Embedded]:
    """Every value that some evaluation needs, once."""
    pairs: dict[_Source, Pairs] = {}
    rows: dict[_Source, dict[str, int]] = {}
    for side in sides:
        pairs[side.source] = side.pairs
        wanted = rows.setdefault(side.source, {})
        for key, row in zip(side.keys, side.rows, strict=True):
            wanted.setdefault(key, int(row))
    return {
        source: _Embedded(
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
    query: _Side,
    gallery: _Side,
    compared: Sequence[dict[_Source, _Embedded]],
    *,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Counts and metrics of one direction in the first space, and those of the second as `baseline`."""
    items, partners = _match(evaluation, query, gallery)
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
        "shared_with_train": _shared_with_train(evaluation, query) | _shared_with_train(evaluation, gallery),
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
