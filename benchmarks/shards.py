"""Samples of tar shards a second: geobind by row in random order, webdataset in sequence, loose files at random.

    OMP_NUM_THREADS=1 python benchmarks/shards.py

All read the same two pictures of each sample (40 kB each, not decoded), from the page cache, in one process;
rounds alternate, and the median of each is printed. Making the index once is a row of its own.
"""

from __future__ import annotations

import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset
from rich.console import Console

from geobind import Pairs
from geobind.console import add_row, table
from geobind.data.shards import _index

SHARDS, SAMPLES, BYTES, ROUNDS = 4, 500, 40_000, 5


def write(folder: Path) -> list[str]:
    """The shards, and the same members as loose files beside them."""
    rng = np.random.default_rng(0)
    (folder / "files").mkdir()
    shards = []
    for shard in range(SHARDS):
        shards.append(str(folder / f"{shard}.tar"))
        with tarfile.open(shards[-1], "w") as tar:
            for sample in range(SAMPLES):
                for member in ("overhead.jpg", "groundlevel.jpg"):
                    path = folder / "files" / f"{shard}{sample:05}.{member}"
                    path.write_bytes(rng.bytes(BYTES))
                    tar.add(path, path.name)
    return shards


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = write(folder)
        pairs = Pairs.from_shards(shards)
        files = sorted({path.name.partition(".")[0] for path in (folder / "files").iterdir()})
        order = np.random.default_rng(0).permutation(len(pairs))

        def by_row() -> None:
            for row in order:
                sample = pairs[row]
                assert len(bytes(sample["satellite"])) + len(bytes(sample["image"])) == 2 * BYTES

        def loose() -> None:
            for row in order:
                for member in ("overhead.jpg", "groundlevel.jpg"):
                    assert len((folder / "files" / f"{files[row]}.{member}").read_bytes()) == BYTES

        def in_sequence() -> None:
            for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
                assert len(sample["overhead.jpg"]) + len(sample["groundlevel.jpg"]) == 2 * BYTES

        def indexing() -> None:
            for shard in shards:
                _index(shard)

        ways: dict[str, Callable[[], None]] = {
            "geobind, by row at random": by_row,
            "webdataset, in sequence": in_sequence,
            "loose files at random": loose,
            "geobind, making the index": indexing,
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - began)
    rates = {way: len(order) / statistics.median(times) for way, times in seconds.items()}
    shown = table("Samples of two pictures", "way", "samples/s", "ratio", right=("samples/s", "ratio"))
    for way, rate in rates.items():
        add_row(shown, way, f"{rate:,.0f}", f"{rate / rates['webdataset, in sequence']:.2f}")
    Console().print(shown)


if __name__ == "__main__":
    main()
