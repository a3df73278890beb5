"""Extra negatives are training rows of other places: from the cache or a queue, the same in any run.

* With as many as there are rows, the loss is the softmax over the whole training set.
* Never a row held out for validation, never a key of the query's own place, never a row of the batch twice.
* A resumed run and a second run see the same ones.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from geobind import GeoBindError, Link, Recipe, Stage, bind
from geobind.binding import loop, negatives
from geobind.binding.losses import Keys, info_nce
from geobind.binding.negatives import ExtraNegatives, Queue
from geobind.data.order import other_rows
from tests.binding.test_loop import equal, state
from tests.spaces import vector_pairs, vector_space


def quick(**options) -> Stage:
    pairs = vector_pairs("satellite", "text")
    return Stage(**{
        "learner": "satellite", "target": "text", "loss": "infonce", "pairs": pairs, "epochs": 2, "batch_size": 16,
        "lr": 1e-2, "validation": 0.2, "extra_negatives": 30, **options,
    })  # fmt: skip


def test_the_loss_with_all_other_rows_is_the_softmax_over_the_whole_set():
    """Over random data with places of several rows: against cross-entropy written out for every query."""
    generator = torch.Generator().manual_seed(0)
    queries = F.normalize(torch.randn(6, 5, generator=generator, dtype=torch.float64), dim=-1)
    keys = F.normalize(torch.randn(20, 5, generator=generator, dtype=torch.float64), dim=-1)
    places = torch.arange(20) // 2 % 8  # rows 0, 1, 16 and 17 are of place 0
    batch = torch.arange(6)
    rest = torch.arange(6, 20)
    extra = Keys(keys[rest], places[rest])
    got = info_nce(queries, keys[batch], 9.0, places[batch], "masked", extra)
    expected = 0.0
    for i in range(6):
        counted = [j for j in range(20) if j == i or places[j] != places[i]]
        logits = 9.0 * keys[counted] @ queries[i]
        expected += (logits.logsumexp(0) - 9.0 * keys[i] @ queries[i]).item() / 6
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_a_key_of_the_own_place_has_no_gradient_even_as_joint_positive():
    vectors = F.normalize(torch.randn(2, 4), dim=-1).requires_grad_()
    extra = Keys(vectors, torch.tensor([0, 1]))
    query, key = F.normalize(torch.randn(2, 1, 4), dim=-1)
    gradient = torch.autograd.grad(info_nce(query, key, 5.0, torch.tensor([0]), "joint", extra), vectors)[0]
    assert torch.equal(gradient[0], torch.zeros(4))
    assert gradient[1].abs().sum() > 0


@pytest.mark.parametrize(("n", "count"), [(50, 20), (50, 44), (50, 500), (50_000, 900)])
def test_other_rows_are_distinct_and_not_of_the_batch(n, count):
    batch = np.array([3, 8, 12, 40, 41, 49])
    drawn = other_rows(n, count, seed=1, step=5, batch=batch)
    assert len(drawn) == len(set(drawn.tolist())) == min(count, n - len(batch))
    assert set(batch.tolist()).isdisjoint(drawn.tolist())
    np.testing.assert_array_equal(drawn, other_rows(n, count, seed=1, step=5, batch=batch))
    assert not np.array_equal(drawn, other_rows(n, count, seed=1, step=6, batch=batch))
    assert not np.array_equal(drawn, other_rows(n, count, seed=2, step=5, batch=batch))


def test_every_row_is_drawn_about_equally_often():
    count = np.zeros(40, int)
    for step in range(2000):
        count[other_rows(40, 10, seed=0, step=step, batch=np.array([step % 40]))] += 1
    assert 0.8 < count.min() / 500 < count.max() / 500 < 1.2


@pytest.mark.parametrize("cached", [True, False])
def test_keys_are_training_targets_with_their_places(cached, monkeypatch):
    """Each key a step uses is the embedding of a training row's target, and its place id is that row's."""
    seen: list[Keys] = []
    plain = ExtraNegatives.keys

    def spy(self, *args):
        seen.extend(plain(self, *args))
        return plain(self, *args)

    monkeypatch.setattr(negatives.ExtraNegatives, "keys", spy)
    space = vector_space("satellite", "text")
    stage = quick(cache_targets=cached)
    bind(space, stage, progress=False)
    train, held_out = stage.pairs.holdout(0.2, stage.seed)
    known = {
        vector.tobytes(): place
        for vector, place in zip(space.embed_rows("text", train), train.places, strict=True)
    }
    held = {vector.tobytes() for vector in space.embed_rows("text", held_out)}
    assert {len(keys.vectors) for keys in seen} == {30}
    for keys in seen:
        for vector, place in zip(keys.vectors.numpy(), keys.places.tolist(), strict=True):
            assert vector.tobytes() not in held
            if cached:
                assert known[vector.tobytes()] == place
    used = {place for keys in seen for place in keys.places.tolist()}
    assert used <= set(train.places.tolist())


def test_a_queue_drops_the_oldest():
    queue = Queue(3, 2)
    queue.push(Keys(torch.ones(2, 2), torch.tensor([1, 2])))
    queue.push(Keys(torch.zeros(2, 2), torch.tensor([3, 4])))
    assert queue.held.places.tolist() == [2, 3, 4]
    assert queue.held.vectors[:, 0].tolist() == [1, 0, 0]
    queue.push(Keys(torch.ones(5, 2), torch.arange(5)))
    assert queue.held.places.tolist() == [2, 3, 4]


def test_a_queue_holds_the_last_batches_in_order():
    pairs = vector_pairs("satellite", "text", rows=64)
    stage = quick(pairs=pairs, cache_targets=False, epochs=1, validation=0, extra_negatives=20)
    steps: list[tuple[list[int], list[int]]] = []
    plain = ExtraNegatives.push

    def spy(self, embeddings, places):
        before = self._queues()[0][1].held.places.tolist()
        plain(self, embeddings, places)
        steps.append((before, places.tolist()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExtraNegatives, "push", spy)
        bind(vector_space("satellite", "text"), stage, progress=False)
    assert len(steps[0][0]) == 20  # full before the first step
    held = steps[0][0]
    for before, places in steps:
        assert before == held
        held = (held + places)[-20:]


@pytest.mark.parametrize("cached", [True, False])
def test_resuming_within_an_epoch_is_exact(cached, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    stage = quick(cache_targets=cached)

    def train(out, stop_at=None):
        torch.manual_seed(0)
        space = vector_space("satellite", "text", dropout=0.3)
        calls = []

        def breaking(*args):
            calls.append(1)
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            return plain(*args)

        plain = loop.stage_loss
        with monkeypatch.context() as patch:
            patch.setattr(loop, "stage_loss", breaking)
            return space, bind(space, stage, out=out, progress=False)

    whole, report = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop_at=9)  # in the second epoch
    resumed, again = train(tmp_path / "cut")
    assert again.losses == report.losses
    assert equal(state(whole, "satellite"), state(resumed, "satellite"))


def test_more_negatives_make_the_task_harder():
    """The loss at the start is about ln(number compared): extra keys really are compared with."""
    losses = []
    for count in (0, 64):
        torch.manual_seed(0)
        stage = quick(extra_negatives=count, epochs=1, batch_size=8, lr=1e-9, temperature=1.0, validation=0)
        losses.append(bind(vector_space("satellite", "text"), stage, progress=False).losses[0])
    assert losses[1] - losses[0] == pytest.approx(np.log(72 / 8), abs=0.1)


def test_a_gallery_that_learns_and_a_triplet_loss_have_none():
    with pytest.raises(ValueError, match="frozen gallery, but 'audio' learns"):
        Stage(
            learners=["satellite", "audio"],
            links=[Link("satellite", "audio", extra_negatives=5)],
            pairs=None,
        )
    with pytest.raises(ValueError, match="not to triplet"):
        Link("satellite", "audio", loss="triplet", extra_negatives=5)


def test_a_recipe_takes_it_in_both_forms():
    pairs = vector_pairs("satellite", "text")
    short = Stage(learner="satellite", target="text", pairs=pairs, extra_negatives=9000)
    assert short.links == [Link("satellite", "text", extra_negatives=9000)]
    stage = {"learner": "a", "target": "b", "pairs": "c", "extra_negative": 5}
    with pytest.raises(GeoBindError, match="did you mean 'extra_negatives'"):
        Recipe.parse({"stages": [stage]})
