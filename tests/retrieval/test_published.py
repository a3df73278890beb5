"""The published protocol counts as the papers do, and only as they do.

* one row, one query and one gallery item; a tile of two rows is a rival of itself;
* R@k counts average ranks below k, for which a plain loop over a score matrix is the reference;
* recall and median come from one direction, so that R@k above one half implies a median below k;
* a sample is always the same rows, and more than there are is refused;
* the command line switches to it, and leaves groups as they are.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from geobind.cli import app
from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError
from geobind.retrieval.items import Evaluation
from geobind.retrieval.published import PUBLISHED_METRICS, published_chance, published_metrics
from tests.retrieval.test_evaluation import run, space_of
from tests.toy import write_recipe

Known = dict[str, dict[str, list[float]]]


def repeated(seed: int, rows: int = 60) -> tuple[Pairs, Known]:
    """Rows of 40 tiles and 50 sounds, so that both repeat; two rows lack a half."""
    rng = np.random.default_rng(seed)
    columns = {"satellite": [f"s{i}" for i in rng.integers(40, size=rows)]}
    columns["audio"] = [f"a{i}" for i in rng.integers(50, size=rows)]
    columns["audio"][7] = columns["satellite"][9] = None  # type: ignore[call-overload]
    hidden = rng.normal(size=(50, 6))
    known = {
        m: {f"{m[0]}{i}": (hidden[i] + 0.8 * rng.normal(size=6)).tolist() for i in range(50)} for m in columns
    }
    return Pairs.from_columns(columns, verbatim=tuple(columns), split=["test"] * rows), known


def average_ranks(pairs: Pairs, known: Known, query: str, gallery: str) -> np.ndarray:
    """As pandas ranks a row of similarities, largest first, with method "average"."""
    rows = [row for row in pairs if row[query] is not None and row[gallery] is not None]
    unit = {m: {k: np.array(v) / np.linalg.norm(v) for k, v in known[m].items()} for m in (query, gallery)}
    ranks = []
    for i, row in enumerate(rows):
        scores = np.array([np.float32(unit[query][row[query]] @ unit[gallery][r[gallery]]) for r in rows])
        places = 1 + np.flatnonzero(scores[np.argsort(-scores)] == scores[i])
        ranks.append(places.mean())
    return np.array(ranks)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_loop_over_rows(seed):
    pairs, known = repeated(seed)
    for row in run(space_of(**known), Evaluation(("satellite", "audio"), pairs, protocol="published")).rows:
        ranks = average_ranks(pairs, known, row["query"], row["gallery"])
        assert row["queries"] == row["gallery_size"] == len(ranks) == 58
        assert row["median_rank"] == np.median(ranks)
        for k in (5, 10, 50, 100):
            assert row[f"recall@{k}"] == pytest.approx(np.mean(ranks < k))
        assert row["recall@10%"] == pytest.approx(np.mean(ranks < 5))
        assert tuple(row["chance"]) == tuple(row["low"]) == PUBLISHED_METRICS


def test_a_tile_of_two_rows_is_a_rival_of_itself():
    pairs = Pairs.from_columns(
        {"satellite": ["s", "s", "t"], "audio": ["a", "b", "c"]}, verbatim=("satellite", "audio")
    )
    space = space_of(satellite={"s": [1, 0], "t": [0, 1]}, audio={"a": [1, 0], "b": [1, 0.1], "c": [0, 1]})
    to_audio, to_tiles = run(
        space, Evaluation(("satellite", "audio"), pairs, split=None, protocol="published")
    ).rows
    assert to_tiles["median_rank"] == 1.5  # a and b find tile s twice, tied
    assert (to_audio["median_rank"], to_audio["queries"]) == (
        1,
        3,
    )  # s asks twice: its a is first, its b second


def test_a_gallery_below_five_is_reported(tmp_path):
    pairs, known = repeated(0)
    report = run(space_of(**known), Evaluation(("satellite", "audio"), pairs, protocol="published", sample=4))
    report.write(tmp_path)
    assert (tmp_path / "recall.png").stat().st_size > 0


@pytest.mark.parametrize("seed", range(20))
def test_recall_above_one_half_implies_a_median_below_k(seed):
    rng = np.random.default_rng(seed)
    metrics = published_metrics(1 + rng.geometric(rng.uniform(0.02, 0.3), size=101), n_gallery=200)
    for k in (5, 10, 50, 100):
        assert not (metrics[f"recall@{k}"] > 0.5 and metrics["median_rank"] >= k)


def test_chance_is_the_mean_over_random_orders():
    rng = np.random.default_rng(0)
    drawn = [published_metrics(rng.permutation(40) + 1, 40) for _ in range(50)]
    expected = published_chance(40)  # a permutation holds each rank once
    for name in PUBLISHED_METRICS:
        assert np.mean([metrics[name] for metrics in drawn]) == pytest.approx(expected[name])


def test_a_sample_is_the_same_rows_each_time_and_no_more_than_there_are():
    pairs, known = repeated(0)
    space = space_of(**known)
    for protocol in ("published", "partner"):
        first, again = (
            run(space, Evaluation(("satellite", "audio"), pairs, protocol=protocol, sample=25)) for _ in "12"
        )
        assert first == again
        assert first.rows[0]["gallery_size"] <= 25
        whole = run(space, Evaluation(("satellite", "audio"), pairs, protocol=protocol))
        assert first.rows[0]["median_rank"] < whole.rows[0]["median_rank"]
    assert (
        run(space, Evaluation(("satellite", "audio"), pairs, protocol="published", sample=58)).rows[0][
            "queries"
        ]
        == 58
    )
    with pytest.raises(GeoBindError, match="a sample of 59 rows, but only 58 have both"):
        run(space, Evaluation(("satellite", "audio"), pairs, protocol="published", sample=59))
    with pytest.raises(GeoBindError, match="leave it out under protocol: group"):
        Evaluation(("satellite", "audio"), pairs, protocol="group", sample=5)


def test_the_command_line_counts_as_the_papers_do_when_asked(tmp_path):
    evaluations = [
        {"between": ["text", "satellite"], "pairs": "captions", "sample": 15},
        {"between": ["text", "satellite"], "pairs": "captions", "protocol": "group"},
    ]
    recipe = write_recipe(tmp_path, evaluations=evaluations)
    assert yaml.safe_load(recipe.read_text())["evaluations"] == evaluations
    runner = CliRunner()
    space, out = str(tmp_path / "run"), tmp_path / "told"
    assert runner.invoke(app, ["bind", str(recipe), "--out", space]).exit_code == 0
    found = {}
    for protocol in ("partner", "published"):
        options = [] if protocol == "partner" else ["--protocol", protocol]  # the sane one is the default
        result = runner.invoke(app, ["evaluate", space, "--out", str(out), *options])
        assert result.exit_code == 0, result.output
        found[protocol] = json.loads((out / "metrics.json").read_text())
        assert [row["protocol"] for row in found[protocol]] == [protocol] * 2 + ["group"] * 2
    assert "text → satellite" in result.output
    assert "R@k counts ranks below k" in " ".join(result.output.split())
    # Nothing repeats here, so that the two differ in "below" alone.
    for one, two in zip(found["partner"][:2], found["published"][:2], strict=True):
        assert one["median_rank"] == two["median_rank"]
        assert one["recall@10"] >= two["recall@10"]
        assert "recall@1" not in two
    assert found["partner"][2:] == found["published"][2:]
