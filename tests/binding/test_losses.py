"""Losses equal written-out loops in float64, rows of one place included; in blocks they are what they are whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from geobind.binding import losses
from geobind.binding.losses import CONTRASTIVE, TRIPLET, Keys, batch_triplet, info_nce, symmetric, triplet


def written_out(queries, keys, scale, places, positives):
    """InfoNCE as a double loop over lists of floats."""
    q, k, n = queries.tolist(), keys.tolist(), len(places)
    logits = [
        [scale * sum(a * b for a, b in zip(q[i], k[j], strict=True)) for j in range(n)] for i in range(n)
    ]
    total = 0.0
    for i in range(n):
        if positives == "masked":
            counted = [j for j in range(n) if j == i or places[j] != places[i]]
            partners = [i]
        else:
            counted = list(range(n))
            partners = [j for j in range(n) if places[j] == places[i]]
        denominator = math.log(sum(math.exp(logits[i][j]) for j in counted))
        total += sum(denominator - logits[i][j] for j in partners) / len(partners)
    return total / n


@pytest.mark.parametrize("positives", ["joint", "masked"])
@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [0, 0, 1, 0, 2], [5, 5, 7, 7, 7]])
def test_both_losses_equal_a_double_loop(places, positives):
    generator = torch.Generator().manual_seed(0)
    queries, keys = (
        F.normalize(torch.randn(len(places), 6, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    )
    ids = torch.tensor(places)
    forth = written_out(queries, keys, 14.3, places, positives)
    back = written_out(keys, queries, 14.3, places, positives)
    assert info_nce(queries, keys, 14.3, ids, positives).item() == pytest.approx(forth, rel=1e-12)
    assert symmetric(queries, keys, 14.3, ids, positives).item() == pytest.approx(
        (forth + back) / 2, rel=1e-12
    )


def test_with_one_row_a_place_both_ways_are_plain_cross_entropy():
    queries, keys = F.normalize(torch.randn(8, 4), dim=-1), F.normalize(torch.randn(8, 4), dim=-1)
    ids = torch.arange(8)
    expected = F.cross_entropy(10 * queries @ keys.T, torch.arange(8))
    for positives in ("joint", "masked"):
        assert torch.allclose(info_nce(queries, keys, 10, ids, positives), expected)


def test_masked_keys_of_the_own_place_do_not_push():
    """Of three rows, two of one place: the first query's loss does not depend on the second key."""
    queries = F.normalize(torch.randn(3, 4), dim=-1)
    keys = F.normalize(torch.randn(3, 4), dim=-1).requires_grad_()
    ids = torch.tensor([0, 0, 1])
    only_first = torch.cat([queries[:1], torch.zeros(2, 4)])  # a zero query has no gradient to any key
    gradient = torch.autograd.grad(info_nce(only_first, keys, 5.0, ids, "masked"), keys)[0]
    assert torch.equal(gradient[1], torch.zeros(4))
    assert gradient[0].abs().sum() > 0
    assert gradient[2].abs().sum() > 0


# --- triplets ----------------------------------------------------------------------------------------------


def triplets_written_out(queries, keys, margin, places, positives, chosen):
    """Mean over rows, their positives, their negatives; `chosen` picks a row's negatives among the possible."""
    q, k, n = queries.tolist(), keys.tolist(), len(places)
    rows = []
    for i in range(n):
        negatives = chosen(i, [j for j in range(n) if places[j] != places[i]])
        partners = [j for j in range(n) if j == i or (positives == "joint" and places[j] == places[i])]
        if negatives:
            each = [
                sum(max(0.0, math.dist(q[i], k[p]) - math.dist(q[i], k[j]) + margin) for j in negatives)
                for p in partners
            ]
            rows.append(sum(each) / len(partners) / len(negatives))
    return sum(rows) / len(rows) if rows else 0.0


def one_before(places):
    """Of the possible negatives, the first that one meets going back from row i, from the end after row 0."""
    return lambda i, possible: sorted(possible, key=lambda j: (i - j) % len(places))[:1]


