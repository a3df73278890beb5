"""A run that is stopped, at whatever moment, goes on as if it had not been.

* Killed while it caches, loads, steps or writes a checkpoint: the losses of all steps and the weights are those of
  the undisturbed run, bit for bit;
* SIGTERM ends the step, writes a checkpoint and exits with 75;
* a loss that is not finite never reaches the weights, and its rows are named;
* another number of processes is said.
"""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest
import torch

from benchmarks.recovery import MOMENTS, Run, trials, write_data
from geobind import GeoBindError, GeoBindWarning, Stage, bind
from geobind.binding.checkpoint import Checkpoints
from tests.spaces import vector_pairs, vector_space


def test_five_kills_and_the_run_is_the_one_that_was_never_stopped(tmp_path):
    tried = list(trials(tmp_path, len(MOMENTS), seed=0))
    assert [moment for moment, _, _ in tried] == list(MOMENTS)
    assert sum(alive for _, alive, _ in tried) >= 4, "on a busy machine one may be late, not two"
    steps = [step for _, _, step in tried]
    assert steps == sorted(steps)


def test_sigterm_ends_the_step_saves_and_exits_with_75(tmp_path):
    run = Run(write_data(tmp_path / "data"), tmp_path / "run")
    process = run.start()
    while run.steps() < 3:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 75
    stage = run.stages()[-1]
    step = Checkpoints(stage).step
    assert f"stopped by SIGTERM at step {step} of" in errors.decode()
    assert errors.decode().rstrip().endswith(f"{stage} has it; the same command goes on")
    assert (stage / "losses.csv").read_text().splitlines()[-1].startswith(f"{step},")


def stage_of(pairs, **options) -> Stage:
    given = {"epochs": 2, "batch_size": 16, "validation": 0, "cache_targets": False, **options}
    return Stage(learner="satellite", target="text", pairs=pairs, **given)


def test_a_loss_that_is_no_number_stops_before_the_weights_and_names_its_rows(tmp_path, monkeypatch):
    from geobind.binding import loop

    plain, calls = loop.stage_loss, 0

    def breaking(*args):
        nonlocal calls
        calls += 1
        return plain(*args) * (float("nan") if calls == 6 else 1)

    monkeypatch.setattr(loop, "stage_loss", breaking)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    space, pairs = vector_space("satellite", "text"), vector_pairs("satellite", "text")
    with pytest.raises(
        GeoBindError, match=r"loss is nan at step 6; .*bad_batch\.json lists its 16 rows.*step \d is good"
    ):
        bind(space, stage_of(pairs, epochs=6), out=tmp_path, progress=False)
    assert all(value.isfinite().all() for value in space.tower("satellite").parameters())
    bad = json.loads((tmp_path / "bad_batch.json").read_text())
    keys = set(pairs.keys("satellite"))
    assert bad["step"] == 6
    assert len(bad["rows"]) == 16
    assert all(row["satellite"] in keys for row in bad["rows"])
    monkeypatch.setattr(loop, "stage_loss", plain)
    assert (
        bind(
            vector_space("satellite", "text"), stage_of(pairs, epochs=6), out=tmp_path, progress=False
        ).resumed_at
        == 5
    )


def test_weights_that_are_no_numbers_are_not_kept(tmp_path, monkeypatch):
    from geobind.binding.model import Binder

    def spoil(binder: Binder) -> None:
        with torch.no_grad():
            next(binder.parameters()).fill_(np.nan)

    monkeypatch.setattr(Binder, "clamp", spoil)
    pairs = vector_pairs("satellite", "text")
    with pytest.raises(GeoBindError, match=r"not finite after step|loss is nan"):
        bind(vector_space("satellite", "text"), stage_of(pairs), out=tmp_path, progress=False)
    assert Checkpoints(tmp_path).step is None


def test_another_number_of_processes_is_said(tmp_path):
    space, pairs = vector_space("satellite", "text"), vector_pairs("satellite", "text")
    bind(space, stage_of(pairs), out=tmp_path, progress=False)
    checkpoints = Checkpoints(tmp_path)
    step, state = checkpoints.load()
    checkpoints.save(step, {**state, "processes": 4})
    with pytest.warns(
        GeoBindWarning,
        match="with 1 processes instead of 4: the batches and their order stay, each process takes 16",
    ):
        bind(vector_space("satellite", "text"), stage_of(pairs), out=tmp_path, progress=False)
