"""`Pairs`: a data set of two or more modalities observed at one place."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, SupportsIndex, Unpack, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from geobind.data.columns import Column, Locations, RawColumns, Strings, as_column, strings
from geobind.data.features import look_up
from geobind.data.folder import read_folder
from geobind.data.layouts import read_layout
from geobind.data.places import common_length, number_places
from geobind.data.shards import read_shards
from geobind.data.source import ShardOptions, Source, TableOptions
from geobind.data.splits import read_splits
from geobind.data.table import read_columns, read_table, rows_with, times, with_prompts
from geobind.errors import GeoBindError, GeoBindWarning, did_you_mean, shorten


class Pairs(Sequence[dict[str, Any]]):
    """Rows of modalities by index, with place, group and split of each.

    A row is a dict of raw values, which the towers' processors read:

    >>> pairs = Pairs.from_table("satellite_text.csv")
    >>> pairs[0]
    {'satellite': PosixPath('satellite/port_1.jpg'), 'text': 'boats in a port'}
    >>> train, held_out = pairs.split("train").holdout(0.1, seed=0)

    Media files come as `pathlib.Path` (opened by nobody here: a missing one shows when it is read), text as
    `str`, features and covariates as float32 (width,), `location` as (latitude, longitude) in degrees
    WGS84, None where a row lacks the modality. Tables with positions or times add `latitude`, `longitude`
    and `datetime` (UTC). Columns are arrays, so millions of rows fit and travel to loader workers.

    Attributes: `name`; `modalities`; `places` int64 (n,), equal where the place is, also in subsets; `times`
    datetime64 (n,) UTC or None.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Column],
        places: NDArray[np.int64],
        splits: pa.Array,
        groups: pa.Array,
        times: NDArray[np.datetime64] | None = None,
    ) -> None:
        self.name = name
        self._columns = dict(columns)
        self.places = places
        self._splits = splits
        self._groups = groups
        self.times = times

    @classmethod
    def from_table(
        cls,
        table: str | Path | pa.Table,
        *,
        name: str | None = None,
        root: str | Path | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        features: Mapping[str, str | Path] | None = None,
        split: str | None = None,
        place: str | None = None,
        group: str | None = None,
        only: Mapping[str, str] | None = None,
        prompts: Mapping[str, Sequence[str]] | None = None,
        verbatim: Sequence[str] = ("text",),
    ) -> Pairs:
        """Read a CSV, Parquet or GeoParquet file, or take an Arrow table; empty cells are missing values.

        * `columns`: modality to its column, or to a list of numeric ones that make a vector; by default the
          columns named satellite, image, text, audio, environment, and those in `features`. Columns
          latitude (lat) and longitude (lon), or GeoParquet points, are the modality `location`.
        * `features`: modality to its feature file (.npz or Parquet with `key` and `vector`).
        * `root`: folder of relative paths (default: the table's); `verbatim`: modalities whose strings are
          content. A list of strings in a cell makes one row each. `only`: columns and the value that
          rows must have there. `prompts`: modality to wordings with {} of its column's labels, a row each.
        * `split`, `group`, `place`: columns (default: those of that name). Without a place column, rows of
          one satellite image are one place, else rows of one position, else each row is its own.

        >>> Pairs.from_table("sites.csv", columns={"satellite": "tile", "environment": ["rain", "heat"]})

        Raises GeoBindError for a column, key or value that is missing or wrong; warns of `leaks`.
        """
        if isinstance(table, pa.Table):
            where, folder = name or "in memory", Path()
        else:
            where, folder = str(table), Path(table).parent
            name, table = name or Path(table).stem, read_table(table)
        table, columns = with_prompts(rows_with(table, where, only or {}), where, columns, prompts or {})
        named = {"split": split, "place": place, "group": group}
        raw = read_columns(table, where, columns=columns, features=list(features or ()), named=named)
        root = folder if root is None else Path(root)
        return cls._build(raw, name or "table", root, features, verbatim, f"table {where}", prompts or ())

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, name: str | None = None, split: str | None = None, **options: Unpack[TableOptions]
    ) -> Pairs:  # fmt: skip
        """Read a folder: of a published layout, of files named by position, or of sub-folders by modality.

        SoundingEarth's folder, folders of tar or Parquet shards and `hf://datasets/owner/name` (Parquet on the
        Hub, of which the columns in use travel) are recognised and take the options of `from_table`. Plain
        folders are either `<lat>_<lon>.jpg` (or `<id>_<lat>_<lon>.jpg`): modalities satellite and location. Or
        `satellite/tile_01.jpg`, `audio/tile_01.ogg`, `text/tile_01.txt` (one caption a line, read now) and
        any other modality. Both may stand under split folders (train, val, test); without them, `split`
        is the split of all rows. Keys are paths relative to the folder; one stem is one place.

        Raises GeoBindError for another layout; warns of files left out, dates that are none and of `leaks`.
        """
        source = read_layout(folder)
        folder = Path(folder)
        name = name or folder.resolve().name
        if source is not None:
            return cls.from_source(source, name, split=split, **options)
        if options:
            raise GeoBindError(f"{min(options)!r} belongs to a table, not to the folder of files {folder}")
        return cls._build(read_folder(folder, split), name, folder, None, ("text",), f"folder {folder}")

    @classmethod
    def from_shards(
        cls, shards: str | Path | Sequence[str | Path], *, name: str | None = None, **options: Unpack[ShardOptions]
    ) -> Pairs:  # fmt: skip
        """Tar shards (WebDataset), local or over HTTP, as rows by index; `options` as in `from_table`.

        A sample is what shares a name up to its first dot; columns are the rest of the names of its members
        (`overhead.jpg`, `txt`) and the fields of its JSON. Members called overhead, groundlevel, satellite,
        image, audio, jpg, flac, txt and the like are found without `columns`.

        >>> Pairs.from_shards("https://host/train-{000..127}.tar", columns={"satellite": "tile.png"})

        shards: a folder, paths, patterns or URLs. Each shard is read through once for its index, which the
        cache keeps. Raises GeoBindError for a broken shard, one member twice, a server without ranges.
        """
        return cls.from_source(read_shards(shards), name or "shards", **options)

    @classmethod
    def from_source(
        cls, source: Source, name: str, *,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        features: Mapping[str, str | Path] | None = None,
        split: str | None = None, place: str | None = None, group: str | None = None,
        verbatim: Sequence[str] = ("text",),
    ) -> Pairs:  # fmt: skip
        """Rows of a layout that a reader has found (`geobind.data.source`); options as in `from_table`."""
        raw = read_columns(
            source.table, source.where, columns=columns or source.columns, features=list(features or ()),
            named={"split": split, "place": place, "group": group}, media=source.media, mend_dates=True,
        )  # fmt: skip
        located = raw.columns.get("location")
        if raw.place is None and isinstance(
            located, Locations
        ):  # embedded tiles have no names to tell them by
            raw.place = located.keys()
        return cls._build(raw, name, source.root, features, verbatim, f"table {source.where}")

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        *,
        name: str = "pairs",
        root: str | Path | None = None,
        features: Mapping[str, str | Path] | None = None,
        split: Sequence[Any] | None = None,
        place: Sequence[Any] | None = None,
        group: Sequence[Any] | None = None,
        datetime: Sequence[Any] | None = None,
        verbatim: Sequence[str] = ("text",),
    ) -> Pairs:
        """Take values in memory: a sequence a modality, None where a row lacks it, all of one length.

        Strings are paths under `root` (content in `verbatim` modalities, keys where `features` has a
        file), (n, width) arrays are vectors, `location` is (n, 2); bytes, PIL images and arrays stay as
        they are. `split`, `place`, `group`, `datetime`: a value a row.

        >>> Pairs.from_columns({"satellite": ["a.jpg", "b.jpg"], "text": ["a port", "a farm"]})

        Raises GeoBindError for lengths that differ, values that are no such thing, a position off the
        globe, a place with two positions; warns of `leaks`.
        """
        raw = RawColumns(dict(columns), split, place, group, datetime)
        return cls._build(
            raw, name, Path("." if root is None else root), features, verbatim, f"pairs {name!r}"
        )

    @classmethod
    def _build(
        cls,
        raw: RawColumns,
        name: str,
        root: Path,
        features: Mapping[str, str | Path] | None,
        verbatim: Sequence[str],
        where: str,
        labels: Collection[str] = (),  # modalities whose values are meant to be on both sides of a split
    ) -> Pairs:
        n = common_length(raw, where)
        columns: dict[str, Column] = {}
        for modality, values in raw.columns.items():
            if features and modality in features:
                columns[modality] = look_up(modality, strings(values), features[modality])
            elif isinstance(values, Column):
                columns[modality] = values
            else:
                content = modality in verbatim
                columns[modality] = as_column(values, modality, root=root, content=content, where=where)
        for modality in features or ():
            if modality not in columns:
                raise GeoBindError(
                    f"{where}: features for {modality!r}, which is no column{did_you_mean(modality, columns)}"
                )
        if (
            any(isinstance(column, Strings) and column.root for column in columns.values())
            and not root.is_dir()
        ):
            raise GeoBindError(f"{where}: the root folder {root} does not exist: paths are relative to it")
        none = pa.nulls(n, pa.large_string())
        pairs = cls(
            name,
            columns,
            number_places(columns, raw, n, where),
            none if raw.split is None else strings(raw.split),
            none if raw.group is None else strings(raw.group),
            None if raw.datetime is None else times(raw.datetime, where),
        )
        pairs._warn_of_leaks(labels)
        return pairs

    # --- rows ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, row: SupportsIndex) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, row: slice) -> Pairs: ...

    def __getitem__(self, row: SupportsIndex | slice) -> dict[str, Any] | Pairs:
        if isinstance(row, slice):
            return self.subset(np.arange(len(self))[row])
        row = range(len(self))[operator.index(row)]
        values = {modality: column.value(row) for modality, column in self._columns.items()}
        if "location" in values:
            values["latitude"], values["longitude"] = values["location"] or (None, None)
        if self.times is not None:
            moment = self.times[row].item()
            values["datetime"] = None if moment is None else moment.replace(tzinfo=UTC)
        return values

    def __repr__(self) -> str:
        return (
            f"Pairs({self.name!r}, {len(self):,} rows, {len(np.unique(self.places)):,} places, "
            f"{', '.join(self.modalities)})"
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """What a row holds, in the order of the columns."""
        return tuple(self._columns)

    @property
    def splits(self) -> NDArray[np.object_]:
        """(n,) name of each row's split, None where it has none."""
        return self._splits.to_numpy(zero_copy_only=False)

    @property
    def groups(self) -> NDArray[np.object_]:
        """(n,) label of each row's group, None where it has none."""
        return self._groups.to_numpy(zero_copy_only=False)

    def keys(self, modality: str) -> NDArray[np.object_]:
        """(n,) identity of each row's value: the path as in the table, the caption, the key of the feature,
        or a digest of what is in memory; None where the row lacks it."""
        return self.column(modality).keys().to_numpy(zero_copy_only=False)

    # --- selections ------------------------------------------------------------------------------------

    def subset(self, rows: ArrayLike) -> Pairs:
        """The rows of these indices, or of a mask (n,), in that order."""
        mask_or_rows = np.asarray(rows)
        if not mask_or_rows.size:
            mask_or_rows = mask_or_rows.astype(np.int64)
        chosen = np.arange(len(self))[mask_or_rows]
        index = pa.array(chosen)
        return Pairs(
            self.name,
            {modality: column.take(chosen) for modality, column in self._columns.items()},
            self.places[chosen],
            self._splits.take(index),
            self._groups.take(index),
            None if self.times is None else self.times[chosen],
        )

    def split(self, name: str) -> Pairs:
        """The rows of one split. Raises GeoBindError for a split that no row has."""
        inside = pc.fill_null(pc.equal(self._splits, name), False).to_numpy(zero_copy_only=False)
        if not inside.any():
            names = self._splits.drop_null().unique().to_pylist()
            if not names:
                raise GeoBindError(
                    f"pairs {self.name!r} have no splits: name the table's column (split: ...)"
                )
            raise GeoBindError(f"pairs {self.name!r} have no split {name!r}{did_you_mean(name, names)}")
        return self.subset(inside)

    def with_splits(self, splits: str | Path | Sequence[str | None]) -> Pairs:
        """The same rows under other splits: (n,) names, or a file of `geobind data split`. Warns of `leaks`."""
        values = read_splits(self, splits) if isinstance(splits, str | Path) else strings(splits)
        pairs = Pairs(self.name, self._columns, self.places, values, self._groups, self.times)
        pairs._warn_of_leaks()
        return pairs

    def having(self, modalities: Sequence[str]) -> Pairs:
        """The rows that lack none of these modalities. Raises GeoBindError where none is left."""
        present = np.logical_and.reduce([self.column(modality).present() for modality in modalities])
        if not present.any():
            raise GeoBindError(f"no row of pairs {self.name!r} has all of {', '.join(modalities)}")
        return self if present.all() else self.subset(present)

    def holdout(self, fraction: float, seed: int) -> tuple[Pairs, Pairs]:
        """Two parts without a common place: the rest, and about this fraction of the places.

        >>> train, validation = pairs.split("train").holdout(0.1, seed=0)

        Raises GeoBindError where a part would be empty.
        """
        places = np.unique(self.places)
        count = max(1, round(fraction * len(places)))
        if not 0 < fraction < 1 or count >= len(places):
            raise GeoBindError(
                f"pairs {self.name!r}: {fraction} of {len(places)} places cannot be held out; "
                f"give a fraction between 0 and 1 that leaves places on both sides"
            )
        drawn = np.random.default_rng(seed).permutation(len(places))[:count]
        held = np.isin(self.places, places[drawn])
        return self.subset(~held), self.subset(held)

    # --- both sides of a split -------------------------------------------------------------------------

    def shared(self, modality: str, one: str, other: str) -> NDArray[np.object_]:
        """The distinct keys of a modality (captions, files) that two splits have in common."""
        keys = self.column(modality).keys()
        first, second = (
            keys.filter(pc.equal(self._splits, name)).drop_null().unique() for name in (one, other)
        )
        return first.filter(pc.is_in(first, value_set=second)).to_numpy(zero_copy_only=False)

    def leaks(self) -> dict[str, dict[str, NDArray[np.object_]]]:
        """Captions and files of the split `train` that other splits have too: {modality: {split: keys}}."""
        others = [name for name in self._splits.drop_null().unique().to_pylist() if name != "train"]
        found: dict[str, dict[str, NDArray[np.object_]]] = {}
        for modality, column in self._columns.items():
            if not isinstance(column, Strings) and getattr(column, "names", None) is None:
                continue
            common = {name: self.shared(modality, "train", name) for name in others}
            if any(map(len, common.values())):
                found[modality] = {name: keys for name, keys in common.items() if len(keys)}
        return found

    def _warn_of_leaks(self, labels: Collection[str] = ()) -> None:
        parts = [
            f"{len(keys):,} {modality} in train and {split} (such as {shorten(keys[0], 50)})"
            for modality, by_split in self.leaks().items()
            for split, keys in by_split.items()
            if modality not in labels
        ]
        if parts:
            warnings.warn(
                f"pairs {self.name!r}: the same values on both sides of a split, which flatters scores: "
                f"{'; '.join(parts)}",
                GeoBindWarning,
                stacklevel=4,
            )

    def column(self, modality: str) -> Column:
        """The values of one modality. Raises GeoBindError for one that the pairs do not have."""
        if modality not in self._columns:
            raise GeoBindError(
                f"pairs {self.name!r} have no modality {modality!r}{did_you_mean(modality, self._columns)}"
            )
        return self._columns[modality]
