"""The map in work: cells by block in a file of its own, which a killed process leaves ready to go on."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError
from geobind.mapping.area import Cells
from geobind.storage import read_json, write_text, writing

BLOCK = 64  # cells a side: what a kill can lose, and what is in memory


class Blocks:
    """The cells of an area in blocks, each block's cells row by row: positions 0 to len - 1.

    Nothing is kept of a block but its number of cells, so the size of the area is no matter of memory.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.across = -(-cells.shape[1] // BLOCK)
        self.count = self.across * -(-cells.shape[0] // BLOCK)
        self.ends = np.cumsum([int(cells.inside(*self.window(b)).sum()) for b in range(self.count)])
        self.inside = lru_cache(4)(self._inside)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "inside"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.inside = lru_cache(4)(self._inside)

    def window(self, block: int) -> tuple[int, int, int, int]:
        """(top, height, left, width) of a block in cells."""
        row, column = divmod(block, self.across)
        top, left = row * BLOCK, column * BLOCK
        return top, min(BLOCK, self.cells.shape[0] - top), left, min(BLOCK, self.cells.shape[1] - left)

    def begin(self, block: int) -> int:
        """Position of the block's first cell."""
        return int(self.ends[block - 1]) if block else 0

    def _inside(self, block: int) -> tuple[NDArray[np.intp], NDArray, NDArray]:
        """Of the cells that belong to the area: index within the block, latitude, longitude."""
        window = self.window(block)
        index = np.flatnonzero(self.cells.inside(*window))
        x, y = self.cells.centres(*window)
        latitude, longitude = self.cells.degrees(x[index], y[index])
        return index, latitude, longitude

    def place(self, position: int) -> tuple[float, float]:
        """Latitude and longitude of a cell."""
        block = int(np.searchsorted(self.ends, position, side="right"))
        _, latitude, longitude = self.inside(block)
        cell = position - self.begin(block)
        return float(latitude[cell]), float(longitude[cell])


class Work:
    """Bands of cells in a folder beside the map to be: float32 (bands, height, width) on disk, NaN for no data.

    `done` says which blocks are finished; it is set after the block's values. A folder of another job is
    thrown away. The finished map takes the folder's place.
    """

    def __init__(self, folder: Path, job: dict[str, Any], bands: int, blocks: Blocks) -> None:
        self.folder, self.blocks = folder, blocks
        with writing(folder):
            job = json.loads(json.dumps(job))
            if read_json_or_empty(folder / "job.json") != job:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                self._create(folder / "done", (blocks.count,), np.uint8)
                self._create(folder / "values", (bands, *blocks.cells.shape), np.float32)
                write_text(folder / "job.json", json.dumps(job))
        self.done = np.memmap(folder / "done", np.uint8, "r+", shape=(blocks.count,))
        self.bands = bands

    @staticmethod
    def _create(path: Path, shape: tuple[int, ...], dtype: type) -> None:
        with path.open("wb") as file:  # sparse: the disk fills as blocks are written
            file.truncate(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)

    def write(self, block: int, values: NDArray[np.float32]) -> None:
        """(bands, height * width) of a block, which is finished then."""
        top, height, left, width = self.blocks.window(block)
        values = values.reshape(self.bands, height, width)
        row = self.blocks.cells.shape[1]
        with writing(self.folder), (self.folder / "values").open("r+b") as file:
            for band in range(self.bands):
                for y in range(height):
                    file.seek(4 * ((band * self.blocks.cells.shape[0] + top + y) * row + left))
                    file.write(values[band, y].tobytes())
        self.done[block] = 1

    def rows(self, top: int, height: int) -> NDArray[np.float32]:
        """(bands, height, width) of some rows."""
        rows, row = self.blocks.cells.shape
        found = np.empty((self.bands, height, row), np.float32)
        with (self.folder / "values").open("rb") as file:
            for band in range(self.bands):
                file.seek(4 * (band * rows + top) * row)
                found[band] = np.frombuffer(file.read(4 * height * row), np.float32).reshape(height, row)
        return found

    def remove(self) -> None:
        """Throw the folder away."""
        del self.done
        shutil.rmtree(self.folder, ignore_errors=True)


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none or a broken one."""
    try:
        return read_json(path)
    except GeoBindError:
        return {}
