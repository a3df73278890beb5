"""Kill -9 a training run at random moments: does what goes on equal the run that was never stopped, bit for bit?

    python benchmarks/recovery.py --trials 50 --out runs/recovery

A run is `geobind bind` on image files that are made here: two stages, with augmentation, dropout, cached targets and
random negatives in the first, a queue of negatives in the second, validation, and a checkpoint after every step. It
is killed, with its loader workers, while it writes the target cache, waits for the loader, takes a step, writes a checkpoint, or
at any moment; the same command goes on, and is killed again. After five kills it may finish. Then the losses of
all its steps must be those of the undisturbed run to the last digit, and so must the weights of all towers.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from rich.console import Console

from geobind.binding.checkpoint import Checkpoints
from geobind.console import add_row, table
from geobind.space import GeoBind

ROWS, PLACES = 96, 72
MOMENTS = ("cache write", "loader", "step", "checkpoint write", "any moment")
# The command line as it is, but for the pause between two checkpoints.
COMMAND = """
import geobind.binding.loop as loop
from geobind.cli import main
loop.CHECKPOINT_SECONDS = 0.0
main()
"""


def write_data(folder: Path) -> Path:
    """Pictures, their table and a recipe; the recipe's path."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["satellite,image,place"]
    for row in range(ROWS):
        for name in ("satellite", "image"):
            low = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(low).resize((48, 48)).save(folder / f"{name}{row}.jpg")
        lines.append(f"satellite{row}.jpg,image{row}.jpg,{row % PLACES}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    tower = {"tower": "small", "size": 32, "width": 64}
    options = {"learner": "satellite", "target": "image", "pairs": "p", "batch_size": 8, "validation": 0.2}
    recipe = {
        "dim": 64, "towers": {"satellite": tower, "image": tower},
        "pairs": {"p": {"table": str(folder / "pairs.csv")}},
        "stages": [
            {"name": "cached", "epochs": 4, "extra_negatives": 12, "schedule": "cosine_restarts", "restart_steps": 5, **options},
            {"name": "queued", "epochs": 3, "extra_negatives": 12, "cache_targets": False, "micro_batch": 4, **options},
        ],
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


class Run:
    """`geobind bind` of a recipe into a folder, with a cache of its own."""

    def __init__(self, recipe: Path, out: Path) -> None:
        self.recipe, self.out, self.cache = recipe, out, out.with_name(f"{out.name}-cache")

    def start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-c",
            COMMAND,
            "bind",
            str(self.recipe),
            "--out",
            str(self.out),
            "--workers",
            "1",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GEOBIND_CACHE": str(self.cache)}
        return subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def finish(self) -> None:
        process = self.start()
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"{self.out}: {errors.decode()[-2000:]}")

    def stages(self) -> list[Path]:
        return sorted((self.out / "stages").glob("*"))

    def steps(self) -> int:
        """Steps whose checkpoint is written, over both stages."""
        return sum(Checkpoints(stage).step or 0 for stage in self.stages())

    def losses(self) -> dict[str, str]:
        return {stage.name: (stage / "losses.csv").read_text() for stage in self.stages()}

    def weights(self) -> dict[str, str]:
        space = GeoBind.from_pretrained(self.out)
        return {modality: space.fingerprint(modality) for modality in space.modalities}


def arrived(run: Run, moment: str, before: int, rng: random.Random) -> Callable[[], bool]:
    """A question that is true when the run is at a moment, having gone on from step `before`."""
    if moment == "cache write":
        return lambda: any(run.cache.glob("targets/*/vectors"))
    if moment == "loader":  # the file of losses is opened as the first batch is asked for
        known = {
            stage: os.stat(stage / "losses.csv").st_ino
            for stage in run.stages()
            if (stage / "losses.csv").exists()
        }

        def opened() -> bool:
            files = [stage / "losses.csv" for stage in run.stages()]
            return any(f.exists() and os.stat(f).st_ino != known.get(f.parent) for f in files)

        return opened
    more = rng.randrange(1, 12)
    if moment == "checkpoint write":
        return lambda: run.steps() >= before + more and any(run.out.glob("stages/*/step-*.tmp"))
    return lambda: run.steps() >= before + more


def kill(run: Run, moment: str, rng: random.Random) -> bool:
    """Start the run, kill it and its workers at a moment; whether that was before its end."""
    before = run.steps()
    there = arrived(run, moment, before, rng)
    process = run.start()
    try:
        while process.poll() is None and not there():
            time.sleep(0.0005)
        if moment != "checkpoint write":
            time.sleep(rng.uniform(0, 0.05 if moment == "step" else 0.3))
        alive = process.poll() is None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return alive


def trials(folder: Path, count: int, seed: int) -> Iterator[tuple[str, bool, int]]:
    """(moment, whether the run was killed, step of its checkpoint) of each trial. Raises SystemExit where a run differs."""
    recipe = write_data(folder / "data")
    whole = Run(recipe, folder / "whole")
    whole.finish()
    losses, weights = whole.losses(), whole.weights()
    rng = random.Random(seed)
    for chain in range(-(-count // len(MOMENTS))):
        run = Run(recipe, folder / f"killed-{chain}")
        for moment in MOMENTS[: count - chain * len(MOMENTS)]:
            yield moment, kill(run, moment, rng), run.steps()
        run.finish()
        if run.losses() != losses or run.weights() != weights:
            raise SystemExit(f"{run.out} differs from {whole.out}: compare stages/*/losses.csv")
        shutil.rmtree(run.out)
        shutil.rmtree(run.cache)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the runs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tried, killed = Counter[str](), Counter[str]()
    steps: dict[str, list[int]] = {moment: [] for moment in MOMENTS}
    for moment, alive, step in trials(arguments.out, arguments.trials, arguments.seed):
        tried[moment] += 1
        killed[moment] += alive
        steps[moment].append(step)
        print(
            f"{sum(tried.values())}: {moment}, {'killed' if alive else 'was done'} at step {step}", flush=True
        )
    shown = table("Killed runs that went on and equal the undisturbed one, bit for bit", "moment", "trials", "killed", "checkpoint steps", right=("trials", "killed"))  # fmt: skip
    for moment in MOMENTS:
        add_row(
            shown,
            moment,
            str(tried[moment]),
            str(killed[moment]),
            f"{min(steps[moment])} to {max(steps[moment])}",
        )
    Console().print(shown)


if __name__ == "__main__":
    main()
