"""What a cosine means: logit, probability under the pair's temperature, percentile against a background."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, did_you_mean
from geobind.retrieval.query import centre
from geobind.space import GeoBind

Score = Literal["cosine", "logit", "probability", "percentile"]

# Rows of a modality that are compared with those of another: 4 million cosines, enough for the finest level.
ROWS = 2048
MINIMUM = 20

_TAIL = 10.0 ** np.linspace(-6, -2, 17)
# Shares at which the background's quantiles are kept: by 1 %, and down to one in a million at both ends.
LEVELS = np.array([0, *_TAIL, *np.linspace(0.02, 0.98, 97), *(1 - _TAIL[::-1]), 1])


def score(
    space: GeoBind, between: tuple[str, str], cosines: ArrayLike, kind: Score = "percentile"
) -> NDArray[np.float32]:
    """Cosines of two modalities as scores that can be read: float32, in the shape given.

    >>> cosines = space.similarity(space.embed("text", ["a harbour"]), tiles)       # (1, tiles)
    >>> score(space, ("text", "satellite"), cosines, "percentile")                  # 0.999: above 99.9 % of chance

    * "cosine": as given.
    * "logit": cosine / temperature of the pair, what the loss compared (eq. 1 of the paper).
    * "probability": softmax of the logits over the last axis, which must be the whole gallery: how likely
      each item is the partner, if exactly one of them is.
    * "percentile": share, in 0..1, of the background's cosines that are lower (see `calibrate`).

    All but "probability" are by element, so they serve the results of a search or the cells of a map.
    Raises GeoBindError for logit and probability of a pair that no stage has linked, and for percentile of
    one that was not calibrated since its towers last changed.
    """
    values = np.asarray(cosines, np.float32)
    if kind == "cosine":
        return values
    if kind == "percentile":
        return np.interp(values, _background(space, between), LEVELS).astype(np.float32)
    if kind not in get_args(Score):
        raise GeoBindError(f"no score {kind!r}{did_you_mean(kind, get_args(Score))}")
    logits = values / np.float32(_temperature(space, between))
    if kind == "logit":
        return logits
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def calibrate(space: GeoBind, backgrounds: Mapping[str, ArrayLike], *, seed: int = 0) -> None:
    """Keep with the space how high cosines run by chance, for each two of the modalities that it binds.

    >>> calibrate(space, {"text": space.embed("text", captions), "satellite": space.embed("satellite", tiles)})
    >>> space.save_pretrained("runs/geobind")

    `backgrounds` are embeddings (n, dim) by modality of ordinary values that were not trained on: who asks
    for beaches needs tiles of everywhere, not tiles of beaches. Every value is compared with every one of
    the other modality; among n x n cosines the n of true partners do not count. Within one modality each
    two different rows are compared. At most 2,048 rows, drawn by `seed`, are used of each.

    The mean of each modality is kept too, as the centre from which composed queries count. Pairs whose
    chains do not meet are left out. Raises GeoBindError for fewer than 20 rows, another
    dimension, NaN, and a modality without a tower.
    """
    vectors = {
        modality: _rows(space, modality, background, seed) for modality, background in backgrounds.items()
    }
    space.centres.update({modality: centre(rows).tolist() for modality, rows in vectors.items()})
    for a, b in itertools.combinations_with_replacement(sorted(vectors), 2):
        if space.comparable(a, b):
            cosines = space.similarity(vectors[a], vectors[b])
            found = cosines[np.triu_indices(len(cosines), 1)] if a == b else cosines.ravel()
            space.calibration[a, b] = np.quantile(found, LEVELS).tolist()


def backgrounds(
    space: GeoBind,
    pairs: Iterable[Pairs],
    *,
    split: str | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Embeddings by modality for `calibrate`: distinct values of the pairs, at most 2,048 of each, drawn by `seed`.

    >>> calibrate(space, backgrounds(space, [captions, sounds]))

    Rows are those of `split`; if not given, of "val" where a set of pairs has it, else "train", else all.
    Values that cannot be read are left out, with a warning. Modalities without a tower, or with fewer than
    20 values, are too.
    """
    rows: dict[str, dict[str, tuple[Pairs, int]]] = {}
    for some in pairs:
        names = {*some.splits}
        wanted = split or next((name for name in ("val", "train") if name in names), None)
        some = some if wanted is None else some.split(wanted)
        for modality in set(space.modalities) & set(some.modalities):
            found = rows.setdefault(modality, {})
            for row, key in enumerate(some.keys(modality)):
                if key is not None:
                    found.setdefault(key, (some, row))
    embedded = {}
    for modality, found in sorted(rows.items()):
        order = np.random.default_rng(seed).permutation(len(found))[:ROWS]
        values = list(found.values())
        chosen = [some[row] for some, row in (values[position] for position in order)]
        if len(chosen) >= MINIMUM:
            vectors = space.embed_rows(modality, chosen, device=device, on_error="skip", progress=progress)
            embedded[modality] = vectors[np.isfinite(vectors).all(1)]
    return embedded


def _rows(space: GeoBind, modality: str, background: ArrayLike, seed: int) -> NDArray[np.float32]:
    space.fingerprint(modality)  # there is such a tower
    vectors = np.asarray(background, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != space.dim or len(vectors) < MINIMUM:
        raise GeoBindError(
            f"the {modality} background has shape {vectors.shape}: give at least {MINIMUM} embeddings of {space.dim} numbers"
        )
    if not np.isfinite(vectors).all():
        raise GeoBindError(f"the {modality} background has NaN: leave out what could not be read")
    if len(vectors) > ROWS:
        vectors = vectors[np.random.default_rng(seed).choice(len(vectors), ROWS, replace=False)]
    return vectors


def _background(space: GeoBind, between: tuple[str, str]) -> NDArray[np.float64]:
    """(levels,) quantiles of the pair's background."""
    a, b = sorted(between)
    if (a, b) not in space.calibration:
        raise GeoBindError(
            f"{between[0]} and {between[1]} were never calibrated, or before a tower changed: run geobind calibrate"
        )
    return np.asarray(space.calibration[a, b])


def _temperature(space: GeoBind, between: tuple[str, str]) -> float:
    a, b = sorted(between)
    if (a, b) not in space.temperatures:
        raise GeoBindError(
            f"no stage has linked {between[0]} and {between[1]}, so they have no temperature: use cosine or percentile"
        )
    return space.temperatures[a, b]
