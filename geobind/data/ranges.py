"""A column of files that lie inside larger ones: members of tar shards, bytes laid out from Parquet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geobind.media.stored import Stored


class Ranges:
    """Values by (file, offset, size), local or over HTTP: `Stored` files, read when a processor asks.

    files: paths or URLs; lengths: their bytes, by which a file that has changed is noticed. `file` (n,)
    indexes them, `offset` and `size` (n,) are bytes, size -1 where the row lacks the value. `names`: (n,)
    identity of each value, null where it is lacking.
    """

    def __init__(
        self, files: Sequence[str], lengths: Sequence[int], file: NDArray[np.int64],
        offset: NDArray[np.int64], size: NDArray[np.int64], names: pa.Array,
    ) -> None:  # fmt: skip
        self.files, self.lengths = tuple(files), tuple(lengths)
        self.file, self.offset, self.size = file, offset, size
        self.names = names

    def __len__(self) -> int:
        return len(self.size)

    def value(self, row: int) -> Stored | None:
        size = int(self.size[row])
        if size < 0:
            return None
        file, offset = int(self.file[row]), int(self.offset[row])
        return Stored(self.files[file], offset, size, self.lengths[file])

    def take(self, rows: NDArray[np.int64]) -> Ranges:
        names = self.names.take(pa.array(rows))
        return Ranges(self.files, self.lengths, self.file[rows], self.offset[rows], self.size[rows], names)

    def present(self) -> NDArray[np.bool_]:
        return self.size >= 0

    def keys(self) -> pa.Array:
        return self.names
