"""The demo on a reduced Earth: modalities never trained together find each other, and a second run is kept."""

from __future__ import annotations

import json

import pytest

from geobind import GeoBind
from geobind.data.earth.world import blue_marble
from geobind.demo import run
from geobind.errors import GeoBindError

EMERGENT = [("text", "satellite"), ("audio", "text"), ("audio", "image"), ("environment", "image")]
MARGIN = 2  # the least ratio of recall@10 to chance; the interval's lower end is above chance itself


@pytest.fixture(scope="module", autouse=True)
def _needs_the_extra():
    try:
        blue_marble()
    except GeoBindError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, run.run_demo(out, places=5000, seed=0, progress=False)


def test_emergent_pairs_beat_chance(finished):
    _, results = finished
    rows = {(row["query"], row["gallery"]): row for row in results.report.rows}
    assert len(rows) == 30  # six modalities, both ways
    for pair in EMERGENT:
        assert not rows[pair]["trained"]
        row = rows[pair]
        assert row["recall@10"] > MARGIN * row["chance"]["recall@10"], pair
        assert row["low"]["recall@10"] > row["chance"]["recall@10"], pair
    beside = rows["satellite", "image"]
    assert beside["recall@10"] > beside["baseline"]["recall@10"] > 0


def test_maps_of_sentences_agree_with_the_real_land_cover(finished):
    _, results = finished
    auc = {cover.name: cover.auc for cover in results.classes}
    assert len(auc) == 13
    assert min(auc["ice"], auc["desert"], auc["rainforest"], auc["water"]) > 0.8


def test_everything_is_on_disk_and_a_second_run_trains_nothing(finished):
    out, results = finished
    assert {path.name for path in out.iterdir()} >= {
        "earth",
        "space",
        "report.html",
        "maps.png",
        "metrics.json",
    }
    space = GeoBind.from_pretrained(out / "space")
    before = {modality: space.fingerprint(modality) for modality in space.modalities}
    again = run.run_demo(out, places=5000, seed=0, progress=False)
    space = GeoBind.from_pretrained(out / "space")
    assert {modality: space.fingerprint(modality) for modality in space.modalities} == before
    assert again.report.rows == json.loads((out / "metrics.json").read_text())
    assert again.seconds == results.seconds


def test_a_full_disk_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_DISK_BYTES", 10**18)
    with pytest.raises(GeoBindError, match="free space"):
        run.run_demo(tmp_path / "demo")
    assert not (tmp_path / "demo" / "earth").exists()
