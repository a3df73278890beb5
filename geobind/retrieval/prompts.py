"""Prompts: a text in several templates, embedded as one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geobind.data.labels import check_templates
from geobind.errors import GeoBindError, shorten
from geobind.space import GeoBind


def prompt_vectors(
    space: GeoBind,
    texts: Sequence[str],
    templates: Sequence[str] = ("{}",),
    *,
    modality: str = "text",
    device: str | None = None,
) -> NDArray[np.float32]:
    """(texts, dim) unit length: of each text the mean of its unit embeddings in all templates.

    >>> prompt_vectors(space, ["a harbour"], ["a satellite image of {}", "{} seen from above"]).shape
    (1, 512)

    The mean of several wordings depends less on any one of them (Radford et al. 2021, section 3.1.4).
    Raises GeoBindError for templates without `{}`, and for a text whose embeddings cancel out.
    """
    check_templates(templates)
    prompts = [template.replace("{}", text) for text in texts for template in templates]
    embedded = space.embed(modality, prompts, device=device)
    means = embedded.reshape(len(texts), len(templates), space.dim).mean(1)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    if (lengths < 1e-6).any():
        raise GeoBindError(
            f"the templates of {shorten(texts[int(lengths.argmin())], 40)} cancel out: use others"
        )
    return (means / lengths).astype(np.float32)
