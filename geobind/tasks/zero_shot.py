"""Zero-shot classification: the class whose name, as a text, is nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geobind.data.labels import label_words
from geobind.errors import GeoBindError, shorten
from geobind.retrieval.prompts import prompt_vectors
from geobind.space import GeoBind

# Wordings in which people name what a value shows; the bare name is always one of them.
TEMPLATES = {
    "satellite": (
        "{}", "a satellite image of {}", "an aerial photo of {}", "{} seen from above", "a satellite image of a {}",
        "an aerial photo of a {}", "there is a {} in this satellite image",
    ),
    "image": ("{}", "a photo of {}", "a photo of a {}", "a photo of the {}", "a picture taken at a {}"),
    "audio": ("{}", "the sound of {}", "a recording of {}", "this is the sound of a {}", "{} can be heard"),
}  # fmt: skip
_OTHER = ("{}", "a {}", "this is {}")


@dataclass(frozen=True, eq=False)
class Classification:
    """What `classify` found: cosines (values, classes) float32, rows of NaN for values that could not be read."""

    classes: tuple[str, ...]
    cosines: NDArray[np.float32]

    @property
    def labels(self) -> list[str | None]:
        """The nearest class of each value, None where it could not be read."""
        readable = np.isfinite(self.cosines).all(1)
        nearest = np.where(readable, np.nan_to_num(self.cosines).argmax(1), -1)
        return [self.classes[best] if best >= 0 else None for best in nearest]


def classify(
    space: GeoBind,
    modality: str,
    values: Sequence[Any] | np.ndarray,
    classes: Sequence[str],
    *,
    templates: Sequence[str] | None = None,
    batch_size: int = 64,
    device: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    workers: int = 0,
    progress: bool = False,
) -> Classification:
    """The class of each value, by the cosine of its embedding with those of the classes' names as text.

    >>> classify(space, "satellite", ["tile_01.jpg"], ["harbour", "DenseResidential"]).labels
    ['harbour']

    Each class is embedded in every template and averaged (`prompt_vectors`); names such as
    DenseResidential or sea_waves are put into words first. `templates` are those of the modality in
    TEMPLATES if not given; `["{}"]` takes the classes as they are. Other options are those of `embed`.
    `score(space, (modality, "text"), result.cosines, "probability")` gives probabilities of the classes.

    Raises GeoBindError for fewer than two classes, one given twice, a modality that nothing binds to text,
    and a text tower that takes no sentences.
    """
    names = tuple(classes)
    if isinstance(classes, str) or len(names) < 2 or len({*names}) < len(names):
        raise GeoBindError(
            f"classes are {shorten(classes)}: give a list of two or more names, all of them different"
        )
    for tower in (modality, "text"):
        space.fingerprint(tower)  # there is such a tower
    if not space.comparable(modality, "text"):
        raise GeoBindError(
            f"nothing binds {modality} to text in this space, so names of classes say nothing about it: "
            f"link them in a stage, or use labels (geobind probe)"
        )
    if space.tower("text").processor.takes != "text":
        raise GeoBindError(
            "the text tower of this space takes vectors, no sentences: use labels (geobind probe)"
        )
    prompts = class_vectors(space, modality, names, templates, device=device)
    embedded = space.embed(
        modality, values, batch_size=batch_size, device=device, on_error=on_error, workers=workers,
        progress=progress,
    )  # fmt: skip
    return Classification(names, embedded @ prompts.T)


def class_vectors(
    space: GeoBind,
    modality: str,
    classes: Sequence[str],
    templates: Sequence[str] | None = None,
    *,
    device: str | None = None,
) -> NDArray[np.float32]:
    """(classes, dim) unit length: the text embeddings with which values of the modality are compared."""
    words = [label_words(name) for name in classes]
    wordings = TEMPLATES.get(modality, _OTHER) if templates is None else templates
    return prompt_vectors(space, words, wordings, device=device)


def read_classes(argument: str) -> list[str]:
    """Classes as the command line takes them: names with commas between, or a .txt file of one a line.

    >>> read_classes("harbour, beach")
    ['harbour', 'beach']

    Raises GeoBindError for a file that cannot be read.
    """
    parts = argument.split(",")
    if argument.lower().endswith(".txt"):
        try:
            parts = Path(argument).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise GeoBindError(
                f"classes: {argument} cannot be read: give a UTF-8 file of one class a line"
            ) from None
    return [name.strip() for name in parts if name.strip()]