@pytest.mark.parametrize("positives", ["joint", "masked"])
@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [0, 0, 1, 0, 2], [5, 5, 7, 7, 7], [1, 1, 1, 1, 1]])
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplet_losses_equal_loops(places, positives, margin):
    generator = torch.Generator().manual_seed(1)
    queries, keys = (
        F.normalize(torch.randn(len(places), 6, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    )
    ids = torch.tensor(places)
    one = triplets_written_out(queries, keys, margin, places, positives, one_before(places))
    assert triplet(queries, keys, margin, ids, positives).item() == pytest.approx(one, rel=1e-9)
    both = [
        triplets_written_out(a, b, margin, places, positives, lambda i, possible: possible)
        for a, b in ((queries, keys), (keys, queries))
    ]
    assert batch_triplet(queries, keys, margin, ids, positives).item() == pytest.approx(
        sum(both) / 2, rel=1e-9
    )


def test_with_one_row_a_place_triplets_are_soundingearths():
    """Its formulas over the distance matrix d: negative one row before; all, its mean over the diagonal too."""
    n, margin = 7, 1.0
    queries, keys = F.normalize(torch.randn(n, 4), dim=-1), F.normalize(torch.randn(n, 4), dim=-1)
    d = torch.cdist(queries, keys)
    ids = torch.arange(n)
    native = F.triplet_margin_loss(queries, keys, keys.roll(1, 0), margin=margin)
    assert triplet(queries, keys, margin, ids).item() == pytest.approx(native.item(), abs=1e-5)
    own = d.diagonal()
    whole = sum((own.unsqueeze(axis) - d + margin).relu().mean() / 2 for axis in (0, 1))
    without_own = (whole - margin / n) * n / (n - 1)
    assert batch_triplet(queries, keys, margin, ids).item() == pytest.approx(without_own.item(), abs=1e-5)


@pytest.mark.parametrize("loss", [triplet, batch_triplet])
def test_equal_vectors_have_a_finite_gradient(loss):
    vectors = F.normalize(torch.ones(4, 3), dim=-1).requires_grad_()
    value = loss(vectors, vectors, 1.0, torch.arange(4))
    assert torch.isfinite(torch.autograd.grad(value, vectors)[0]).all()


# --- blocks ------------------------------------------------------------------------------------------------

PLACES = [[*range(12)], [0, 0, 0, 1, 2, 3, 3, 4, 0, 5, 5, 6], [7] * 12]  # of one row, of several, all one


@pytest.mark.parametrize("positives", ["joint", "masked"])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", [*CONTRASTIVE, "extra negatives", *TRIPLET])
def test_blocks_give_the_loss_and_gradients_of_the_whole_matrix(name, dtype, places, positives, monkeypatch):
    ids = torch.tensor(places)
    beyond = Keys(F.normalize(torch.randn(9, 6, dtype=dtype), dim=-1), torch.arange(9) + 3)
    inputs = [F.normalize(torch.randn(12, 6, dtype=dtype), dim=-1).requires_grad_() for _ in range(2)]
    scale = torch.tensor(14.3, dtype=dtype, requires_grad=True)

    def value_and_gradients() -> list[torch.Tensor]:
        if name in TRIPLET:
            loss = TRIPLET[name](*inputs, 0.5, ids, positives) + 0 * scale
        elif name in CONTRASTIVE:
            loss = CONTRASTIVE[name](*inputs, scale, ids, positives)
        else:
            loss = symmetric(*inputs, scale, ids, positives, beyond)
        return [loss, *torch.autograd.grad(loss, [*inputs, scale])]

    whole = value_and_gradients()
    for entries in (1, 50, 130):  # blocks of 1 row, of a number that does not divide 12, of 10 and 2
        monkeypatch.setattr(losses, "ENTRIES", entries)
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        for got, expected in zip(value_and_gradients(), whole, strict=True):
            assert torch.isfinite(got).all()
            assert torch.allclose(got, expected, atol=tolerance, rtol=tolerance)


def test_no_more_than_a_block_of_the_matrix_is_kept(monkeypatch):
    """Bytes that autograd holds between the passes: of the whole matrix, and of blocks of a row."""

    def kept() -> int:
        queries, keys = (F.normalize(torch.randn(256, 4), dim=-1).requires_grad_() for _ in range(2))
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = symmetric(queries, keys, 10.0, torch.arange(256))
        assert loss.requires_grad
        return sum(storages.values())

    whole = kept()
    monkeypatch.setattr(losses, "ENTRIES", 8 * 256)
    assert whole > 4 * 256 * 256
    assert kept() < whole / 4
