"""Stage 1, satellite towards frozen photos, end to end: as the public code does it, through open_clip's loop, and ours.

    python benchmarks/training.py [--open-clip-python ENV/bin/python]

ViT-B/32 on both sides with random weights, tiles and photos of 800 x 800 pixels (JPEG, quality 90, windows of NASA's
Blue Marble), crops of 8 to 100 % of the tile, the same batch, number of workers and precision (float32 on a CPU,
bfloat16 on a GPU) unless a row says otherwise. The ways take turns; medians are printed.

* published: both towers in every step, Pillow, the full loss, AdamW with torch's defaults;
* open_clip: its loop, loss and transforms (training_open_clip.py), both towers in every step; its environment is
  made with `python -m venv ENV && ENV/bin/pip install torch==2.13.0 open_clip_torch`;
* geobind: `geobind.bind`, from the files, and from a pack at 448 pixels. Targets are embedded once, before: the column
  "10 epochs" spreads that over ten.

Compute: the same steps on one batch that is already there. The first steps, and what workers had ready before
them, are not counted. On a machine with a GPU the one command above fills the
rows of the GPU; else they say that they were not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from clock import Clock
from imagery import jpegs
from input import pillow
from rich.console import Console
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from geobind import GeoBind, Pairs, Stage, bind, build_tower
from geobind.binding.loader import StageBatch, StageLoader
from geobind.console import add_row, table
from geobind.data.pack import Packing, pack
from geobind.media.images import Augment

SIZE, PACKED, WINDOWS = 224, 448, 64
ROWS, EPOCHS = 6_100_000, 10  # the paper's stage 1
GOALS = {"compute": 12_000, "end to end": 0.85}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16, from the data sheets
Figures = dict[str, float]


def write_pairs(folder: Path, count: int) -> None:
    """Tiles and photos by number, read from the page cache: so many different windows, the others are links to them."""
    windows = jpegs(2 * WINDOWS)
    for part, offset in (("satellite", 0), ("image", WINDOWS)):
        (folder / part).mkdir(parents=True)
        for number in range(count):
            path = folder / part / f"{number:06}.jpg"
            if number < WINDOWS:
                path.write_bytes(windows[offset + number])
            else:
                os.link(folder / part / f"{number % WINDOWS:06}.jpg", path)


def figures(batch: int, compute: Clock, clock: Clock) -> Figures:
    """Images a second on one batch, and end to end; the share of the latter that waited."""
    return {
        "compute": batch * compute.steps / compute.seconds, "end": batch * clock.steps / clock.seconds,
        "waiting": clock.waited / clock.seconds,
    }  # fmt: skip


# --- the published way --------------------------------------------------------------------------------------


class PillowPairs(torch.utils.data.Dataset[Any]):
    """Plain Pillow for both pictures, as in torchvision's RandomResizedCrop and Resize."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, sorted(os.listdir(folder / "satellite"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        tile, photo = ((self.folder / part / self.names[row]).read_bytes() for part in ("satellite", "image"))
        region = Augment().region(800, 800, np.random.default_rng())
        return pillow(tile, region, draft=False), pillow(photo, None, draft=False)


