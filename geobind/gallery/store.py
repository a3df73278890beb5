"""Gallery: the lancedb table that holds embeddings, on disk or in an object store."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geobind.errors import GeoBindError, shorten
from geobind.gallery.schema import Origin, schema

TABLE = "gallery"
FORMAT = 1
_IDS_AT_ONCE = 4096


class Gallery:
    """Stored embeddings of many places, comparable with each other, each under a key of its own.

    >>> gallery = Gallery("africa")
    >>> gallery.add(rows(vectors, origin=Origin.of(space, "satellite"), sources=paths, locations=degrees))
    12000
    >>> len(gallery), gallery.dim, gallery.modalities
    (12000, 512, ['satellite'])

    It comes to be with the first rows, whose tower and chain it keeps: rows and queries of any modality are
    welcome whose chain meets that. Rows whose key is there already are left out, so that adding is safe to
    repeat. Every process sees what others have added. `space` is the space that is written into a new
    gallery as the one that its queries are embedded with.

    uri: a folder, or an address that lancedb knows (s3://, gs://, az://), with `storage_options` for it.
    """

    def __init__(
        self, uri: str | Path, *, space: str | None = None, storage_options: dict[str, str] | None = None
    ) -> None:
        self.uri = str(uri) if "://" in str(uri) else str(Path(uri).expanduser().absolute())
        self._space = space
        self._storage_options = storage_options
        self._fixed = False
        self._database = _connect(self.uri, storage_options)
        self._table: Any = None
        self._aside: dict[str, Any] = {}
        self._newest: Gallery | None = None

    def __repr__(self) -> str:
        return f"Gallery({self.uri!r}, {len(self):,} rows)" if self.exists else f"Gallery({self.uri!r}, new)"

    # --- what it holds ---------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether anything was ever added."""
        return self._open() is not None

    @property
    def table(self) -> Any:
        """The lancedb table, at its newest version. Raises GeoBindError where there is none."""
        table = self._open()
        if table is None:
            raise GeoBindError(
                f"{self.uri} holds no gallery: make one with `geobind embed SPACE satellite FOLDER --gallery {self.uri}`"
            )
        if not self._fixed:
            table.checkout_latest()
        return table

    def snapshot(self) -> Gallery:
        """The gallery as it is now, whatever is added later."""
        if self._fixed:
            return self
        version = self.version
        if self._newest is None or self._newest.version != version:
            copy = Gallery(self.uri, storage_options=self._storage_options)
            copy.table.checkout(version)
            copy._fixed = True
            self._newest = copy
        return self._newest

    def __len__(self) -> int:
        return self.table.count_rows()

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return self.table.version

    @property
    def record(self) -> dict[str, Any]:
        """What was written when it was made: format, id, dim, towers (fingerprints that chains must meet), space."""
        metadata = self.table.schema.metadata or {}
        content = json.loads(metadata.get(b"geobind", b"{}"))
        if content.get("format") != FORMAT:
            raise GeoBindError(
                f"{self.uri} is a gallery of format {content.get('format')}, this version reads {FORMAT}: update geobind"
            )
        return content

    @property
    def dim(self) -> int:
        return self.record["dim"]

    @property
    def modalities(self) -> list[str]:
        return sorted(
            {name for batch in self.batches(["modality"]) for name in batch["modality"].unique().to_pylist()}
        )

    def batches(
        self,
        columns: Sequence[str] | None = None,
        *,
        where: str | None = None,
        row_ids: bool = False,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """All rows from `offset` on, or those that an SQL condition keeps, in constant memory. Raises GeoBindError for bad SQL."""
        query = self.table.search().offset(offset)
        if columns is not None:
            query = query.select(list(columns))
        if where is not None:
            query = query.where(where)
        try:
            yield from query.with_row_id(row_ids).to_batches(16_384)
        except (ValueError, RuntimeError) as error:
            if where is None:
                raise
            reason = str(error).replace("\n", " ")
            raise GeoBindError(
                f"the condition {shorten(where)} cannot be used ({shorten(reason, 160)})"
            ) from None

    # --- adding ----------------------------------------------------------------------------------------

    def add(self, rows: pa.Table) -> int:
        """Add rows (`geobind.gallery.schema.rows`) in one transaction, and count those that were new.

        Raises GeoBindError, and adds nothing, where the dimension or a chain of towers does not fit.
        """
        if rows.num_rows == 0:
            return 0
        origins = rows.select(["modality", "tower", "chain"])
        known: set[tuple[Any, ...]] = set()
        table = self._open() or self._create(rows)
        for modality, tower, chain in zip(*(column.to_pylist() for column in origins.columns), strict=True):
            key = (modality, tower, tuple(chain or ()))
            if key not in known:
                known.add(key)
                self.check(Origin(*key), rows.schema.field("embedding").type.list_size)
        first = dict(
            zip(reversed(rows["unique_id"].to_pylist()), reversed(range(rows.num_rows)), strict=True)
        )
        if len(first) < rows.num_rows:
            rows = rows.take(pa.array(sorted(first.values())))
        result = table.merge_insert("unique_id").when_not_matched_insert_all().execute(rows)
        return result.num_inserted_rows

    def check(self, origin: Origin, dim: int) -> None:
        """Raise GeoBindError where vectors of this origin and size cannot be compared with the gallery's."""
        record = self.record
        if dim != record["dim"]:
            raise GeoBindError(
                f"gallery {self.uri} holds vectors of {record['dim']} numbers, these have {dim}: "
                f"use the space that it was made with"
            )
        if not origin.meets(record["towers"]):
            raise GeoBindError(
                f"gallery {self.uri} is of another space: the {origin.modality} tower {origin.tower} and what it was bound "
                f"to ({', '.join(origin.chain) or 'nothing'}) do not meet its towers ({', '.join(record['towers'])}): "
                f"use a space with one of these, or start a new gallery"
            )

    def present(self, ids: Iterable[str]) -> set[str]:
        """Those of the keys that are in the gallery."""
        wanted = list(ids)
        found: set[str] = set()
        if not self.exists:
            return found
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            quoted = ", ".join(
                "'" + key.replace("'", "''") + "'" for key in wanted[start : start + _IDS_AT_ONCE]
            )
            for batch in self.batches(["unique_id"], where=f"unique_id IN ({quoted})"):
                found.update(batch["unique_id"].to_pylist())
        return found

    def take(self, row_ids: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        """Columns of some rows, by lance's row ids, in that order."""
        ids = [int(row) for row in row_ids]
        found = self.table.take_row_ids(ids).select(list(columns)).with_row_id().to_arrow()
        place = {row: i for i, row in enumerate(found["_rowid"].to_pylist())}
        return found.take(pa.array([place[row] for row in ids], pa.int64())).drop_columns(["_rowid"])

    def optimize(self) -> None:
        """Join small fragments, bring indexes up to date and drop old versions: after adding much."""
        self.table.optimize()

    def write_aside(self, name: str, content: pa.Table) -> None:
        """Keep a small table beside the gallery's, in place of an earlier one of that name."""
        self._aside[name] = self._database.create_table(name, data=content, mode="overwrite")

    def read_aside(self, name: str) -> pa.Table | None:
        """What `write_aside` has kept, None where it has nothing."""
        try:
            table = self._aside[name] = self._aside.get(name) or self._database.open_table(name)
        except (ValueError, FileNotFoundError):
            return None
        table.checkout_latest()
        return table.to_arrow()

    # --- within ----------------------------------------------------------------------------------------

    def _open(self) -> Any:
        if self._table is None:
            try:
                self._table = self._database.open_table(TABLE)
            except (ValueError, FileNotFoundError):  # lancedb's word for a table that is not there
                return None
        return self._table

    def _create(self, rows: pa.Table) -> Any:
        dim = rows.schema.field("embedding").type.list_size
        record = {
            "format": FORMAT,
            "id": uuid.uuid4().hex,
            "dim": dim,
            "towers": [rows["tower"][0].as_py(), *rows["chain"][0].as_py()],
            "space": self._space,
        }
        made = schema(dim).with_metadata({"geobind": json.dumps(record)})
        try:
            table = self._database.create_table(TABLE, schema=made)
        except ValueError:  # another process was first
            table = self._database.open_table(TABLE)
        except (OSError, RuntimeError) as error:
            raise GeoBindError(
                f"cannot write gallery {self.uri} ({shorten(str(error))}): choose another place"
            ) from None
        self._table = table
        return table


def _connect(uri: str, storage_options: dict[str, str] | None) -> Any:
    try:
        import lancedb
    except ImportError:
        raise GeoBindError('a gallery needs lancedb: pip install "geobind[gallery]"') from None
    try:
        return lancedb.connect(uri, storage_options=storage_options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = shorten(" ".join(str(error).split()), 160)
        raise GeoBindError(
            f"gallery {uri} cannot be reached ({reason}): check the address, and of an object store the keys and endpoint "
            f"in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT)"
        ) from None
