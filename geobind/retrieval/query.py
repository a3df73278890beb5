"""Queries: one or several values of any modalities, weighted, wanted or unwanted, as one vector or one score."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.data.labels import check_templates
from geobind.errors import GeoBindError, did_you_mean, shorten
from geobind.retrieval.prompts import prompt_vectors
from geobind.space import GeoBind

Centres = Mapping[str, ArrayLike]
Combine = Literal["sum", "product", "minimum"]

VECTOR = "vector"  # the modality of a term that is an embedding already

_TERM = re.compile(r"""\s*([+-]?)([A-Za-z_]\w*):("(?:[^"\\]|\\.)*"|\S*?)(?:@([^\s"]+))?(?=\s|$)""")
_EXAMPLE = """write +text:"a beach" -text:crowds +location:21.3,-157.8@0.5"""


@dataclass(frozen=True)
class Term:
    """One value of a query and its weight, negative where the value is unwanted.

    >>> Term("text", "crowds", weight=-1)

    `value` is what the modality's tower takes; for the modality "vector" an embedding (dim,) of the space.
    Raises GeoBindError for a weight that is 0 or not finite.
    """

    modality: str
    value: Any
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight):
            raise GeoBindError(
                f"weight {self.weight:g} of {self.modality}:{shorten(self.value, 40)}: give a number other than 0"
            )


@dataclass(frozen=True)
class Query:
    """Terms and how they are combined into one score for each vector x of a gallery.

    >>> query = Query([Term("text", "a beach"), Term("audio", "surf.ogg"), Term("text", "crowds", -0.5)])
    >>> query = Query.parse('+text:"a beach" +audio:surf.ogg -text:crowds@0.5')   # the same
    >>> query.scores(space, tiles, centres=centres)                               # (n,) float32

    With v_i the embedding of term i, w_i its weight and c its modality's centre (`centres`, else those that
    `calibrate` has saved with the space, else zero):

    * "sum": the cosine of x and sum_i w_i u_i, where u_i = (v_i - c) / |v_i - c|. Modalities lie in
      cones of their own (the modality gap); the centre is what all values of one share, and says nothing.
      A single term is not centred: its cosines are those of `GeoBind.similarity`.
    * "product": prod_i p_i^|w_i|, and "minimum": min_i p_i, the two readings of AND. p_i is the percentile of
      the cosine of v_i and x among all x that are compared, in 0..1; for an unwanted term 1 minus it.

    `templates` are applied to each text and their embeddings averaged ("a satellite photo of {}").
    """

    terms: Sequence[Term]
    combine: Combine = "sum"
    templates: Sequence[str] = ("{}",)

    def __post_init__(self) -> None:
        if not self.terms:
            raise GeoBindError(f"the query is empty: {_EXAMPLE}")
        if self.combine not in get_args(Combine):
            raise GeoBindError(f"combine is {self.combine!r}{did_you_mean(self.combine, get_args(Combine))}")
        check_templates(self.templates)

    @classmethod
    def parse(cls, text: str, *, combine: Combine = "sum", templates: Sequence[str] = ("{}",)) -> Query:
        """A query as it is written on the command line: terms `[+|-]modality:value[@weight]`, or plain text.

        A value with spaces stands in double quotes, in which a backslash protects a quote. What does not
        begin like a term is one text: `a beach with palms`. Raises GeoBindError for anything else.
        """
        stripped = text.strip()
        if not re.match(r"[+-]?[A-Za-z_]\w*:\S", stripped):
            return cls([Term("text", stripped)] if stripped else [], combine, templates)
        terms, position = [], 0
        while position < len(stripped):
            match = _TERM.match(stripped, position)
            if match is None or re.fullmatch(r'|""|"|"[^"]*[^"]', match[3]):  # empty, or a quote left open
                rest = shorten(stripped[position:].strip(), 40)
                raise GeoBindError(f"query: {rest} is no term; put values with spaces in quotes: {_EXAMPLE}")
            sign, modality, value, weight = match.groups()
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            terms.append(Term(modality, value, _weight(weight, modality) * (-1 if sign == "-" else 1)))
            position = match.end()
        return cls(terms, combine, templates)

    def vectors(self, space: GeoBind, *, device: str | None = None) -> NDArray[np.float32]:
        """(terms, dim): the embedding of each term, unit length, neither centred nor weighted.

        Raises GeoBindError for a modality without a tower, MediaError for a value that cannot be read.
        """
        return np.stack([self._embed(space, term, device) for term in self.terms])

    def vector(
        self, space: GeoBind, *, centres: Centres | None = None, device: str | None = None
    ) -> NDArray[np.float32]:
        """(dim,) unit length: the weighted sum of the terms, for the combination "sum".

        `centres` are mean embeddings by modality (see `centre`), {} for none. Raises GeoBindError where the terms cancel.
        """
        if self.combine != "sum":
            raise GeoBindError(f"a query combined by {self.combine} is no single vector: use scores()")
        parts = self.vectors(space, device=device)
        known = space.centres if centres is None else centres
        known = known if len(parts) > 1 else {}
        total = np.zeros(space.dim, np.float32)
        for term, part in zip(self.terms, parts, strict=True):
            if term.modality in known:
                part = _unit(part - np.asarray(known[term.modality], np.float32), "equals its centre")
            total += np.float32(term.weight) * part
        return _unit(total, "cancels out: give other weights")

    def scores(
        self, space: GeoBind, gallery: ArrayLike, *, centres: Centres | None = None, device: str | None = None
    ) -> NDArray[np.float32]:
        """(n,) float32: how well each of the unit vectors `gallery` (n, dim) meets the query; higher is better."""
        matrix = np.asarray(gallery)
        if self.combine == "sum":
            vector = self.vector(space, centres=centres, device=device)
            return (matrix @ vector.astype(matrix.dtype)).astype(np.float32)
        vectors = self.vectors(space, device=device).astype(matrix.dtype)
        return self.conjunction(np.asarray(matrix @ vectors.T).T)

    def conjunction(self, cosines: NDArray[Any]) -> NDArray[np.float32]:
        """The scores (n,) of "product" or "minimum" from the cosines (terms, n) of all that is compared."""
        found = np.ones(cosines.shape[1], np.float32)
        for term, row in zip(self.terms, cosines, strict=True):
            share = percentile(row if term.weight > 0 else -row)
            if self.combine == "product":
                found *= share ** np.float32(abs(term.weight))
            else:
                found = np.minimum(found, share)
        return found

    def _embed(self, space: GeoBind, term: Term, device: str | None) -> NDArray[np.float32]:
        if term.modality == VECTOR:
            return _given_vector(term.value, space.dim)
        takes = space.tower(term.modality).processor.takes
        value = term.value
        if takes == "text":
            return prompt_vectors(space, [value], self.templates, modality=term.modality, device=device)[0]
        if isinstance(value, str) and takes in ("location", "vector"):
            value = _numbers(value, term.modality)
        elif isinstance(value, str) and takes == "file":
            value = Path(value)
        return space.embed(term.modality, [value], device=device)[0]


def centre(embeddings: ArrayLike) -> NDArray[np.float32]:
    """(dim,): the mean of the unit vectors (n, dim) of one modality; what all of them share.

    >>> centres = {"text": centre(space.embed("text", captions)), "audio": centre(space.embed("audio", sounds))}
    """
    return np.asarray(embeddings, np.float32).mean(0)


def percentile(scores: ArrayLike) -> NDArray[np.float32]:
    """(n,): for each score the share of all that are lower, ties counted half; strictly within 0..1.

    >>> percentile([0.1, 0.4, 0.4, 0.9])
    array([0.125, 0.5  , 0.5  , 0.875], dtype=float32)
    """
    values = np.asarray(scores)
    ordered = np.sort(values)
    low, high = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return ((low + high) / (2 * len(values))).astype(np.float32)


def _weight(text: str | None, modality: str) -> float:
    try:
        weight = float(text or 1)
        if weight > 0:
            return weight
    except ValueError:
        pass
    raise GeoBindError(
        f"query: weight {text!r} of {modality} is no number above 0: write {modality}:value@0.5, and - before what is unwanted"
    )


def _unit(vector: NDArray[np.float32], fault: str) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise GeoBindError(f"the query {fault}")
    return (vector / length).astype(np.float32)


def _given_vector(value: Any, dim: int) -> NDArray[np.float32]:
    vector = _numbers(value, VECTOR) if isinstance(value, str | Path) else np.asarray(value, np.float32)
    if vector.shape != (dim,):
        raise GeoBindError(
            f"the query vector has shape {vector.shape}, the space ({dim},): embed it with this space"
        )
    if not np.isfinite(vector).all() or not vector.any():
        raise GeoBindError("the query vector is zero, NaN or infinite: give an embedding of this space")
    return _unit(vector, "is zero")


def _numbers(value: str | Path, modality: str) -> NDArray[np.float32]:
    """Numbers in a `.npy` file, or written with commas. Positions stay double: a float32 degree is off by a metre."""
    text = str(value)
    try:
        if text.endswith(".npy"):
            return np.load(text, allow_pickle=False)
        return np.array([float(number) for number in text.split(",")])
    except (OSError, ValueError):
        raise GeoBindError(
            f"{modality}:{shorten(text, 40)} holds no numbers: write them with commas, or give a .npy file"
        ) from None
