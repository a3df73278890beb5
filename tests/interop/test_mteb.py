"""A space under mteb.

* mteb's nDCG@10 of a stand-in for its SoundingEarth tasks is the package's own, both directions.
* Items that the space has no tower for are refused in one line.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from geobind import Evaluation, GeoBind, GeoBindError, Pairs, build_tower, evaluate
from geobind.interop.mteb import MtebEncoder
from tests.spaces import vector_space

ROOT = Path(__file__).parents[2]


def test_items_without_a_tower_are_refused():
    loader = SimpleNamespace(dataset=SimpleNamespace(column_names=["id", "audio"]))
    with pytest.raises(GeoBindError, match="mteb asks for id or audio, the space has satellite, text"):
        MtebEncoder(vector_space("satellite", "text")).encode(loader)


def test_texts_are_embedded_in_their_order():
    from datasets import Dataset

    from tests.toy import toy_space

    space, texts = toy_space(), ["abba", "cab", "deed"]
    loader = SimpleNamespace(dataset=Dataset.from_dict({"text": texts}))
    found = MtebEncoder(space).encode(loader, task_metadata=None)
    assert np.array_equal(found, space.embed("text", texts))


@pytest.mark.skipif(
    "GEOBIND_MTEB_PYTHON" not in os.environ, reason="make test-elsewhere makes the environment"
)
def test_mteb_gives_the_same_ndcg(tmp_path):
    torch.manual_seed(0)
    space = GeoBind(32, [build_tower("small", modality=m, dim=32) for m in ("satellite", "audio")])
    space.record_binding(["audio"], {("audio", "satellite"): 0.07})
    space.save_pretrained(tmp_path / "space")
    (tmp_path / "media").mkdir()
    rng, files = np.random.default_rng(0), {"satellite": [], "audio": []}
    for place in range(24):
        colour = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        files["satellite"].append(str(tmp_path / "media" / f"{place}.png"))
        Image.fromarray(colour).resize((64, 64)).save(files["satellite"][-1])
        files["audio"].append(str(tmp_path / "media" / f"{place}.flac"))
        wave = 0.3 * np.sin(np.arange(16_000) * rng.uniform(0.05, 2)) + rng.normal(0, 0.02, 16_000)
        soundfile.write(files["audio"][-1], wave, 16_000)
    pairs = Pairs.from_columns(files, place=np.arange(24))
    rows = evaluate(
        space, [Evaluation(("audio", "satellite"), pairs, split=None)], progress=False, draws=10
    ).rows
    run = subprocess.run(
        [os.environ["GEOBIND_MTEB_PYTHON"], str(ROOT / "tests" / "interop" / "mteb_run.py"),
         str(tmp_path / "space"), str(tmp_path / "media")],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    scores = json.loads(run.stdout.splitlines()[-1])
    assert scores["audio image"] == pytest.approx(rows[0]["ndcg@10"], abs=1e-4)
    assert scores["image audio"] == pytest.approx(rows[1]["ndcg@10"], abs=1e-4)
    assert 0 < scores["audio image"] < 1
