"""What an evaluation is between: its items, the places or groups they have, and which answers are right."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, did_you_mean
from geobind.retrieval.published import drawn_rows
from geobind.retrieval.ranks import Partners

if TYPE_CHECKING:
    from geobind.space import GeoBind

Protocol = Literal["partner", "group", "published"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
Source = tuple[int, str]  # the identity of a Pairs object, and a modality


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


@dataclass(frozen=True)
class Side:
    """The values of one modality in one pairs set, and the places, groups or row that each has."""

    pairs: Pairs
    modality: str
    keys: NDArray[np.object_]  # (items,) of the values
    rows: NDArray[np.intp]  # (items,) in `pairs`, the first that holds the value
    items: NDArray[np.intp]  # of each distinct (item, label), ascending
    labels: NDArray[np.int64]  # of each distinct (item, label): a place, a group or a row

    @property
    def source(self) -> Source:
        return id(self.pairs), self.modality

    def readable(self, compared: Sequence[dict[Source, Embedded]]) -> Side:
        """Without the items that some space could not embed."""
        good = np.all([np.isfinite(self.vectors(found)).all(1) for found in compared], axis=0)
        kept = good[self.items]
        items = (np.cumsum(good) - 1)[self.items[kept]]
        return Side(self.pairs, self.modality, self.keys[good], self.rows[good], items, self.labels[kept])

    def vectors(self, found: dict[Source, Embedded]) -> NDArray[np.float32]:
        """(items, dim) embeddings."""
        embedded = found[self.source]
        return embedded.vectors[[embedded.position[key] for key in self.keys]]

    def labels_of_items(self) -> list[NDArray[np.int64]]:
        return np.split(self.labels, np.searchsorted(self.items, np.arange(1, len(self.keys))))


@dataclass(frozen=True)
class Embedded:
    """What a space gave for the values of one source."""

    position: dict[str, int]  # key to row of `vectors`
    vectors: NDArray[np.float32]  # (values, dim), NaN where one could not be read


def sides_of(evaluation: Evaluation, space: GeoBind) -> tuple[Side, Side]:
    """The items of both modalities, labelled by place or by group."""
    for modality in evaluation.between:
        if modality not in space.modalities:
            raise GeoBindError(
                f"{evaluation}: the space has no tower for {modality!r}{did_you_mean(modality, space.modalities)}"
            )
    rows = [_rows(evaluation, pairs) for pairs in evaluation.tables]
    # A tower that is told where or when gives a picture of two moments two vectors: it is two items.
    keys = [
        told_keys(pairs, modality, space.tower(modality).processor.columns)[chosen]
        for pairs, modality, chosen in zip(evaluation.tables, evaluation.between, rows, strict=True)
    ]
    if evaluation.protocol == "published":
        one, two = map(_row_side, evaluation.tables, evaluation.between, keys, rows)
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
        _side(evaluation, *of_one)
        for of_one in zip(evaluation.tables, evaluation.between, keys, rows, labels, strict=True)
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


def _row_side(pairs: Pairs, modality: str, keys: NDArray[np.object_], rows: NDArray[np.intp]) -> Side:
    """One item a row, right for that row alone, though other rows may hold the same value."""
    numbers = np.arange(len(rows))
    return Side(pairs, modality, keys, rows, numbers, numbers)


def _side(
    evaluation: Evaluation,
    pairs: Pairs,
    modality: str,
    keys: NDArray[np.object_],
    rows: NDArray[np.intp],
    labels: NDArray[np.int64],
) -> Side:
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
    return Side(pairs, modality, distinct, rows[labelled][first], both[0], both[1])


def match(evaluation: Evaluation, query: Side, gallery: Side) -> tuple[NDArray[np.intp], Partners]:
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


def shared_with_train(evaluation: Evaluation, side: Side) -> dict[str, int]:
    """How many of the items stand in the train split as well; nothing where that is no question."""
    in_train = side.pairs.splits == "train"
    if evaluation.split in (None, "train") or not in_train.any():
        return {}
    keys = side.pairs.keys(side.modality)
    train = set(keys[in_train])
    return {side.modality: sum(key in train for key in keys[side.rows])}


def told_keys(pairs: Pairs, modality: str, columns: Collection[str]) -> NDArray[np.object_]:
    """(rows,) identity of what a tower reads of each row: the value, and the place and time it is told.

    `columns` are those of its processor. None where a row lacks the value.
    """
    keys = pairs.keys(modality)
    beside: list[NDArray] = []
    if "latitude" in columns and "location" in pairs.modalities and modality != "location":
        beside.append(pairs.keys("location"))
    if "datetime" in columns and pairs.times is not None:
        beside.append(pairs.times)
    for values in beside:
        both = zip(keys, values, strict=True)
        keys = np.array([None if key is None else f"{key} {value}" for key, value in both], dtype=object)
    return keys
