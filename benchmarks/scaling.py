"""What a stage costs: rows a second and peak memory, by batch, tower, workers, processes and modalities bound.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py

Each line is a process of its own (several where it says so) that trains small towers on random pictures.
Compare lines of one section; the whole takes a few minutes. No GPU is used.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from geobind.console import add_row, table

BASE: dict[str, Any] = {"batch": 64, "micro": None, "width": 128, "workers": 0, "processes": 1, "bound": 0}
ROWS = 512
SECTIONS: dict[str, list[dict[str, Any]]] = {
    "batch size": [{"batch": 32}, {"batch": 128}, {"batch": 512}, {"batch": 512, "micro": 64}],
    "tower width": [{"width": 64}, {"width": 128}, {"width": 256}],
    "workers": [{"workers": 0}, {"workers": 1}, {"workers": 2}],
    "processes": [{"processes": 1}, {"processes": 2}],
    "modalities bound before": [{"bound": 0}, {"bound": 4}, {"bound": 16}],
}


def train(batch: int, micro: int | None, width: int, workers: int, processes: int, bound: int) -> None:
    """One stage of one epoch; prints its figures as JSON on the first process."""
    from geobind import GeoBind, Pairs, Stage, bind, build_tower

    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (ROWS, 64, 64, 3), dtype=np.uint8))
    vectors = rng.normal(size=(ROWS, 64)).astype(np.float32)
    learner = build_tower("small", modality="image", dim=64, width=width)
    names = ["satellite", *(f"bound{number}" for number in range(bound))]
    towers = [build_tower("vector", modality=name, dim=64, width=64, head="none") for name in names]
    space = GeoBind(64, [learner, *towers])
    pairs = Pairs.from_columns({"image": pictures, "satellite": vectors}, place=np.arange(ROWS))
    stage = Stage(
        learner="image", target="satellite", pairs=pairs, epochs=1, batch_size=batch, micro_batch=micro, validation=0
    )  # fmt: skip
    report = bind(space, stage, workers=workers, progress=False)
    if os.environ.get("RANK", "0") == "0":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps({"rate": report.step * batch / report.seconds, "peak": peak}))


def main() -> None:
    for title, changes in SECTIONS.items():
        shown = table(title, "setting", "rows/s", "ratio", "peak MB", right=("rows/s", "ratio", "peak MB"))
        first = None
        for change in changes:
            arm = BASE | change
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={arm['processes']}"]
            command = [sys.executable, *(launcher if arm["processes"] > 1 else []), __file__, json.dumps(arm)]
            with tempfile.TemporaryDirectory() as cache:
                env = {**os.environ, "GEOBIND_CACHE": cache, "PYTHONPATH": str(Path(__file__).parents[1])}
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found["rate"]
            setting = ", ".join(f"{key} {value}" for key, value in change.items())
            add_row(
                shown,
                setting,
                f"{found['rate']:,.0f}",
                f"{found['rate'] / first:.2f}",
                f"{found['peak']:,.0f}",
            )
        Console().print(shown)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(**json.loads(sys.argv[1]))
    else:
        main()
