"""The SLURM script, run by bash: `srun` and `scontrol` stand-ins start its processes here and note what it asks for.

* It trains as one process does, each rank on its own rows.
* A run stopped by SIGTERM goes back into the queue, one that failed or is done does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geobind import GeoBind
from tests.recipes.small import RECIPES, ROOT
from tests.toy import write_recipe

SCRIPT = RECIPES / "cluster" / "bind.sbatch"

# As srun does: every task gets its numbers, and the highest status is the status.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    tasks+=($!)
done
worst=0
for task in "${tasks[@]}"; do
    wait "$task"
    status=$?
    ((status > worst)) && worst=$status
done
exit $worst
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then echo localhost; else echo "$@" >> "$ASKED"; fi
"""


def submit(folder: Path, geobind: str, *arguments: object, tasks: int = 2) -> tuple[int, str, str]:
    """Status of the script, what it asked `scontrol` for, and its stderr; `geobind` is the command's script."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "geobind": f"#!/bin/bash\n{geobind}\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    asked = folder / "asked"
    asked.touch()
    environment = {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        "ASKED": str(asked), "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost", "SLURM_NTASKS": str(tasks),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", SCRIPT, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, asked.read_text(), done.stdout + done.stderr


def test_two_tasks_train_one_space(tmp_path):
    recipe, out = write_recipe(tmp_path), tmp_path / "out"
    status, asked, printed = submit(
        tmp_path, f'exec "{sys.executable}" -m geobind "$@"', recipe, "--out", out
    )
    assert (status, asked) == (0, ""), printed
    assert printed.count("Space written to") == 1  # by one of the two
    assert GeoBind.from_pretrained(out).chain("satellite")


@pytest.mark.parametrize(("status", "again"), [(0, False), (1, False), (75, True)])
def test_only_a_run_that_was_stopped_goes_back_into_the_queue(tmp_path, status, again):
    found, asked, _ = submit(tmp_path, f'[ "$RANK" = 1 ] && exit {status}; exit 0')
    assert found == status
    assert asked == (f"requeue {os.getpid()}\n" if again else "")


def test_a_run_that_a_signal_ended_goes_back_into_the_queue(tmp_path):
    assert submit(tmp_path, "kill -TERM $$; sleep 9")[:2] == (143, f"requeue {os.getpid()}\n")
