"""How much of a label the embeddings hold: nearest neighbours, a linear probe and names of classes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from geobind.console import add_row, table
from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, did_you_mean
from geobind.retrieval.bootstrap import middle, resamples
from geobind.space import GeoBind
from geobind.tasks.zero_shot import class_vectors

NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
STRENGTHS = (
    1e-4,
    1e-3,
    1e-2,
    1e-1,
    1.0,
    10.0,
    100.0,
)  # C of the logistic regression, the inverse of its penalty
VALIDATION = 0.2

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]
Predict = Callable[[Vectors, Labels, Vectors], Labels]  # from training vectors, their labels, others


@dataclass(frozen=True)
class ProbeReport:
    """What `probe` found: counts, and a row of each method with accuracy, macro F1 and their 95 % intervals."""

    modality: str
    classes: list[str]
    train: int
    test: int
    unreadable: int
    rows: list[dict[str, Any]]

    def to_json(self) -> str:
        """All of it, as strict JSON."""
        return json.dumps(self.__dict__, indent=2, allow_nan=False)

    def table(self) -> Table:
        """A rich table of one line a method."""
        title = f"{self.modality}: {len(self.classes)} classes, {self.train:,} for training, {self.test:,} to test"
        numbers = ("accuracy", "95 %", "macro F1", "95 % ")
        shown = table(title, "embeddings", "method", *numbers, right=numbers)
        for row in self.rows:
            cells = []
            for name in ("accuracy", "macro_f1"):
                cells += [f"{row[name]:.3f}", f"{row['low'][name]:.3f} to {row['high'][name]:.3f}"]
            add_row(shown, row["embeddings"], row["method"], *cells)
        if self.unreadable:
            shown.caption = f"{self.unreadable} values could not be read and are left out"
        return shown


def probe(
    space: GeoBind,
    pairs: Pairs,
    modality: str,
    *,
    test: str = "test",
    baselines: Mapping[str, GeoBind] | None = None,
    templates: Sequence[str] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
) -> ProbeReport:
    """Classify the split `test` of labelled pairs from frozen embeddings, trained on the split "train".

    >>> tiles = Pairs.from_table("labels.csv", columns={"satellite": "path"}, group="class")
    >>> report = probe(space, tiles, "satellite")
    >>> report.rows[2]["method"], report.rows[2]["accuracy"]
    ('linear, C = 0.01', 0.93)

    Labels are the pairs' groups. Methods: the most frequent class of the training rows; a vote of the k
    nearest by cosine; logistic regression on standardised embeddings; and, where a space binds the
    modality to a text tower that takes sentences, the names of the classes in `templates` (`classify`).
    k and C are chosen on the split "val", else on a fifth of the training places, then all are trained
    on; `test` is read once. `baselines` are other spaces by name, probed likewise.

    Raises GeoBindError, before anything is embedded, for a missing split, no labels, classes to test that
    have no training row, and where scikit-learn is missing.
    """
    _require_sklearn()
    labelled = _labelled(pairs, modality)
    names, numbers = np.unique(labelled.groups.astype(str), return_inverse=True)
    parts = _parts(labelled, test, seed)
    unknown = np.setdiff1d(numbers[parts[2]], numbers[parts[0]])
    if len(unknown):
        raise GeoBindError(
            f"the class {names[unknown[0]].item()!r} is tested, but has no training row: add some, or leave it out"
        )
    spaces = {"space": space, **(baselines or {})}
    found = [_embed(some, labelled, modality, device, progress) for some in spaces.values()]
    readable = np.logical_and.reduce([np.isfinite(vectors).all(1) for vectors in found])
    found, numbers = [vectors[readable] for vectors in found], numbers[readable]
    train, chosen_on, tested = (part[readable] for part in parts)

    truth, rows = numbers[tested], []

    def add(embeddings: str, method: str, predicted: Labels) -> None:
        metrics = class_metrics(truth, predicted, len(names), seed=seed)
        rows.append({"embeddings": embeddings, "method": method, **metrics})

    add("none", "most frequent", np.full(len(truth), np.bincount(numbers[train]).argmax()))
    for (name, some), vectors in zip(spaces.items(), found, strict=True):
        for kind, options in ((_neighbours, NEIGHBOURS), (_linear, STRENGTHS)):
            label, predict = _best(kind, options, vectors, numbers, train, chosen_on)
            add(name, label, predict(vectors[train], numbers[train], vectors[tested]))
        if _speaks(some, modality):
            prompts = class_vectors(some, modality, names.tolist(), templates, device=device)
            add(name, "class names", (vectors[tested] @ prompts.T).argmax(1))
    return ProbeReport(modality, names.tolist(), int(train.sum()), len(truth), int((~readable).sum()), rows)


def class_metrics(truth: Labels, predicted: Labels, classes: int, *, seed: int = 0) -> dict[str, Any]:
    """Accuracy and macro F1 of predicted class numbers, with `low` and `high` of their 95 % intervals.

    Macro F1 is the mean over the classes in `truth` of 2 TP / (predicted + true). Intervals are those of
    `bootstrap`: items are drawn with replacement 1,000 times, with the classes that each draw holds.
    """
    one_hot = np.eye(classes)
    true, guessed = one_hot[truth], one_hot[predicted]

    def measure(times: NDArray[Any]) -> NDArray[np.float64]:
        hits, of_class, said = times @ (true * guessed), times @ true, times @ guessed
        f1 = 2 * hits / np.maximum(of_class + said, 1)
        present = of_class > 0
        return np.stack([hits.sum(1) / times.sum(1), (f1 * present).sum(1) / present.sum(1)], axis=1)

    low, high = middle(np.concatenate([measure(times) for _, times in resamples(len(truth), seed=seed)]))
    point = measure(np.ones((1, len(truth))))[0]
    names = ("accuracy", "macro_f1")
    return {
        **dict(zip(names, point.tolist(), strict=True)),
        "low": dict(zip(names, low.tolist(), strict=True)),
        "high": dict(zip(names, high.tolist(), strict=True)),
    }


# --- rows --------------------------------------------------------------------------------------------------


def _labelled(pairs: Pairs, modality: str) -> Pairs:
    if modality not in pairs.modalities:
        raise GeoBindError(
            f"pairs {pairs.name!r} have no modality {modality!r}{did_you_mean(modality, pairs.modalities)}"
        )
    present = pairs.having([modality])
    has_label = np.array([bool(group) for group in present.groups], dtype=bool)
    if not has_label.any():
        raise GeoBindError(f"pairs {pairs.name!r} have no labels: name their column (group=..., --label ...)")
    return present.subset(has_label)


def _embed(space: GeoBind, pairs: Pairs, modality: str, device: str | None, progress: bool) -> Vectors:
    return space.embed_rows(modality, pairs, device=device, on_error="skip", progress=progress)


def _parts(
    pairs: Pairs, test: str, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks (rows,): training, those of them on which options are chosen, and test."""
    if test == "train":
        raise GeoBindError("the split 'train' cannot be tested: it is what the probes are trained on")
    for name in ("train", test):
        pairs.split(name)  # there is such a split
    train, tested = np.isin(pairs.splits, ["train", "val"]) & (pairs.splits != test), pairs.splits == test
    chosen_on = train & (pairs.splits == "val")
    if not chosen_on.any():
        places = np.unique(pairs.places[train])
        held = np.random.default_rng(seed).permutation(places)[: max(1, round(VALIDATION * len(places)))]
        chosen_on = train & np.isin(pairs.places, held)
    if not (train & ~chosen_on).any():
        raise GeoBindError(
            f"pairs {pairs.name!r} have one training place: options cannot be chosen on others"
        )
    return train, chosen_on, tested


