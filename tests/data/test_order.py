"""The order of training is a function of (seed, epoch), cut into steps and sliced by rank.

* every row at most once an epoch, every row exactly once where batches come out even;
* the ranks' slices side by side are the batches of one process, for any number of processes;
* a run that resumes at step k sees the tail of the uninterrupted order;
* with rows_per_place, each place comes once an epoch, its rows side by side, and all of them in turn;
* a row's randomness and its replacement depend on nothing but (seed, epoch, row).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geobind.data.order import epoch_batches, replacement, row_generator
from geobind.errors import GeoBindError


@st.composite
def orders(draw: st.DrawFn) -> dict:
    n = draw(st.integers(4, 80))
    places = np.array(draw(st.lists(st.integers(0, 30), min_size=n, max_size=n)))
    places[:2] = (0, 1)
    processes = draw(st.sampled_from([1, 2]))
    return {
        "places": places,
        "batch_size": processes * draw(st.integers(2 // processes, 20)),
        "seed": draw(st.integers(0, 5)),
        "epoch": draw(st.integers(0, 5)),
        "processes": processes,
    }


@given(orders())
@settings(max_examples=60, deadline=None)
def test_rows_come_at_most_once_and_only_the_rest_is_left_out(order: dict) -> None:
    batches = epoch_batches(**{**order, "processes": 1})
    rows = batches.reshape(-1)
    n = len(order["places"])
    assert len(np.unique(rows)) == len(rows)
    assert set(rows) <= set(range(n))
    assert len(rows) == (n if n < order["batch_size"] else n // order["batch_size"] * order["batch_size"])


def test_every_row_exactly_once_where_batches_come_out_even() -> None:
    batches = epoch_batches(np.arange(60), batch_size=12, seed=3, epoch=1)
    assert batches.shape == (5, 12)
    assert sorted(batches.reshape(-1)) == list(range(60))
    assert not np.array_equal(batches.reshape(-1), np.arange(60))


def test_what_is_left_out_differs_by_epoch() -> None:
    left_out = [
        frozenset(range(22)) - set(epoch_batches(np.arange(22), batch_size=10, seed=0, epoch=e).reshape(-1))
        for e in range(6)
    ]
    assert len(set(left_out)) > 1


@given(orders(), st.sampled_from([None, 1, 3]))
@settings(max_examples=60, deadline=None)
def test_ranks_side_by_side_are_the_batches_of_one_process(order: dict, count: int | None) -> None:
    order["batch_size"] = max(4, order["batch_size"])
    processes = order.pop("processes")
    if count and len(np.unique(order["places"])) < processes:
        return
    single = epoch_batches(**order, rows_per_place=count)
    parts = [
        epoch_batches(**order, rows_per_place=count, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    together = np.concatenate(parts, axis=1)
    assert len({part.shape for part in parts}) == 1
    # One batch that is not full is cut to a multiple of the processes; full ones are the same.
    np.testing.assert_array_equal(together, single[:, : together.shape[1]])
    assert single.shape[1] - together.shape[1] < processes


@pytest.mark.parametrize("count", [None, 1, 3])
def test_order_depends_on_seed_and_epoch_alone(count: int | None) -> None:
    places = np.arange(100) // 2
    options: dict[str, Any] = {"batch_size": 10, "rows_per_place": count}
    first = epoch_batches(places, seed=1, epoch=4, **options)
    np.testing.assert_array_equal(first, epoch_batches(places, seed=1, epoch=4, **options))
    assert not np.array_equal(first, epoch_batches(places, seed=1, epoch=5, **options))
    assert not np.array_equal(first, epoch_batches(places, seed=2, epoch=4, **options))


def test_resuming_at_a_step_gives_the_tail() -> None:
    uninterrupted = [
        row for e in range(3) for row in epoch_batches(np.arange(50), batch_size=8, seed=0, epoch=e)
    ]
    steps = len(uninterrupted) // 3
    epoch, step = divmod(steps + 2, steps)
    resumed = list(epoch_batches(np.arange(50), batch_size=8, seed=0, epoch=epoch)[step:])
    resumed += list(epoch_batches(np.arange(50), batch_size=8, seed=0, epoch=2))
    np.testing.assert_array_equal(resumed, uninterrupted[steps + 2 :])


@given(orders(), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_rows_of_a_place_come_once_and_side_by_side(order: dict, count: int) -> None:
    places = order["places"]
    order = {**order, "processes": 1, "batch_size": 100}
    (batch,) = epoch_batches(**order, rows_per_place=count)
    assert len(set(batch.tolist())) == len(batch)
    runs = np.flatnonzero(np.diff(places[batch], prepend=-1))  # where another place begins
    assert sorted(places[batch][runs]) == sorted(set(places.tolist()))
    for place in set(places.tolist()):
        assert (places[batch] == place).sum() == min(count, (places == place).sum())


@pytest.mark.parametrize(("count", "epochs"), [(1, 3), (2, 2), (3, 1)])
def test_every_row_of_a_place_is_shown_in_turn(count: int, epochs: int) -> None:
    places = np.array([7, 7, 7, 3, 9, 9])
    seen = [
        set(epoch_batches(places, batch_size=6, seed=0, epoch=e, rows_per_place=count).reshape(-1))
        for e in range(epochs)
    ]
    assert set.union(*seen) == set(range(6))
    assert [len(rows & {0, 1, 2}) for rows in seen] == [count] * epochs


@pytest.mark.parametrize(
    ("places", "options", "message"),
    [
        ([0, 1, 2], {"batch_size": 1}, "at least 2 rows"),
        ([0, 1, 2], {"batch_size": 3, "processes": 2}, "not a multiple of 2 processes"),
        ([5, 5, 5], {"batch_size": 2}, "no negatives"),
        ([0], {"batch_size": 2}, "no negatives"),
        ([0, 1, 2], {"batch_size": 8, "processes": 4}, "cannot be shared among 4"),
        ([0, 0, 0, 1], {"batch_size": 3, "rows_per_place": 3}, "rows_per_place 3 leaves batches of 3 rows"),
    ],
)
def test_batches_without_negatives_are_refused(places: list[int], options: dict, message: str) -> None:
    with pytest.raises(GeoBindError, match=message):
        epoch_batches(np.array(places), seed=0, epoch=0, **options)


def test_row_generators_are_repeatable_and_independent() -> None:
    draws = {
        (seed, epoch, row): row_generator(seed, epoch, row).integers(2**62)
        for seed in range(3)
        for epoch in range(3)
        for row in range(3)
    }
    assert len(set(draws.values())) == len(draws)
    assert row_generator(2, 1, 0).integers(2**62) == draws[2, 1, 0]


def test_replacement_is_another_row_and_the_same_everywhere() -> None:
    for row in range(10):
        tried = [replacement(0, 3, row, 10, attempt) for attempt in range(30)]
        assert tried == [replacement(0, 3, row, 10, attempt) for attempt in range(30)]
        assert row not in tried
        assert set(tried) <= set(range(10))
        assert len(set(tried)) > 5
    with pytest.raises(GeoBindError, match="only row"):
        replacement(0, 0, 0, 1)
