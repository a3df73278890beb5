"""A stand-in gives what the tower it stands on gives, and leaves the space as it was."""

from __future__ import annotations

import numpy as np

from geobind import Evaluation, GeoBind, evaluate
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


def test_it_is_laid_beside_the_space_in_a_report(recwarn):
    space = GeoBind(DIM, [vector_tower("text"), vector_tower("image")])
    pairs = vector_pairs("text", "image", split=["test"] * 120)
    same = with_stand_ins(space, {})
    report = evaluate(
        space, [Evaluation(("text", "image"), pairs)], baseline=same, baseline_name="itself", progress=False
    )
    for row in report.rows:
        assert row["baseline_name"] == "itself"
        assert row["baseline"] == {metric: row[metric] for metric in row["baseline"]}
