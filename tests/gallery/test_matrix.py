"""The matrix is the table's rows, whatever was added, deleted, moved or killed; what is there is not written again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from geobind.gallery import matrix as matrix_module
from geobind.gallery.matrix import ROUNDING, matrix_of
from geobind.gallery.schema import rows
from geobind.gallery.store import Gallery
from geobind.storage import cache_folder
from tests.gallery.conftest import DIM, ORIGIN, N


def equals_the_table(gallery, matrix):
    table = gallery.table.search().with_row_id(True).to_arrow()
    vectors = np.stack(table["embedding"].to_pylist()).astype(np.float16)
    np.testing.assert_array_equal(matrix.take(np.arange(len(matrix))), vectors)
    np.testing.assert_array_equal(matrix.rows, table["_rowid"].to_numpy())
    np.testing.assert_array_equal(matrix.latitude, table["centre_lat"].to_numpy())
    np.testing.assert_array_equal(matrix.longitude, table["centre_lon"].to_numpy())
    query = np.random.default_rng(1).normal(size=DIM).astype(np.float32)
    query /= np.linalg.norm(query)
    exact = vectors.astype(np.float32) @ query
    np.testing.assert_allclose(matrix.cosines(query[None])[0], exact, atol=ROUNDING)
    for chosen in (None, np.arange(0, len(exact), 2), np.arange(3)):
        some = np.arange(len(exact)) if chosen is None else chosen
        best = some[np.argsort(-exact[some], kind="stable")[:7]]
        np.testing.assert_array_equal(matrix.nearest(query, 7, chosen)[0], best)


def segments(gallery):
    """Names of the newest version's segments and when each was written."""
    home = cache_folder() / "galleries" / gallery.record["id"]
    names = json.loads((home / f"{gallery.version}.json").read_text())
    assert {path.name for path in home.iterdir()} == {*names, f"{gallery.version}.json"}
    return {name: (home / name).stat().st_mtime_ns for name in names}


def test_only_what_was_added_is_written(gallery, known):
    equals_the_table(gallery, matrix_of(gallery))
    before = segments(gallery)
    for start, end in ((0, 30), (30, 31), (31, 40)):
        added = known.rows(slice(start, end), unique_ids=[f"more {i}" for i in range(start, end)])
        gallery.add(added)
        equals_the_table(gallery, matrix_of(gallery))
        after = segments(gallery)
        assert before.items() <= after.items()
    assert [int(name.split("-")[1]) for name in after] == [0, N, N + 30]  # 1 and 9 are one segment
    assert len(matrix_of(gallery)) == N + 40


def test_there_are_about_log_n_segments(known, tmp_path):
    gallery = Gallery(tmp_path / "g")
    for i in range(40):
        gallery.add(known.rows(slice(i, i + 1)))
        matrix_of(gallery)
    assert len(segments(gallery)) <= 6
    equals_the_table(gallery, matrix_of(gallery))


def test_deleted_and_moved_rows(gallery, known):
    matrix_of(gallery)
    gallery.add(known.rows(slice(0, 100), unique_ids=[f"more {i}" for i in range(100)]))
    matrix_of(gallery)
    first = min(segments(gallery))
    gallery.table.delete("unique_id = 'more 3'")
    equals_the_table(gallery, matrix_of(gallery))
    assert first in segments(gallery)  # the first segment has lost nothing
    gallery.table.delete("source = 'tile_3'")
    equals_the_table(gallery, matrix_of(gallery))
    gallery.optimize()
    equals_the_table(gallery, matrix_of(gallery))
    gallery.table.delete("true")
    assert len(matrix_of(gallery)) == 0


def test_an_older_version_is_made_again_and_loses_nothing_of_the_newer_one(gallery, known):
    matrix_of(gallery)
    old = gallery.snapshot()
    gallery.add(known.rows(slice(0, 9), unique_ids=[f"more {i}" for i in range(9)]))
    matrix_of(gallery)
    assert len(matrix_of(old)) == N
    equals_the_table(gallery, matrix_of(gallery))


def test_a_segment_that_another_process_has_removed_is_written_again(gallery):
    import shutil

    matrix_of(gallery)
    home = cache_folder() / "galleries" / gallery.record["id"]
    shutil.rmtree(home / next(iter(segments(gallery))))
    matrix_module._read.cache_clear()
    equals_the_table(gallery, matrix_of(gallery))


SEARCHER = """
import sys
from geobind.gallery.matrix import matrix_of
from geobind.gallery.store import Gallery
gallery = Gallery(sys.argv[1])
while True:
    print(len(matrix_of(gallery)), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_searches_that_are_killed_while_rows_are_added(gallery, known):
    """Two processes make matrices of every version they see, and are killed at any moment."""
    processes = [
        subprocess.Popen([sys.executable, "-c", SEARCHER, gallery.uri], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == f"{N}\n"
    for i in range(15):
        part = slice(20 * i, 20 * i + 20)
        gallery.add(rows(known.vectors[part], origin=ORIGIN, sources=[f"{i} {j}" for j in range(20)]))
        time.sleep(0.02)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        counts = [int(line) for line in process.communicate()[0].splitlines()]
        assert process.returncode == -signal.SIGKILL
        assert counts == sorted(counts)
    equals_the_table(gallery, matrix_of(gallery))
    assert len(matrix_of(Gallery(Path(gallery.uri)))) == N + 300
