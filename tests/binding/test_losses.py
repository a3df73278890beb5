"""Losses equal a written-out double loop in float64, rows of one place included."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from geobind.binding.losses import info_nce, same_place_matrix, symmetric


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
    same = same_place_matrix(torch.tensor(places))
    forth = written_out(queries, keys, 14.3, places, positives)
    back = written_out(keys, queries, 14.3, places, positives)
    assert info_nce(queries, keys, 14.3, same, positives).item() == pytest.approx(forth, rel=1e-12)
    assert symmetric(queries, keys, 14.3, same, positives).item() == pytest.approx(
        (forth + back) / 2, rel=1e-12
    )


def test_with_one_row_a_place_both_ways_are_plain_cross_entropy():
    queries, keys = F.normalize(torch.randn(8, 4), dim=-1), F.normalize(torch.randn(8, 4), dim=-1)
    same = same_place_matrix(torch.arange(8))
    expected = F.cross_entropy(10 * queries @ keys.T, torch.arange(8))
    for positives in ("joint", "masked"):
        assert torch.allclose(info_nce(queries, keys, 10, same, positives), expected)


def test_masked_keys_of_the_own_place_do_not_push():
    """Of three rows, two of one place: the first query's loss does not depend on the second key."""
    queries = F.normalize(torch.randn(3, 4), dim=-1)
    keys = F.normalize(torch.randn(3, 4), dim=-1).requires_grad_()
    same = same_place_matrix(torch.tensor([0, 0, 1]))
    only_first = torch.cat([queries[:1], torch.zeros(2, 4)])  # a zero query has no gradient to any key
    gradient = torch.autograd.grad(info_nce(only_first, keys, 5.0, same, "masked"), keys)[0]
    assert torch.equal(gradient[1], torch.zeros(4))
    assert gradient[0].abs().sum() > 0
    assert gradient[2].abs().sum() > 0
