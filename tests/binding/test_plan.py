"""A plan foretells what `bind` then does, and does none of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from geobind import GeoBind, GeoBindError, Pairs, Recipe, Stage, bind, build_tower
from geobind.binding.cache import TargetCache, target_folder
from geobind.binding.plan import plan_stage, plan_table
from geobind.binding.report import BindReport
from geobind.storage import cache_folder
from tests.spaces import DIM, vector_pairs, vector_space
from tests.toy import write_recipe


def stage(**options) -> Stage:
    pairs = vector_pairs("satellite", "text", rows=130)
    return Stage(
        **{"learner": "satellite", "target": "text", "pairs": pairs, "epochs": 3, "batch_size": 16, **options}
    )


def weights(space: GeoBind) -> dict[str, bytes]:
    return {
        f"{modality}.{name}": value.numpy().tobytes()
        for modality in space.modalities
        for name, value in space.tower(modality).state_dict().items()
    }


@pytest.mark.parametrize("options", [{}, {"validation": 0.0}, {"batch_size": 64}, {"rows_per_place": 1}])
def test_a_plan_tells_what_bind_does(options):
    space = vector_space("satellite", "text")
    plan = plan_stage(space, stage(**options))
    report = bind(space, stage(**options), progress=False)
    assert (plan.rows, plan.validation_rows) == (report.rows, report.validation_rows)
    assert plan.steps == report.step
    cache = TargetCache(target_folder(space, "text"), DIM)
    assert plan.cache["text"].distinct == len(cache)
    assert plan.cache["text"].bytes == cache.vectors.nbytes
    assert plan.cache["text"].present == 0
    assert plan_stage(space, stage(**options)).cache["text"].present == len(cache)


def test_a_limit_counts_rows_as_bind_does():
    space = vector_space("satellite", "text")
    plan, report = plan_stage(space, stage(), limit=50), bind(space, stage(), limit=50, progress=False)
    assert (plan.rows, plan.steps) == (report.rows, report.step)


def test_planning_trains_fits_embeds_and_writes_nothing():
    space = vector_space("satellite", "text")
    before = weights(space)
    plan_stage(space, stage())
    assert weights(space) == before
    assert not space.tower("satellite").fitted
    assert not cache_folder().exists()


def test_equal_values_are_cached_once():
    tiles = np.random.default_rng(0).normal(size=(60, 24)).astype(np.float32)
    texts = np.repeat(np.eye(16, dtype=np.float32)[:6], 10, axis=0)
    pairs = Pairs.from_columns({"satellite": tiles, "text": texts}, place=np.arange(60))
    cache = plan_stage(vector_space("satellite", "text"), stage(pairs=pairs)).cache["text"]
    assert (cache.rows, cache.distinct, cache.bytes) == (60, 6, 6 * DIM * 4)


def test_memory_is_16_bytes_a_trained_parameter_and_4_a_frozen_one():
    space = vector_space("satellite", "text", "audio")
    space.record_binding(["satellite"], {("satellite", "text"): 0.07})
    pairs = vector_pairs("satellite", "audio")
    plan = plan_stage(space, stage(learner="audio", target="satellite", pairs=pairs))
    trained, frozen = (sum(p.numel() for p in space.tower(m).parameters()) for m in ("audio", "satellite"))
    assert plan.learners == {"audio": trained}
    assert plan.frozen == {"satellite": frozen}
    assert plan.memory == 16 * trained + 4 * frozen


def test_parameters_that_do_not_learn_are_not_counted_as_trained():
    space = vector_space("satellite", "text")
    for parameter in space.tower("satellite").head[0].parameters():
        parameter.requires_grad_(False)
    left = sum(p.numel() for p in space.tower("satellite").head[3].parameters())
    assert plan_stage(space, stage()).learners == {"satellite": left}


def test_without_a_cache_nothing_is_planned_for_it():
    plan = plan_stage(vector_space("satellite", "text"), stage(cache_targets=False))
    assert plan.cache == {}
    assert "computed in every step" in shown([plan])


@pytest.mark.parametrize(
    ("cached", "source"), [(True, "random cached targets"), (False, "a queue of the last targets")]
)
def test_extra_negatives_are_at_most_the_training_rows(cached, source):
    plan = plan_stage(vector_space("satellite", "text"), stage(extra_negatives=9000, cache_targets=cached))
    assert plan.extra_negatives == {"text": plan.rows}
    assert f"{plan.rows} of {source}" in " ".join(shown([plan]).split())


def test_the_learning_rate_is_the_one_that_bind_takes():
    assert plan_stage(vector_space("satellite", "text"), stage()).lr == 1e-3  # from scratch
    assert plan_stage(vector_space("satellite", "text"), stage(lr=0.02)).lr == 0.02
    towers = [
        build_tower("letters", modality="satellite", dim=DIM, weights="somebody/encoder"),
        vector_space("text").tower("text"),
    ]
    assert plan_stage(GeoBind(DIM, towers), stage()).lr == 5e-5  # pretrained


def test_a_stage_that_cannot_run_cannot_be_planned():
    with pytest.raises(GeoBindError, match="no tower for 'satellite'"):
        plan_stage(vector_space("text"), stage())


def test_a_recipe_is_planned_stage_by_stage(tmp_path, monkeypatch):
    path = write_recipe(
        tmp_path / "data",
        stages=[
            {"learner": "satellite", "target": "text", "pairs": "captions", "epochs": 2, "batch_size": 8},
            {"name": "back", "learner": "text", "target": "satellite", "pairs": "captions", "batch_size": 8},
        ],
    )
    monkeypatch.chdir(tmp_path / "data")
    before = sorted((tmp_path / "data").iterdir())
    first, second = Recipe.load(path).plan()
    assert (first.stage, second.stage) == ("satellite", "back")
    assert first.cache["text"].present == 0
    assert second.cache["satellite"].present is None  # stage 1 moves it
    assert sorted((tmp_path / "data").iterdir()) == before
    assert not cache_folder().exists()
    assert "an earlier stage trains this tower" in " ".join(shown([first, second]).split())


def shown(plans, width=100) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(plan_table(plans))
    return console.export_text()


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits(width):
    plan = plan_stage(vector_space("satellite", "text"), stage())
    text = shown([plan, plan], width)
    assert max(map(len, text.splitlines())) <= width
    for part in (
        "trainable parameters",
        "held out",
        f"{plan.steps} = 3 epochs",
        "0.001, one cycle",
        "activations",
    ):
        assert part in " ".join(text.split())


# --- and what is said afterwards ---------------------------------------------------------------------------


def test_a_report_is_summed_up_in_two_lines():
    report = BindReport(
        "audio", 1035, 115, step=120, seconds=12.4, waited=3.1, losses=[5.0, 4.0, 3.25], recalls=[0.1, 0.3, 0.2], best_epoch=1,
        temperatures={"audio-satellite": 0.0701}, unreadable=["row 3: no", "row 4: no", "row 3: no"],
    )  # fmt: skip
    assert report.summary() == (
        "Stage audio: 1,035 rows (115 held out); 3 epochs, the best 2 with validation recall@10 0.300; loss 3.250; "
        "temperature audio-satellite 0.0701; 12 s, 25% of them waiting for data\n"
        "2 unreadable rows were replaced by others: row 3: no; row 4: no"
    )


def test_a_report_without_validation_names_no_best_epoch():
    report = BindReport("audio", 10, 0, losses=[5.0], seconds=1.0)
    assert report.summary() == "Stage audio: 10 rows; 1 epochs; loss 5.000; 1 s, 0% of them waiting for data"
