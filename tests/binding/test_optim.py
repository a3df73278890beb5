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


def test_the_fused_optimiser_takes_the_steps_of_the_plain_one():
    chosen = stage(weight_decay=0.3, precision="fp32")
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        binder = Binder(vector_space("satellite", "text"), chosen.moving, chosen.links)
        optimizer = optim.optimizer(binder, chosen, lr=0.01)
        assert optimizer.defaults["fused"]
        if not fused:
            plain = {key: optimizer.defaults[key] for key in ("lr", "betas", "eps")}
            optimizer = torch.optim.AdamW(optimizer.param_groups, **plain, fused=False, foreach=False)
            for group in optimizer.param_groups:
                group["fused"] = False
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            for parameter in binder.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        found.append([parameter.detach() for parameter in binder.parameters()])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_float16_keeps_the_optimiser_whose_skipped_steps_show():
    """A fused step that an overflow empties looks like one that was made, and the schedule would go on."""
    binder = Binder(vector_space("satellite", "text"), ["satellite"], stage().links)
    assert not optim.optimizer(binder, stage(precision="fp16"), lr=0.01).defaults["fused"]


def test_a_compiled_stage_learns_the_same_under_the_same_names(monkeypatch):
    """With the compiler's tracing and without its code, which takes a minute to make."""
    plain, compiled = torch.compile, []

    def traced(tower, options):
        compiled.append((tower, options))
        return plain(tower, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", traced)
    reports, spaces = [], []
    for compile in (False, True):
        torch.manual_seed(0)
        spaces.append(vector_space("satellite", "text", dropout=0.3))
        reports.append(
            bind(spaces[-1], stage(compile=compile, micro_batch=40, batch_size=80), progress=False)
        )
    assert compiled == [(spaces[1].tower("satellite"), {"fallback_random": True})]
    assert reports[1].losses == pytest.approx(reports[0].losses, abs=1e-5)
    assert {*spaces[0].tower("satellite").state_dict()} == {*spaces[1].tower("satellite").state_dict()}
