"""benchmarks/joint_or_staged.py compares what it says: nothing held out is trained on, all ways see the same rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "joint_or_staged.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("joint_or_staged", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values(rows, modality):
    return {row[modality] for part in rows.values() for row in part if modality in row}


@pytest.mark.parametrize("seed", [0, 3])
def test_nothing_that_judges_is_trained_on(script, sample, seed):
    train, judges = script.Sample(sample).parts(seed)
    assert set(judges) == {"held out", "test"}
    for rows in judges.values():
        for modality, other in (("satellite", "text"), ("audio", "audio"), ("image", "image")):
            judged = {row[modality] for row in rows[other]}
            assert judged
            assert judged.isdisjoint(values(train, modality))
    assert train != script.Sample(sample).parts(seed + 1)[0]


def test_joint_training_sees_the_rows_that_hold_everything(script, sample):
    data = script.Sample(sample)
    train, _ = data.parts(0)
    rows = script.complete(train)
    assert {row["satellite"] for row in rows} == set.intersection(
        *({row["satellite"] for row in part} for part in train.values())
    )
    for variant in script.VARIANTS:
        stages = script.stages(variant, data, train, seed=0, epochs=1)
        assert len(stages) == (3 if variant.startswith("staged") else 1)
        assert (len(stages[0].require_pairs()) == len(rows)) == ("complete" in variant)
        assert {m for stage in stages for m in stage.modalities} == {"satellite", "text", "audio", "image"}