class Published:
    def __init__(self, folder: Path, batch: int, workers: int, device: str, precision: torch.dtype) -> None:
        self.device, self.batch, self.precision = device, batch, precision
        torch.manual_seed(0)
        self.learner, self.frozen = (
            build_tower("clip", modality="image", dim=512).to(device) for _ in range(2)
        )
        self.frozen.requires_grad_(False).eval()
        self.scale = torch.nn.Parameter(torch.tensor(2.66, device=device))
        self.optimizer = torch.optim.AdamW(
            [*self.learner.parameters(), self.scale], lr=5e-5, betas=(0.9, 0.98)
        )
        self.rows, self.workers = PillowPairs(folder), workers

    def step(self, tiles: torch.Tensor, photos: torch.Tensor) -> float:
        tiles, photos = (part.to(self.device, non_blocking=True) for part in (tiles, photos))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            with torch.no_grad():
                target = F.normalize(self.frozen(pixels=photos).float(), dim=-1)
            vectors = F.normalize(self.learner(pixels=tiles).float(), dim=-1)
        loss = F.cross_entropy(
            self.scale.exp() * vectors @ target.T, torch.arange(len(tiles), device=self.device)
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def train(self, batches: Iterable[Any], warm: int) -> Clock:
        clock = Clock(warm)
        for batch in clock.over(batches):
            self.step(*batch)
        return clock

    def run(self, steps: int, warm: int) -> Figures:
        self.learner.train()
        first = next(iter(torch.utils.data.DataLoader(self.rows, self.batch)))
        compute = self.train(repeat(first, min(steps, 20) + 2), 2)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(self.rows, range(self.batch * (steps + warm))), self.batch, shuffle=True,
            num_workers=self.workers, pin_memory=self.device != "cpu", drop_last=True,
        )  # fmt: skip
        return figures(self.batch, compute, self.train(loader, warm))


# --- ours ---------------------------------------------------------------------------------------------------


def ours(pairs: Pairs, batch: int, steps: int, warm: int, workers: int, **options: Any) -> Figures:
    """`geobind.bind` on these rows, and once more on one batch; `embedding`: targets a second."""

    def run(count: int, warm: int, workers: int, once: bool) -> tuple[Clock, GeoBind]:
        clock = Clock(warm)

        class Clocked(StageLoader):
            def epoch(self, epoch: int, start: int = 0) -> Iterator[StageBatch]:
                batches = super().epoch(epoch, start)
                return clock.over(repeat(next(batches), count) if once else batches)

        space = GeoBind(512)
        torch.manual_seed(0)
        augment = {"scale": [0.08, 1.0], "overhead": False}
        space.add(build_tower("clip", modality="satellite", dim=512, fit="squash", augment=augment))
        torch.manual_seed(1)
        space.add(build_tower("clip", modality="image", dim=512, fit="squash"))
        stage = Stage(
            learner="satellite", target="image", pairs=pairs.subset(np.arange(batch * count)), batch_size=batch,
            epochs=1, loss="infonce", validation=0, lr=5e-5, clip_norm=None, **options,
        )  # fmt: skip
        with patch("geobind.binding.loop.StageLoader", Clocked):
            bind(space, stage, workers=workers, progress=False)
        return clock, space

    clock, space = run(steps + warm, warm, workers, once=False)
    rows, began = pairs.subset(np.arange(batch * steps)), time.monotonic()
    space.embed_rows("image", rows, workers=workers if torch.cuda.is_available() else 0)
    embedding = len(rows) / (time.monotonic() - began)
    compute, _ = run(min(steps, 20) + 2, 2, 0, once=True)
    return figures(batch, compute, clock) | {"embedding": embedding}


# --- the table ----------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[Figures]]:
    device, batch, steps, workers = options.device, options.batch, options.steps, options.workers
    warm = 2 * workers + 2  # what the workers of torch have ready, and the first steps
    write_pairs(folder / "files", batch * (steps + warm))
    began = time.monotonic()
    done = pack(
        Pairs.from_folder(folder / "files"),
        folder / "pack",
        Packing({"satellite": PACKED, "image": SIZE}, {}),
    )
    print(
        f"Packed {done.rows:,} pairs in {time.monotonic() - began:.0f} s: {done.before:,} bytes to {done.after:,}"
    )
    files, packed = Pairs.from_folder(folder / "files"), Pairs.from_folder(folder / "pack")
    own = torch.float32 if device == "cpu" else torch.bfloat16
    published = {"published way": Published(folder / "files", batch, workers, device, own)}
    arms = [("geobind, files", files, "auto"), ("geobind, packed", packed, "auto")]
    if device == "cpu":  # where the published precision is float32, and some processors have bfloat16
        published["published way, bfloat16"] = Published(
            folder / "files", batch, workers, device, torch.bfloat16
        )
        arms.append(("geobind, packed, bfloat16", packed, "bf16"))
    found: dict[str, list[Figures]] = {}
    for turn in range(options.rounds):
        for name, way in published.items():
            found.setdefault(name, []).append(way.run(steps, warm))
        if options.open_clip_python:
            command = [
                options.open_clip_python,
                Path(__file__).with_name("training_open_clip.py"),
                folder / "files",
            ]
            command += [batch, steps, warm, workers, device]
            printed = subprocess.run(
                [str(part) for part in command], check=True, capture_output=True, text=True
            )
            found.setdefault("open_clip's loop", []).append(json.loads(printed.stdout.splitlines()[-1]))
        for name, pairs, precision in arms:
            os.environ["GEOBIND_CACHE"] = str(folder / f"cache-{name}-{turn}")
            found.setdefault(name, []).append(
                ours(pairs, batch, steps, warm, workers, precision=precision, compile=options.compile)
            )
    return found


