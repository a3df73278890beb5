"""Images and clips a second a core: geobind's transforms beside a plain Pillow loader, its draft mode and the bare decoder.

    OMP_NUM_THREADS=1 python benchmarks/input.py [--sounds ../shared/sample/audio]

Pictures are windows of NASA's Blue Marble, 800 x 800 pixels, JPEG of quality 90; sounds are the Ogg files of a
folder. One thread, from memory; the ways take turns in every round, medians of CPU time are printed, so that
other programs weigh little. `worker`: what a loader's worker does (`light`); normalisation or the log-mel
are left to the device. `whole`: with that too. Pillow's loaders normalise, as they are used.
The decoder's own rate is simplejpeg's at the scale that geobind decodes each crop at.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from imagery import SIDE, jpegs
from PIL import Image
from rich.console import Console
from transformers import ClapFeatureExtractor

from geobind.console import add_row, table
from geobind.data.pack import packed_picture
from geobind.media.audio import LogMel, load_audio
from geobind.media.images import Augment, ImageTransform
from geobind.towers.clap import AudioProcessor

PICTURES, CLIPS, ROUNDS, SIZE = 48, 24, 7, 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def rates(number: int, ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Items a second of CPU time of each way, medians of alternating rounds."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            began = time.process_time()
            run()
            seconds[way].append(time.process_time() - began)
    return {way: number / statistics.median(times) for way, times in seconds.items()}


def _tensor(picture: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255)
    return ((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).contiguous()


def pillow(jpeg: bytes, region: tuple[int, int, int, int] | None, *, draft: bool) -> torch.Tensor:
    """Open, convert, crop, resize antialiased and bicubic, normalise; `draft` decodes at a power of two."""
    picture = Image.open(io.BytesIO(jpeg))
    top, left, height, width = region or (0, 0, SIDE, SIDE)
    scale = 1
    if draft:
        wanted = max(1, math.ceil(SIDE * SIZE / min(height, width)))
        picture.draft("RGB", (wanted, wanted))
        scale = SIDE // picture.width
    box = (left / scale, top / scale, (left + width) / scale, (top + height) / scale)
    return _tensor(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box))


def bare(jpeg: bytes, region: tuple[int, int, int, int] | None) -> np.ndarray:
    """simplejpeg at the scale that this crop needs: k/8 up to a half, else all."""
    least = SIZE / (min(region[2:]) if region else SIDE)
    side = SIDE * (math.ceil(8 * least) / 8 if least <= 0.5 else 1)
    return simplejpeg.decode_jpeg(jpeg, min_height=side, min_width=side, strict=True)


def images() -> None:
    shown = table(
        f"Pictures of {SIDE} x {SIDE} to {SIZE}, {torch.get_num_threads()} thread(s)", "crops", "way",
        "images/s", "of plain Pillow", "of draft mode", "of the bare decoder", "mean difference", "largest",
        right=("images/s", "of plain Pillow", "of draft mode", "of the bare decoder", "mean difference", "largest"),
    )  # fmt: skip
    files = jpegs(PICTURES)
    packed = [packed_picture(jpeg, 448) for jpeg in files]
    whole = ImageTransform(SIZE, MEAN, STD)
    augmented = ImageTransform(SIZE, MEAN, STD, augment=Augment(flip=False))
    regions = [Augment().region(SIDE, SIDE, np.random.default_rng([0, number])) for number in range(PICTURES)]
    for crops in ("none", "random, 8 to 100 %"):
        transform, chosen = (whole, [None] * PICTURES) if crops == "none" else (augmented, regions)

        def each(one: Callable[..., object], items: list[bytes] = files) -> Callable[[], list[object]]:
            return lambda: [one(jpeg, number) for number, jpeg in enumerate(items)]

        def rng(number: int) -> np.random.Generator:
            return np.random.default_rng([0, number])

        ways: dict[str, Callable[[], object]] = {
            "plain Pillow": each(lambda j, n, c=chosen: pillow(j, c[n], draft=False)),
            "Pillow, draft mode": each(lambda j, n, c=chosen: pillow(j, c[n], draft=True)),
            "simplejpeg, bare": each(lambda j, n, c=chosen: bare(j, c[n])),
            "geobind, worker": each(lambda j, n, t=transform: t.bytes(j, rng(n))),
            "geobind, whole": each(lambda j, n, t=transform: t(j, rng(n))),
            "geobind, worker, packed at 448": each(lambda j, n, t=transform: t.bytes(j, rng(n)), packed),
        }
        found = rates(PICTURES, ways)
        reference = [pillow(jpeg, region, draft=False) for jpeg, region in zip(files, chosen, strict=True)]
        draft = [pillow(jpeg, region, draft=True) for jpeg, region in zip(files, chosen, strict=True)]
        ours = [transform(jpeg, rng(n)) for n, jpeg in enumerate(files)]
        small = [transform(jpeg, rng(n)) for n, jpeg in enumerate(packed)]
        compared = {
            "Pillow, draft mode": draft,
            "geobind, whole": ours,
            "geobind, worker, packed at 448": small,
        }
        for way, rate in found.items():
            ratios = [
                rate / found[other] for other in ("plain Pillow", "Pillow, draft mode", "simplejpeg, bare")
            ]
            differences = ["", ""]
            if way in compared:
                grey = 255 * torch.tensor(STD).view(3, 1, 1)
                apart = torch.stack(
                    [((a - b) * grey).abs() for a, b in zip(compared[way], reference, strict=True)]
                )
                differences = [f"{apart.mean():.2f}", f"{apart.max():.0f}"]
            add_row(shown, crops, way, f"{rate:,.0f}", *(f"{ratio:.2f}" for ratio in ratios), *differences)
    Console(width=130).print(shown)
    print("Differences are in grey levels of 255, to plain Pillow at the same crops.")


def sounds(folder: Path) -> None:
    log_mel = LogMel()
    processor = AudioProcessor("audio", log_mel, 10, "repeat", True)
    extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation="rand_trunc")
    files = [path.read_bytes() for path in sorted(folder.rglob("*.ogg"))]
    files = [files[number] for number in np.linspace(0, len(files) - 1, CLIPS).astype(int)]
    import soundfile

    packed = []
    for file in files:
        out = io.BytesIO()
        soundfile.write(out, load_audio(file, 48_000).clip(-1, 1), 48_000, format="FLAC", subtype="PCM_16")
        packed.append(out.getvalue())

    def theirs(file: bytes) -> torch.Tensor:
        sound = load_audio(file, 48_000)
        return extractor([sound], sampling_rate=48_000, return_tensors="pt")["input_features"]

    found = rates(
        CLIPS,
        {
            "decoded here, transformers' extractor": lambda: [theirs(file) for file in files],
            "geobind, whole": lambda: [processor({"audio": file}) for file in files],
            "geobind, worker (log-mel on the device)": lambda: [
                processor.light({"audio": file}) for file in files
            ],
            "geobind, worker, packed (48 kHz mono FLAC)": lambda: [
                processor.light({"audio": file}) for file in packed
            ],
        },
    )
    rate = next(iter(found.values()))
    shown = table("Sounds to CLAP's input", "way", "clips/s", "ratio", right=("clips/s", "ratio"))
    for way, value in found.items():
        add_row(shown, way, f"{value:,.0f}", f"{value / rate:.2f}")
    Console(width=130).print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sounds", type=Path, help="a folder of .ogg files, such as the sample's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images()
    if options.sounds is not None:
        sounds(options.sounds)


if __name__ == "__main__":
    main()
