"""A stand-in gives what the tower it stands on gives, and leaves the space as it was."""

from __future__ import annotations

import numpy as np
import pytest

from geobind import Evaluation, GeoBind, GeoBindError, evaluate
from geobind.retrieval.baseline import with_stand_ins
from tests.spaces import DIM, vector_pairs, vector_tower


def test_tiles_through_the_photo_tower():
    space = GeoBind(DIM, [vector_tower("satellite"), vector_tower("image")])
    before = {modality: space.fingerprint(modality) for modality in space.modalities}
    baseline = with_stand_ins(space, {"satellite": "image"})
    values = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    assert np.array_equal(baseline.embed("satellite", values), space.embed("image", values))
    assert np.array_equal(baseline.embed("image", values), space.embed("image", values))
    assert {modality: space.fingerprint(modality) for modality in space.modalities} == before


def test_only_what_differs_is_laid_beside_the_space(recwarn):
    space = GeoBind(DIM, [vector_tower(modality) for modality in ("satellite", "image", "text")])
    pairs = vector_pairs("satellite", "image", "text", split=["test"] * 120)
    evaluations = [Evaluation(("satellite", "image"), pairs), Evaluation(("text", "image"), pairs)]
    other = GeoBind(DIM, [space.tower("image"), space.tower("text"), vector_tower("satellite")])
    rows = evaluate(space, evaluations, baseline=other, baseline_name="other", progress=False).rows
    assert [row["baseline"] is None for row in rows] == [False, False, True, True]
    assert rows[0]["baseline_name"] == "other"
    assert rows[0]["baseline"].keys() == rows[0]["chance"].keys()


@pytest.mark.parametrize("stand_ins", [{"satelite": "image"}, {"satellite": "imagee"}])
def test_a_modality_without_a_tower_is_named(stand_ins):
    space = GeoBind(DIM, [vector_tower("satellite"), vector_tower("image")])
    with pytest.raises(GeoBindError, match="did you mean"):
        with_stand_ins(space, stand_ins)
