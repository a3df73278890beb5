"""Work over a Ray cluster of two nodes: what one process makes, whichever worker is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from geobind import GeoBindError, MediaError
from geobind.cluster import divided
from geobind.gallery import embedding
from geobind.gallery.store import Gallery
from tests.toy import toy_space

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two nodes of one CPU each, so two workers."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", made.address)
        yield
        ray.shutdown()
        made.shutdown()


def kill_a_worker():
    """kill -9."""
    for process in psutil.Process().children(recursive=True):
        if "".join(process.cmdline()).startswith("ray::_Worker"):
            process.kill()
            return
    raise AssertionError("no worker runs")


def rows_of(gallery):
    columns = ["unique_id", "source", "embedding", "centre_lat"]
    found = [row for batch in gallery.batches(columns) for row in batch.to_pylist()]
    return sorted(found, key=lambda row: row["unique_id"])


@pytest.fixture
def saved(tmp_path):
    toy_space().save_pretrained(tmp_path / "space")
    return tmp_path / "space"


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    made = tmp_path / "tiles"
    made.mkdir()
    for i in range(120):
        letters = "".join(rng.choice(list("abcdefghijklmnop"), 40))
        (made / f"{rng.uniform(-80, 80):.4f}_{i}.5.jpg").write_text(letters if i != 7 else "")
    return made


def test_a_gallery_is_the_same_with_a_worker_killed_half_way(saved, folder, tmp_path, run, monkeypatch):
    monkeypatch.setattr(embedding, "BLOCK", 4)
    alone, over = Gallery(tmp_path / "alone"), Gallery(tmp_path / "over")
    embed = "embed", saved, "satellite", folder, "--batch-size", 2
    assert run(*embed, "--gallery", alone.uri)[0] == 0
    add, calls = Gallery.add, []

    def add_and_kill(self, rows):
        calls.append(1)
        if len(calls) == 15:
            kill_a_worker()
        return add(self, rows)

    monkeypatch.setattr(Gallery, "add", add_and_kill)
    status, out, err = run(*embed, "--gallery", over.uri, "--ray")
    # Ray has said before it that a worker died.
    assert out.endswith(f"119 embeddings of satellite added to {over.uri}, 1 unreadable left out\n")
    assert status == 0
    assert "7.5.jpg is empty" in err
    assert rows_of(over) == rows_of(alone)
    assert len(rows_of(over)) == 119
    assert "119 were there" in run(*embed, "--gallery", over.uri, "--ray")[1]


EMBED = """
import sys
from geobind.cli import main
from geobind.gallery import embedding
from tests import toy

embedding.BLOCK = 4
sys.argv[0] = "geobind"
main()
"""


def test_a_killed_driver_goes_on(saved, folder, tmp_path, run):
    gallery = Gallery(tmp_path / "g")
    embed = "embed", str(saved), "satellite", str(folder), "--gallery", gallery.uri, "--ray"
    with subprocess.Popen([sys.executable, "-c", EMBED, *embed]) as process:
        while not gallery.exists or not len(gallery):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    there = len(gallery)
    assert 0 < there < 119
    assert f"{119 - there} embeddings" in run(*embed)[1]
    assert len(rows_of(gallery)) == len({row["source"] for row in rows_of(gallery)}) == 119


def test_every_piece_has_its_result_though_workers_end(tmp_path):
    def work(piece):
        if piece == 5 and not (tmp_path / "ended").exists():
            (tmp_path / "ended").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return piece**2

    assert dict(divided(work, range(20))) == {piece: piece**2 for piece in range(20)}
    assert not list(divided(work, []))


def test_errors_are_those_of_the_work():
    def work(piece):
        raise MediaError(f"tile {piece} is empty: remove it")

    with pytest.raises(MediaError, match=r"^tile 1 is empty: remove it$"):
        list(divided(work, [1]))

    def die(piece):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(GeoBindError, match="4 Ray workers died one after the other"):
        list(divided(die, [1]))
    with pytest.raises(GeoBindError, match="no node of the Ray cluster has 3 CPUs for a worker"):
        list(divided(work, [1], workers=2))


def test_a_cluster_that_is_not_there(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(GeoBindError, match=r"Ray cluster at 127\.0\.0\.1:9 cannot be reached .*RAY_ADDRESS"):
        list(divided(abs, [1]))
