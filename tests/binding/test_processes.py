"""A stage goes on with another number of processes: the batches and their order stay, no row is read twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geobind import Stage, bind
from geobind.data.order import epoch_batches
from tests.spaces import vector_pairs, vector_space

OPTIONS = {
    "learner": "satellite", "target": "text", "epochs": 3, "batch_size": 16, "lr": 1e-2, "validation": 0, "split": None,
    "cache_targets": False, "extra_negatives": 30,
}  # fmt: skip

# Notes the rows that each process reads at each step, and stops before a step, when the checkpoint before is written.
RUN = """
import json, os, pathlib, sys
import torch
from geobind import Stage, bind
from geobind.binding import loop
from tests.spaces import vector_pairs, vector_space
out, stop = pathlib.Path(sys.argv[1]), int(sys.argv[2])
rank = os.environ.get("RANK", "0")
plain = loop.StageLoader.epoch
def noted(loader, epoch, start=0):
    for step, batch in enumerate(plain(loader, epoch, start), epoch * len(loader) + start):
        if step == stop:
            if torch.distributed.is_initialized():
                torch.distributed.barrier()
            os._exit(0)
        with open(out / f"rows-{rank}.jsonl", "a") as file:
            print(json.dumps([step, batch.rows.tolist()]), file=file)
        yield batch
loop.StageLoader.epoch, loop.CHECKPOINT_SECONDS = noted, 0.0
torch.manual_seed(0)
stage = Stage(pairs=vector_pairs("satellite", "text"), **json.loads(sys.argv[3]))
report = bind(vector_space("satellite", "text"), stage, out=out / "stage", progress=False)
(out / f"losses-{rank}.json").write_text(json.dumps(report.losses))
"""


def run(out: Path, processes: int, stop: int = -1) -> None:
    """Train into `out` with so many processes, until the step `stop`."""
    out.mkdir(exist_ok=True)
    (out.parent / "run.py").write_text(RUN)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), out.parent / "run.py", out, str(stop), json.dumps(OPTIONS)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def rows_read(out: Path) -> dict[int, list[list[int]]]:
    """By step the rows of each process that took part."""
    found: dict[int, list[list[int]]] = {}
    for path in sorted(out.glob("rows-*.jsonl")):
        for line in path.read_text().splitlines():
            step, rows = json.loads(line)
            found.setdefault(step, []).append(rows)
    return found


def test_two_then_one_then_two_processes_are_one(tmp_path):
    changing = tmp_path / "changing"
    places = vector_pairs("satellite", "text").places
    steps = len(epoch_batches(places, batch_size=16, seed=0, epoch=0))
    first, second = steps - 1, steps + 2  # within the first epoch, and within the second
    run(changing, 2, stop=first)
    run(changing, 1, stop=second)
    run(changing, 2)

    read = rows_read(changing)
    assert sorted(read) == list(range(3 * steps))
    for step, shares in read.items():
        assert len(shares) == (1 if first <= step < second else 2)
        rows = [row for share in shares for row in share]
        assert len(set(rows)) == len(rows) == 16
        batch = epoch_batches(places, batch_size=16, seed=0, epoch=step // steps)[step % steps]
        assert np.array_equal(rows, batch)
    torch.manual_seed(0)
    stage = Stage(pairs=vector_pairs("satellite", "text"), **OPTIONS)
    losses = bind(vector_space("satellite", "text"), stage, progress=False).losses
    for rank in range(2):
        assert json.loads((changing / f"losses-{rank}.json").read_text()) == pytest.approx(losses, abs=1e-4)
