"""What leaves a worker and what a device makes of it: `finish(collate(light items))` is `collate(whole items)`.

For every processor that leaves something to the device, with and without augmentation; and what leaves is small.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from geobind.media.audio import LogMel
from geobind.media.images import Augment, ImageTransform
from geobind.towers.base import Processor
from geobind.towers.clap import AudioProcessor
from geobind.towers.pixels import PixelProcessor
from geobind.towers.small import SmallAudioProcessor
from geobind.towers.stand_in import StandInProcessor

TRANSFORM = ImageTransform(48, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), augment=Augment(overhead=True, num_ops=2))
LOG_MEL = LogMel(sample_rate=8_000, n_fft=256, hop=80, n_mels=16, fmax=4_000)


def jpeg(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((240, 180), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def sound(seed: int) -> tuple[np.ndarray, int]:
    return np.random.default_rng(seed).normal(0, 0.1, 8_000 + 700 * seed).astype(np.float32), 8_000


PROCESSORS: list[Processor] = [
    PixelProcessor("satellite", TRANSFORM),
    StandInProcessor("satellite", PixelProcessor("image", TRANSFORM)),
    AudioProcessor("audio", LOG_MEL, 1.0, "repeat", True),
    AudioProcessor("audio", LOG_MEL, 1.0, "repeat", True, fusion=True),
    SmallAudioProcessor("audio", LOG_MEL, 1.0, "repeat", True),
]


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: type(p).__name__)
def test_finished_light_items_are_whole_items(processor: Processor, augmented: bool) -> None:
    modality = processor.columns[0]
    rows = [{modality: (sound if modality == "audio" else jpeg)(seed)} for seed in range(4)]

    def drawn(seed: int) -> np.random.Generator | None:
        return np.random.default_rng(seed) if augmented else None

    whole = processor.collate([processor(row, rng=drawn(seed)) for seed, row in enumerate(rows)])
    light = processor.collate([processor.light(row, rng=drawn(seed)) for seed, row in enumerate(rows)])
    finished = processor.finish(light)
    assert finished.keys() == whole.keys()
    assert all(torch.equal(finished[key], whole[key]) for key in whole)


def test_pictures_leave_a_worker_as_bytes() -> None:
    assert PixelProcessor("image", TRANSFORM).light({"image": jpeg(0)})["pixels"].dtype == torch.uint8
