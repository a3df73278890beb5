"""Several captions of a place: all are positives (`joint`), or each row has its own (`masked`); none is a negative.

Lists in a cell of a table, and rows with one place id, mean the same.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from geobind import Pairs, Stage, bind
from tests.binding.test_losses import written_out
from tests.spaces import WIDTHS, vector_space

CAPTIONS = [["a harbour", "boats"], ["a farm"], ["a road", "cars", "a bridge"], ["a lake", "water"]]


@pytest.fixture
def tables(tmp_path) -> list[Pairs]:
    """The same tiles and captions, as lists in a cell and as a row a caption with a place column."""
    rng = np.random.default_rng(0)
    tiles, texts = (
        [f"{i}.jpg" for i in range(len(CAPTIONS))],
        [text for captions in CAPTIONS for text in captions],
    )
    features = {}
    for modality, keys in (("satellite", tiles), ("text", texts)):
        features[modality] = tmp_path / f"{modality}.npz"
        vectors = rng.normal(size=(len(keys), WIDTHS[modality])).astype(np.float32)
        np.savez(features[modality], key=np.array(keys), vector=vectors)
    lists = pa.table({"satellite": tiles, "text": CAPTIONS})
    owner = [tile for tile, captions in zip(tiles, CAPTIONS, strict=True) for _ in captions]
    rows = pa.table({"satellite": owner, "text": texts, "place": owner})
    return [Pairs.from_table(table, features=features) for table in (lists, rows)]


@pytest.mark.parametrize("positives", ["joint", "masked"])
def test_the_loss_of_a_step_is_the_written_out_one(tables, positives):
    for pairs in tables:
        space = vector_space("satellite", "text")
        stage = Stage(
            learner="satellite", target="text", loss="infonce", pairs=pairs, epochs=1, batch_size=8, lr=1e-12,
            validation=0, positives=positives, temperature=0.1,
        )  # fmt: skip
        (loss,) = bind(space, stage, progress=False).losses
        satellite, text = (space.embed_rows(m, pairs) for m in ("satellite", "text"))
        expected = written_out(satellite, text, 10.0, pairs.places.tolist(), positives)
        assert loss == pytest.approx(expected, abs=1e-4)


def test_joint_positives_pull_to_every_caption_of_the_place(tables):
    """After training, the nearest captions of a tile are all its own, not just one of them."""
    pairs = tables[0]
    space = vector_space("satellite", "text")
    stage = Stage(
        learner="satellite", target="text", pairs=pairs, epochs=60, batch_size=8, lr=1e-2, validation=0,
        rows_per_place=3,
    )  # fmt: skip
    bind(space, stage, progress=False)
    satellite, text = (space.embed_rows(m, pairs) for m in ("satellite", "text"))
    scores = satellite @ text.T
    own = pairs.places[:, None] == pairs.places
    assert (np.where(own, scores, np.inf).min(1) > np.where(own, -np.inf, scores).max(1)).all()
