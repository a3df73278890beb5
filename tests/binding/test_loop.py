"""A stage moves its learners and nothing else; cached, resumed and shared training equals plain training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from geobind import GeoBind, GeoBindError, Link, Pairs, Stage, bind
from geobind.binding.checkpoint import Checkpoints
from tests.spaces import DIM, vector_pairs, vector_space, vector_tower


def quick(**options) -> Stage:
    return Stage(**{"epochs": 3, "batch_size": 16, "lr": 1e-2, "validation": 0.2, **options})


def state(space: GeoBind, modality: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in space.tower(modality).state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_only_the_learner_moves_and_recall_rises():
    torch.manual_seed(0)
    space = vector_space("satellite", "text")
    before = {m: state(space, m) for m in space.modalities}
    report = bind(
        space,
        quick(learner="satellite", target="text", pairs=vector_pairs("satellite", "text"), epochs=15),
        progress=False,
    )
    assert equal(before["text"], state(space, "text"))
    assert not equal(before["satellite"], state(space, "satellite"))
    assert report.losses[-1] < report.losses[0]
    assert max(report.recalls) > report.recalls[0] > 0
    assert report.recalls[report.best_epoch] == max(report.recalls)


def test_binding_audio_leaves_the_satellite_fingerprint_and_its_chain():
    space = vector_space("satellite", "text")
    bind(
        space,
        quick(learner="satellite", target="text", pairs=vector_pairs("satellite", "text")),
        progress=False,
    )
    before = space.fingerprint("satellite"), space.chain("satellite")
    bind(
        space,
        quick(learner=vector_tower("audio"), target="satellite", pairs=vector_pairs("satellite", "audio")),
        progress=False,
    )
    assert (space.fingerprint("satellite"), space.chain("satellite")) == before
    assert space.chain("audio") == tuple(sorted([space.fingerprint("satellite"), space.fingerprint("text")]))
    assert space.comparable("audio", "text")
    assert space.trained("audio", "satellite")
    assert not space.trained("audio", "text")


def test_cached_targets_give_the_losses_of_uncached_ones():
    losses = []
    for cached in (True, False):
        torch.manual_seed(0)
        space = vector_space("satellite", "text", dropout=0.2)
        stage = quick(
            learner="satellite", target="text", pairs=vector_pairs("satellite", "text"), cache_targets=cached
        )
        losses.append(bind(space, stage, progress=False).losses)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_three_learners_and_three_links_move_together():
    space = vector_space("satellite", "audio", "image")
    before = {m: state(space, m) for m in space.modalities}
    links = [
        Link("satellite", "audio"),
        Link("satellite", "image", loss="infonce"),
        Link("audio", "image", weight=0.5),
    ]
    stage = quick(
        learners=["satellite", "audio", "image"],
        links=links,
        pairs=vector_pairs("satellite", "audio", "image"),
    )
    report = bind(space, stage, progress=False)
    assert all(not equal(before[m], state(space, m)) for m in before)
    assert set(report.temperatures) == {"satellite-audio", "satellite-image", "audio-image"}
    assert all(space.comparable(a, b) for a in before for b in before)


def test_temperature_stays_when_it_is_not_learned():
    space = vector_space("satellite", "text")
    stage = quick(
        learner="satellite",
        target="text",
        pairs=vector_pairs("satellite", "text"),
        temperature=0.05,
        learn_temperature=False,
    )
    assert bind(space, stage, progress=False).temperatures["satellite-text"] == pytest.approx(0.05)


RUN = """
import sys, torch
from geobind import GeoBind, Stage, bind
from tests.spaces import vector_pairs, vector_space
torch.manual_seed(0)
space = vector_space("satellite", "text", dropout=0.3)
stage = Stage(learner="satellite", target="text", pairs=vector_pairs("satellite", "text"), epochs=40, batch_size=16,
              lr=1e-2, validation=0.2, cache_targets=False, extra_negatives=30)