# --- methods -----------------------------------------------------------------------------------------------


def _best(
    kind: Callable[[Any], tuple[str, Predict]],
    options: Sequence[Any],
    vectors: Vectors,
    labels: Labels,
    train: NDArray[np.bool_],
    chosen_on: NDArray[np.bool_],
) -> tuple[str, Predict]:
    """The method with the option that is most often right on the validation rows; the first, where several are."""
    rest = train & ~chosen_on
    methods = [kind(option) for option in options]
    right = [
        (predict(vectors[rest], labels[rest], vectors[chosen_on]) == labels[chosen_on]).mean()
        for _, predict in methods
    ]
    return methods[int(np.argmax(right))]


def _neighbours(k: int) -> tuple[str, Predict]:
    def predict(vectors: Vectors, labels: Labels, others: Vectors) -> Labels:
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(min(k, len(vectors)), metric="cosine", algorithm="brute")
        return model.fit(vectors, labels).predict(others)

    return f"{k} nearest", predict


def _linear(strength: float) -> tuple[str, Predict]:
    def predict(vectors: Vectors, labels: Labels, others: Vectors) -> Labels:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        with warnings.catch_warnings():  # 500 steps of a weak penalty are enough for its ranking of classes
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(vectors, labels).predict(others)

    return f"linear, C = {strength:g}", predict


def _speaks(space: GeoBind, modality: str) -> bool:
    """Whether names of classes can be compared with the modality."""
    return (
        "text" in space.modalities
        and modality != "text"
        and space.tower("text").processor.takes == "text"
        and space.comparable(modality, "text")
    )


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise GeoBindError('probes need scikit-learn: pip install "geobind[tasks]"') from None
