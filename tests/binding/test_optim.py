"""What decays, and within which range a temperature stays."""

from __future__ import annotations

import math

import pytest
import torch

from geobind import Link, Stage, bind
from geobind.binding import optim
from geobind.binding.model import Binder
from tests.spaces import vector_pairs, vector_space


def stage(**options) -> Stage:
    pairs = vector_pairs("satellite", "text")
    return Stage(
        **{"learner": "satellite", "target": "text", "pairs": pairs, "epochs": 2, "lr": 1e-2, **options}
    )


@pytest.mark.parametrize(("decay", "falls"), [("matrices", {2}), ("all", {1, 2})])
def test_a_step_without_gradient_shrinks_what_decays(decay, falls):
    """Axes of the parameters that AdamW shrinks where the gradient is zero: matrices 2, biases and temperatures 1."""
    chosen = stage(decay=decay, weight_decay=0.5)
    binder = Binder(vector_space("satellite", "text"), chosen.moving, chosen.links)
    with torch.no_grad():
        for parameter in binder.parameters():
            parameter.fill_(2.0)
            parameter.grad = torch.zeros_like(parameter)
    optim.optimizer(binder, chosen, lr=0.1).step()
    shrunk = {p.ndim for p in binder.parameters() if (p < 2.0).all()}
    assert shrunk == falls
    assert (binder.log_scale < 2.0).all() == (decay == "all")


def test_a_fixed_temperature_stays_where_everything_decays():
    chosen = stage(decay="all", weight_decay=5.0, temperature=0.2, learn_temperature=False)
    report = bind(vector_space("satellite", "text"), chosen, progress=False)
    assert report.temperatures["satellite-text"] == pytest.approx(0.2)


@pytest.mark.parametrize(("start", "push"), [(0.05, -1.0), (0.05, 1.0)])
def test_a_learned_temperature_stays_in_its_range(start, push):
    """A gradient that never stops: the temperature ends at an end of [0.01, 1/e], GeoCLAP's range."""
    low, high = 0.01, math.exp(-1)
    links = [
        Link("satellite", "text", temperature=start, temperature_range=(low, high)),
        Link("satellite", "audio", temperature=start),
    ]
    binder = Binder(vector_space("satellite", "text", "audio"), ["satellite", "audio"], links)
    optimizer = torch.optim.SGD([binder.log_scale], lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        (push * binder({})[1].log().sum()).backward()
        optimizer.step()
        binder.clamp()
    first, second = binder.temperatures().values()
    assert first == pytest.approx(low if push < 0 else high, rel=1e-5)
    assert second == pytest.approx(0.01 if push < 0 else 1.0, rel=1e-5)


def test_a_temperature_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"0\.5 is not within its range 0\.01 to 0\.3"):
        Link("satellite", "text", temperature=0.5, temperature_range=(0.01, 0.3))