report = bind(space, stage, out=sys.argv[1], progress=False)
space.save_pretrained(sys.argv[2])
print(report.losses)
"""


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    def start(out: Path, saved: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(out), str(saved)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    assert start(tmp_path / "whole", tmp_path / "a").wait() == 0
    killed = start(tmp_path / "cut", tmp_path / "b")
    while not (tmp_path / "cut" / "checkpoints.json").exists():
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert start(tmp_path / "cut", tmp_path / "b").wait() == 0
    a, b = (GeoBind.from_pretrained(tmp_path / name) for name in "ab")
    assert a.fingerprint("satellite") == b.fingerprint("satellite")
    assert equal(state(a, "satellite"), state(b, "satellite"))


# GeoCLAP's stage: every tower learns, every two are linked, each link has a temperature of its own.
TRIO = ("satellite", "audio", "image")
ALL_LINKS = [
    Link("satellite", "audio", temperature_range=(0.01, 0.36788)),
    Link("satellite", "image"),
    Link("audio", "image", temperature=0.2),
]


@pytest.mark.parametrize(
    ("modalities", "options"),
    [
        (("satellite", "text"), {"learner": "satellite", "target": "text"}),
        (TRIO, {"learners": list(TRIO), "links": ALL_LINKS, "decay": "all"}),
    ],
)
def test_resuming_within_an_epoch_is_exact(modalities, options, tmp_path, monkeypatch):
    """A checkpoint after every step, the run broken off in mid-epoch, by an error in the middle of a step."""
    from geobind.binding import loop

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    stage = quick(pairs=vector_pairs(*modalities), epochs=2, **options)

    def train(out, stop_at=None):
        torch.manual_seed(0)
        space = vector_space(*modalities, dropout=0.3)
        plain = loop.stage_loss

        def breaking(*args):
            breaking.calls += 1
            if breaking.calls == stop_at:
                raise KeyboardInterrupt
            return plain(*args)

        breaking.calls = 0
        monkeypatch.setattr(loop, "stage_loss", breaking)
        try:
            return space, bind(space, stage, out=out, progress=False)
        finally:
            monkeypatch.setattr(loop, "stage_loss", plain)

    whole, report = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop_at=4)
    assert Checkpoints(tmp_path / "cut").load()[0] == 3
    resumed, again = train(tmp_path / "cut")
    assert again.losses == report.losses
    assert again.temperatures == report.temperatures
    assert len(set(report.temperatures.values())) == len(stage.links)
    assert all(equal(state(whole, m), state(resumed, m)) for m in modalities)


def test_a_checkpoint_of_another_stage_is_refused(tmp_path):
    pairs = vector_pairs("satellite", "text")
    bind(
        vector_space("satellite", "text"),
        quick(learner="satellite", target="text", pairs=pairs),
        out=tmp_path,
        progress=False,
    )
    with pytest.raises(GeoBindError, match="another stage"):
        bind(
            vector_space("satellite", "text"),
            quick(learner="satellite", target="text", pairs=pairs, epochs=4),
            out=tmp_path,
            progress=False,
        )


# Each loss and each source of negatives once, and GeoCLAP's three learners with a temperature a link.
SHARED = """
import os, sys, json, pathlib, torch
from geobind import GeoBind, Link, Stage, Tower, bind
from geobind.binding import loop
from geobind.towers.vector import VectorProcessor
from tests.spaces import DIM, WIDTHS, vector_pairs, vector_space
class Spare(Tower):  # a weight that is never used, as ConvNeXt's last norm is not when its map is averaged
    def __init__(self, modality):
        super().__init__(modality, width=DIM, processor=VectorProcessor(modality, WIDTHS[modality]))
        self.net, self.spare = torch.nn.Linear(WIDTHS[modality], DIM), torch.nn.Linear(2, 2)
    def encode(self, vector):
        return self.net(vector)
