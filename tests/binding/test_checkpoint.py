"""Checkpoints survive what happens to disks: whole or not there, the last three, told when one is damaged."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from geobind.binding.checkpoint import Checkpoints
from geobind.errors import GeoBindError, GeoBindWarning


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut off":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1  # one bit: torch.load alone would not notice
    path.write_bytes(content)


def state_of(step: int) -> dict:
    return {"step": step, "weights": torch.full((300,), float(step))}


def test_the_last_three_are_kept_and_come_back(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for step in range(1, 6):
        checkpoints.save(step, state_of(step))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-{n:09d}.pt" for n in (3, 4, 5)]
    step, state = Checkpoints(tmp_path).load()
    assert step == 5
    assert torch.equal(state["weights"], state_of(5)["weights"])


@pytest.mark.parametrize("how", ["cut off", "one bit"])
def test_a_damaged_one_is_told_and_the_one_before_it_taken(tmp_path, how):
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30):
        checkpoints.save(step, state_of(step))
    damage(tmp_path / "step-000000030.pt", how)
    again = Checkpoints(tmp_path)
    with pytest.warns(
        GeoBindWarning, match="step-000000030.pt is damaged .*checksum.*: going back to the one before"
    ):
        assert again.load()[0] == 20
    again.save(25, state_of(25))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-{n:09d}.pt" for n in (10, 20, 25)]
    for path in tmp_path.glob("step-*"):
        damage(path, how)
    with (
        pytest.warns(GeoBindWarning, match="damaged"),
        pytest.raises(GeoBindError, match=r"no checkpoint in .* can be read: delete that folder"),
    ):
        Checkpoints(tmp_path).load()


def test_what_a_killed_write_left_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1))
    (tmp_path / "step-000000002.pt.tmp").write_bytes(b"half")
    torch.save(state_of(2), tmp_path / "step-000000002.pt")  # renamed, but not yet listed
    assert Checkpoints(tmp_path).load()[0] == 1
    checkpoints.save(3, state_of(3))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-{n:09d}.pt" for n in (1, 3)]


def test_the_best_learners_go_with_each_checkpoint(tmp_path):
    """A best that is younger than the checkpoint one falls back to is not that checkpoint's best."""
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 8):
        if step in (1, 4, 7):
            checkpoints.save_best(step, {"w": torch.full((2,), float(step))})
        checkpoints.save(step, state_of(step))
    assert sorted(path.name for path in tmp_path.glob("best-*")) == [
        f"best-{n:09d}.safetensors" for n in (4, 7)
    ]
    again = Checkpoints(tmp_path)
    assert again.load_best(7)["w"][0] == 7
    assert again.load_best(6)["w"][0] == 4
    damage(tmp_path / "best-000000007.safetensors", "one bit")
    with pytest.raises(GeoBindError, match=r"best-000000007\.safetensors is damaged"):
        again.load_best(7)


FULL = """
import resource, sys, torch
from pathlib import Path
from geobind.binding.checkpoint import Checkpoints
from geobind.errors import GeoBindError
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, {"weights": torch.zeros(100)})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file may grow beyond, as on a full disk
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    checkpoints.save(2, {"weights": torch.zeros(100_000)})
except GeoBindError as error:
    print(error)
print(Checkpoints(Path(sys.argv[1])).load()[0])
"""


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(tmp_path):
    assert resource.RLIMIT_FSIZE
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    line, step = done.stdout.splitlines()
    assert "cannot write" in line
    assert line.endswith("free space or choose another folder; the checkpoint of step 1 is intact")
    assert step == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints.json", "step-000000001.pt"]
