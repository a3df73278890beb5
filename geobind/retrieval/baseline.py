"""The baseline that binding has to beat: one modality through the tower of another."""

from __future__ import annotations

from collections.abc import Mapping

from geobind.space import GeoBind
from geobind.towers.stand_in import StandIn


def with_stand_ins(space: GeoBind, stand_ins: Mapping[str, str]) -> GeoBind:
    """The same towers, but some modalities encoded by the tower of another. Shares weights; not for saving.

    The row CLIP in Table 1 of the GeoBind paper: satellite tiles through the ground-level photo encoder.

    >>> clip = with_stand_ins(space, {"satellite": "image"})
    >>> report = evaluate(space, evaluations, baseline=clip, baseline_name="CLIP")

    Raises GeoBindError for a modality without a tower, on either side.
    """
    for modality in stand_ins:
        space.tower(modality)  # names the modality if there is none
    towers = [
        StandIn(modality, space.tower(stand_ins[modality]))
        if modality in stand_ins
        else space.tower(modality)
        for modality in space.modalities
    ]
    return GeoBind(space.dim, towers)
