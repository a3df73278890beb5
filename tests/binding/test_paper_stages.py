"""The paper's two stages with its exact architectures, from bare configs: one optimiser step of each.

The frozen side is bit-equal before and after, batch-normalisation statistics included; the learner moves.
"""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from geobind import GeoBind, Pairs, Stage, bind, build_tower

ROWS = 2


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Pairs:
    """Noise as tiles, photos and sounds of a second: files that the real processors read."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    columns: dict[str, list[str]] = {"satellite": [], "image": [], "audio": []}
    for row in range(ROWS):
        for modality in ("satellite", "image"):
            columns[modality].append(f"{modality}_{row}.jpg")
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
                root / f"{modality}_{row}.jpg"
            )
        columns["audio"].append(f"audio_{row}.ogg")
        soundfile.write(root / f"audio_{row}.ogg", 0.1 * rng.standard_normal(16_000), 16_000)
    return Pairs.from_columns(columns, root=root)


def snapshot(space: GeoBind, modality: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in space.tower(modality).state_dict().items()}


def moved(space: GeoBind, modality: str, before: dict[str, torch.Tensor]) -> bool:
    after = space.tower(modality).state_dict()
    assert after.keys() == before.keys()
    return any(not torch.equal(after[key], before[key]) for key in before)


def one_step(space: GeoBind, pairs: Pairs, learner: str, target: str, loss: str) -> None:
    """Stage with the paper's optimiser (section 3.1) over a single batch."""
    stage = Stage(
        learner=learner, target=target, loss=loss, pairs=pairs, epochs=1, batch_size=ROWS, lr=5e-5,
        schedule="cosine_restarts", restart_steps=3000, validation=0,
    )  # fmt: skip
    before = {modality: snapshot(space, modality) for modality in (learner, target)}
    report = bind(space, stage, workers=0, progress=False)
    assert report.step == 1
    assert np.isfinite(report.losses).all()
    assert moved(space, learner, before[learner])
    assert not moved(space, target, before[target])


def test_one_step_of_both_stages(pairs):
    space = GeoBind(
        512, [build_tower("clip", modality=m, dim=512, weights="none") for m in ("satellite", "image")]
    )
    one_step(space, pairs, "satellite", "image", "infonce")
    space.add(build_tower("clap", modality="audio", dim=512, weights="none"))
    statistics = [key for key in snapshot(space, "audio") if key.endswith("running_mean")]
    assert statistics  # CLAP normalises over the batch: frozen, these would give it away
    one_step(space, pairs, "audio", "satellite", "symmetric")
    frozen = snapshot(space, "audio")
    space.add(build_tower("small", modality="image", dim=512, size=32, width=64))
    one_step(space, pairs, "image", "audio", "symmetric")  # the audio tower as the frozen side
    assert not moved(space, "audio", frozen)