def flops() -> float:
    """Of one image's step: the forward pass, counted, and twice that for the backward pass."""
    tower = build_tower("clip", modality="satellite", dim=512)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(pixels=torch.zeros(1, 3, SIZE, SIZE))
    return 3.0 * counter.get_total_flops()


def show(found: dict[str, list[Figures]], device: str) -> None:
    names = ("images/s", "ratio", "10 epochs", "compute", "of compute", "waiting", "hours")
    where = torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    shown = table(f"Stage 1 on {where}", "way", *names, right=names)
    rate: dict[str, Figures] = {}
    for name, turns in found.items():
        middle = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        rate[name] = middle
        # Seconds a pair, with the frozen side embedded once for all epochs.
        spread = 1 / middle["end"] + (1 / middle["embedding"] / EPOCHS if "embedding" in middle else 0)
        first = rate["published way"]["end"]
        add_row(
            shown, name, f"{middle['end']:,.1f}", f"{middle['end'] / first:.2f}", f"{1 / spread:,.1f} ({1 / spread / first:.2f})",
            f"{middle['compute']:,.1f}", f"{middle['end'] / middle['compute']:.0%}", f"{middle['waiting']:.0%}",
            f"{ROWS * EPOCHS * spread / 3600:,.0f}",
        )  # fmt: skip
    shown.caption = (
        f"10 epochs: with the frozen side embedded once, over ten epochs; in brackets, to the published way. "
        f"hours: {ROWS:,} pairs x {EPOCHS} epochs, embedding included"
    )
    Console(width=110).print(shown)
    goals = table("Goals on one H100 or H200", "", "goal", "measured")
    if device == "cpu":
        measured = ["not measured: no GPU here"] * 2 + ["not measured"]
    else:
        best = rate["geobind, packed"]
        peak = next((value for name, value in PEAKS.items() if name in where), None)
        share = f"{best['compute'] * flops() / peak:.0%}" if peak else f"unknown for {where}"
        measured = [f"{best['compute']:,.0f}", f"{best['end'] / best['compute']:.0%}", share]
    rows = (
        ("compute, images/s", f"{GOALS['compute']:,}"),
        ("end to end from packed shards, of compute", f"{GOALS['end to end']:.0%}"),
        (f"compute, of the card's peak in bfloat16 ({flops() / 1e9:.1f} GFLOP an image and step)", ""),
    )
    for (what, goal), value in zip(rows, measured, strict=True):
        add_row(goals, what, goal, value)
    Console(width=110).print(goals)


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--open-clip-python", help="Python of an environment with open_clip_torch")
    parser.add_argument("--batch", type=int, default=512 if gpu else 16)
    parser.add_argument("--steps", type=int, default=100 if gpu else 6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--compile", action="store_true", help="geobind with torch.compile (stage: compile)")
    options = parser.parse_args()
    options.device = "cuda" if gpu else "cpu"
    folder = Path(tempfile.mkdtemp(prefix="geobind-training-"))
    try:
        show(measure(options, folder), options.device)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
