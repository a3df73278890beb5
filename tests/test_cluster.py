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

import geobind
from geobind import GeoBindError, MediaError
from geobind.cluster import divided
from geobind.gallery import embedding
from geobind.gallery.store import Gallery
from geobind.mapping.cube import Work
from geobind.mapping.geotiff import read_map
from geobind.mapping.run import write_map
from tests.mapping.places import AXES, Spy, colour_space, north_up
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


EMBED = """
import sys
from geobind.cli import main
from geobind.gallery import embedding
from tests import toy

embedding.BLOCK = 4
sys.argv[0] = "geobind"
main()
"""


def test_a_gallery_is_the_same_though_the_driver_and_a_worker_are_killed(
    saved, folder, tmp_path, run, monkeypatch
):
    monkeypatch.setattr(embedding, "BLOCK", 4)
    alone, over = Gallery(tmp_path / "alone"), Gallery(tmp_path / "over")
    embed = "embed", str(saved), "satellite", str(folder), "--batch-size", "2", "--gallery"
    assert run(*embed, alone.uri)[0] == 0
    with subprocess.Popen([sys.executable, "-c", EMBED, *embed, over.uri, "--ray"]) as process:
        while not over.exists or not len(over):
            assert process.poll() is None
        process.kill()
    there = len(over)
    assert 0 < there < 100
    add, calls = Gallery.add, []

    def add_and_kill(self, rows):
        calls.append(1)
        if len(calls) == 3:
            kill_a_worker()
        return add(self, rows)

    monkeypatch.setattr(Gallery, "add", add_and_kill)
    status, out, err = run(*embed, over.uri, "--ray")
    assert status == 0
    # Ray has said before it that a worker died.
    assert out.endswith(
        f"{119 - there} embeddings of satellite added to {over.uri}, {there} were there, 1 unreadable left out\n"
    )
    assert "7.5.jpg is empty" in err
    assert rows_of(over) == rows_of(alone)
    assert len(rows_of(over)) == 119


def test_a_map_equals_the_one_made_whole_though_a_worker_and_the_driver_end(tmp_path, monkeypatch):
    """Bit for bit, and no block is made again that was written."""
    space, out, write, written = colour_space(), tmp_path / "map.tif", Work.write, []
    job = AXES, (2, 48, 3, 49), Spy()  # 100 x 100 cells: 2 x 2 blocks

    def write_and_kill(self, block, values):
        if len(written) == 1:
            kill_a_worker()
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(block)
        write(self, block, values)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "write", write_and_kill)
        with pytest.raises(KeyboardInterrupt):
            write_map(space, *job, out, step=0.01, ray=True)
    assert not out.exists()
    monkeypatch.setattr(Work, "write", lambda *given: [written.append(given[1]), write(*given)])
    write_map(space, *job, out, step=0.01, ray=True)
    assert sorted(written) == list(range(4))
    whole = geobind.map(space, *job, step=0.01)
    assert whole.notnull().all()
    np.testing.assert_array_equal(read_map(out).values, whole.values)


def test_a_map_through_the_command_line(tmp_path, run, monkeypatch):
    """Paths are found from workers, whichever folder the command ran in."""
    monkeypatch.chdir(tmp_path)
    north_up(tmp_path / "scene.tif", "EPSG:32601", 1000, 2960, 10)
    colour_space().save_pretrained(tmp_path / "space")
    np.save(tmp_path / "red.npy", np.eye(3, dtype=np.float32)[0])
    query = "--query", "+vector:red.npy", "--imagery", "scene.tif", "--ground", 40, "--step", 40
    for name, options in (("one", []), ("many", ["--ray"])):
        status, _, err = run("map", "space", *query, "--out", f"{name}.tif", *options)
        assert status == 0, err
    one, many = (read_map(tmp_path / f"{name}.tif") for name in ("one", "many"))
    assert one.notnull().all()
    assert one.size > 500
    np.testing.assert_array_equal(one.values, many.values)


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
