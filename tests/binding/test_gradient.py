"""A batch in parts has the loss and the gradients of the whole batch, with the dropout of each part drawn once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geobind import GeoBind, Link, Stage, Tower, bind
from geobind.binding.gradient import backward
from geobind.binding.losses import Keys
from geobind.binding.model import Binder, stage_loss
from geobind.binding.processes import make_accelerator
from geobind.towers.vector import VectorProcessor
from tests.binding.test_loop import equal, state
from tests.spaces import DIM, WIDTHS, vector_pairs, vector_space

ROWS = 14
PLACES = torch.tensor([0, 0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, 9])
LINKS = [
    Link("satellite", "audio"),
    Link("audio", "image", loss="infonce", weight=2.0, learn_temperature=False),
    Link("image", "satellite", loss="batch_triplet", margin=0.3),
    Link("satellite", "text", extra_negatives=6),
]


class Restless(Tower):
    """Batch normalisation, dropout, and noise that it draws itself."""

    def __init__(self, modality: str) -> None:
        super().__init__(modality, width=DIM, processor=VectorProcessor(modality, WIDTHS[modality]))
        self.net = nn.Sequential(nn.Linear(WIDTHS[modality], 32), nn.BatchNorm1d(32), nn.Dropout(0.3))
        self.last = nn.Linear(32, DIM)

    def encode(self, vector):
        hidden = self.net(vector)
        return self.last(hidden + 0.1 * torch.randn_like(hidden))


def cut(batch: dict, size: int) -> list[dict]:
    return [
        {
            m: {key: value[start : start + size] for key, value in values.items()}
            for m, values in batch.items()
        }
        for start in range(0, ROWS, size)
    ]


def batch_and_binder() -> tuple[dict, dict, Binder, list]:
    torch.manual_seed(0)
    space = GeoBind(DIM, [Restless("satellite"), Restless("audio"), Restless("image")])
    binder = Binder(space, ["satellite", "audio", "image"], LINKS, norms_learn=False).train()
    batch = {m: {"vector": torch.randn(ROWS, WIDTHS[m])} for m in ("satellite", "audio", "image")}
    unit = nn.functional.normalize(torch.randn(ROWS + 6, DIM), dim=-1)
    extra = [None, None, None, Keys(unit[ROWS:], torch.arange(6) + 8)]
    return batch, {"text": unit[:ROWS]}, binder, extra


@pytest.mark.parametrize("size", [1, 4, 7, 13])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_parts_have_the_loss_and_the_gradients_of_the_whole_batch(size, precision):
    batch, frozen, binder, extra = batch_and_binder()
    accelerator = make_accelerator(precision)
    model = accelerator.prepare_model(binder)

    def loss(moving, scales):
        return stage_loss(moving | frozen, scales, PLACES, LINKS, "joint", extra)

    # Every part embedded with its own seed and a graph, all in one.
    parts, found = cut(batch, size), []
    for number, part in enumerate(parts):
        torch.manual_seed(number)
        found.append(model(part))
    whole = {m: torch.cat([embeddings[m] for embeddings, _ in found]) for m in batch}
    expected = loss(whole, found[0][1])
    gradients = torch.autograd.grad(expected, list(binder.parameters()))

    value = backward(accelerator, model, parts, loss, torch.manual_seed)
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    for parameter, gradient in zip(binder.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5 if precision == "no" else 2e-3)
    assert len(gradients[0]) == len(LINKS)
    assert binder.log_scale.grad[1:3].tolist() == [0, 0]  # a fixed temperature, and a margin


def test_a_scaled_loss_scales_the_gradients_once():
    """Of float16, where the scaler divides by the same number before the step."""
    batch, frozen, binder, extra = batch_and_binder()
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        accelerator = make_accelerator("no")
        accelerator.scaler = scaler
        binder.zero_grad()
        backward(
            accelerator, binder, cut(batch, 5),
            lambda moving, scales: stage_loss(moving | frozen, scales, PLACES, LINKS, "masked", extra),
            torch.manual_seed,
        )  # fmt: skip
        found.append([parameter.grad.clone() for parameter in binder.parameters()])
    for plain, scaled in zip(*found, strict=True):
        assert torch.allclose(1024 * plain, scaled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_a_stage_in_parts_is_the_stage(cached):
    """Rows of several parts, the last one smaller; frozen towers in parts too."""
    found = []
    for size in (None, 5):
        torch.manual_seed(0)
        space = vector_space("satellite", "text")
        stage = Stage(
            learner="satellite", target="text", pairs=vector_pairs("satellite", "text"), epochs=2, batch_size=16,
            lr=1e-2, cache_targets=cached, micro_batch=size, validation=0, extra_negatives=20,
        )  # fmt: skip
        report = bind(space, stage, progress=False)
        found.append((report.losses, state(space, "satellite")))
    (losses, weights), (in_parts, weights_in_parts) = found
    assert in_parts == pytest.approx(losses, abs=1e-5)
    assert not equal(weights, weights_in_parts)  # they did come in parts
    for key, value in weights.items():
        assert torch.allclose(weights_in_parts[key], value, atol=1e-3)


def test_stages_of_one_recipe_may_differ_in_precision():
    for precision in ("bf16", "fp32"):
        stage = Stage(
            learner="satellite",
            target="text",
            pairs=vector_pairs("satellite", "text"),
            epochs=1,
            precision=precision,
        )
        bind(vector_space("satellite", "text"), stage, progress=False)


def test_batch_normalisation_stands_still_where_a_batch_comes_in_parts():
    binder = batch_and_binder()[2]
    norm = binder.learners["audio"].net[1]
    assert not norm.training
    assert binder.learners["audio"].net[2].training