options = {"epochs": 2, "batch_size": 16, "lr": 1e-2, "validation": 0.2}
two, three = vector_pairs("satellite", "text"), vector_pairs("satellite", "audio", "image")
short = {"learner": "satellite", "target": "text", "pairs": two, **options}
links = [Link("satellite", "audio"), Link("satellite", "image"), Link("audio", "image", temperature=0.2)]
stages = {
    "plain": Stage(**short),
    "cached negatives": Stage(**short, extra_negatives=30),
    "queued negatives": Stage(**short, extra_negatives=30, cache_targets=False),
    "in parts": Stage(**short, micro_batch=3),
    "triplet": Stage(**short, loss="triplet"),
    "batch triplet": Stage(**short, loss="batch_triplet"),
    "three links": Stage(learners=["satellite", "audio", "image"], links=links, pairs=three, **options),
    "divided": Stage(**short, shard=True),
    "divided, three links": Stage(learners=["satellite", "audio", "image"], links=links, pairs=three, shard=True, **options),
    "divided, in parts": Stage(**short, shard=True, micro_batch=3),
    "divided, stopped": Stage(**short, shard=True),
    "spare weights": Stage(**short),
    "spare weights in parts": Stage(**short, micro_batch=3),
}
found = {}
def stop(*arguments):
    stop.calls += 1
    if stop.calls == 9:  # in the second epoch
        raise KeyboardInterrupt
    return stage_loss(*arguments)
def run(name, stage):
    torch.manual_seed(0)
    space = vector_space(*stage.modalities)
    if name.startswith("spare"):
        space = GeoBind(DIM, [Spare("satellite"), space.tower("text")])
    report = bind(space, stage, out=pathlib.Path(sys.argv[1], name), progress=False)
    return [*report.losses, *report.temperatures.values()]
for name, stage in stages.items():
    if name.endswith("stopped"):
        stop.calls, stage_loss, loop.stage_loss, loop.CHECKPOINT_SECONDS = 0, loop.stage_loss, stop, 0
        try:
            run(name, stage)
        except KeyboardInterrupt:
            loop.stage_loss = stage_loss
    found[name] = run(name, stage)
assert found["divided, stopped"] == found["divided"]
pathlib.Path(sys.argv[1], f"found-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))
"""


def test_two_processes_equal_one_on_the_whole_batch(tmp_path):
    def run(*launcher: str, out: str) -> list[dict[str, list[float]]]:
        script = tmp_path / "run.py"
        script.write_text(SHARED)
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, *launcher, str(script), str(tmp_path / out)],
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(path.read_text()) for path in sorted((tmp_path / out).glob("found-*.json"))]

    (alone,) = run(out="one")
    first, second = run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", out="two")
    assert len(alone) == 13
    for name, values in alone.items():
        assert first[name] == pytest.approx(values, abs=1e-4), name
        assert first[name] == pytest.approx(second[name], abs=1e-6), name


# --- bad input ---------------------------------------------------------------------------------------------


def test_rows_of_one_place_have_no_negatives():
    pairs = Pairs.from_columns(
        {"satellite": np.ones((4, 24), np.float32), "text": np.ones((4, 16), np.float32)}, place=["a"] * 4
    )
    with pytest.raises(GeoBindError, match="no row has a negative"):
        bind(
            vector_space("satellite", "text"),
            quick(learner="satellite", target="text", pairs=pairs),
            progress=False,
        )


def test_a_modality_without_tower_or_column_is_named():
    pairs = vector_pairs("satellite", "text")
    with pytest.raises(GeoBindError, match="no tower for 'audio'"):
        bind(
            vector_space("satellite", "text"),
            quick(learner="audio", target="text", pairs=pairs),
            progress=False,
        )
    with pytest.raises(GeoBindError, match="has no 'audio'"):
        bind(
            vector_space("satellite", "text", "audio"),
            quick(learner="audio", target="text", pairs=pairs),
            progress=False,
        )


def test_a_frozen_target_of_another_dimension_is_refused():
    from geobind import build_tower

    with pytest.raises(GeoBindError, match=f"gives 24 numbers, the space has {DIM}"):
        build_tower("vector", modality="satellite", dim=DIM, width=24, head="none")


def test_a_loss_of_nan_stops_with_the_rows():
    space = vector_space("satellite", "text")
    with torch.no_grad():
        space.tower("satellite").head[0].weight.fill_(float("nan"))
    with pytest.raises(GeoBindError, match="the loss is nan at step 1"):
        bind(
            space,
            quick(learner="satellite", target="text", pairs=vector_pairs("satellite", "text"), validation=0),
            progress=False,
        )
