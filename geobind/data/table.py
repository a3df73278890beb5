"""Tables (CSV, Parquet, GeoParquet) through Arrow: columns, positions, times."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geobind.data.columns import Column, RawColumns, Vectors, locations, strings, with_gaps
from geobind.data.labels import check_templates, label_words
from geobind.errors import GeoBindError, GeoBindWarning, MediaError, did_you_mean, shorten

_AXES = (("latitude", "lat"), ("longitude", "lon"))
_KNOWN = ("satellite", "image", "text", "audio", "environment")


def read_columns(
    table: pa.Table,
    where: str,
    *,
    columns: Mapping[str, str | Sequence[str]] | None,
    features: Sequence[str],
    named: Mapping[str, str | None],
    media: Mapping[str, Column] | None = None,
    mend_dates: bool = False,
) -> RawColumns:
    """The columns of a table that `Pairs.from_table` asks for, with lists of strings as one row an item.

    `named` is what the caller calls the columns split, place and group (None: that very name, if there);
    `media` are columns that lie elsewhere, by name. `mend_dates` as in `times`.
    """
    if table.num_rows == 0:
        raise GeoBindError(f"table {where} has no rows")
    media = media or {}
    wanted: dict[str, Any] = dict(columns or {name: name for name in _KNOWN if name in table.column_names})
    wanted |= {modality: modality for modality in features if modality not in wanted}
    location = positions(table, where, wanted.pop("location", None))
    if not wanted and location is None:
        raise GeoBindError(
            f"table {where} has no column of a known modality ({', '.join(_KNOWN)}) but "
            f"{', '.join(table.column_names)}: name them (columns: {{satellite: ...}})"
        )
    values: dict[str, Any] = {}
    for modality, names in wanted.items():
        if isinstance(names, str) and names in media:
            values[modality] = media[names]
        elif isinstance(names, str):
            values[modality] = column(table, names, where, f"modality {modality!r}")
        else:
            values[modality] = stacked(table, names, where, modality)
    if location is not None:
        values["location"] = locations(location, f"table {where}")
    raw = RawColumns({})
    for what, name in {**named, "datetime": None}.items():
        if name is not None or what in table.column_names:
            setattr(raw, what, column(table, name or what, where, f"the {what} column"))
    if raw.datetime is not None:
        raw.datetime = times(raw.datetime, f"table {where}, column 'datetime'", mend=mend_dates)
    lists = {
        key: item for key, item in values.items() if isinstance(item, pa.Array) and _is_string_list(item.type)
    }
    raw.columns = values
    return _explode(raw, lists) if lists else raw


def read_table(path: str | Path) -> pa.Table:
    """A CSV, TSV, Parquet or GeoParquet file. CSV columns stay strings, so that a place `007` stays one.

    Raises GeoBindError for a file that is missing, empty or broken.
    """
    path = Path(path)
    if not path.is_file():
        raise GeoBindError(f"table {path} does not exist: give a .csv, .tsv or .parquet file")
    kinds = [suffix.lower() for suffix in path.suffixes]
    try:
        if kinds and kinds[-1] in (".parquet", ".pq", ".geoparquet"):
            return pq.read_table(path)
        if ".csv" in kinds or ".tsv" in kinds:
            parse = pa.csv.ParseOptions(delimiter="\t" if ".tsv" in kinds else ",", newlines_in_values=True)
            with pa.csv.open_csv(path, parse_options=parse) as reader:
                text = {column: pa.string() for column in reader.schema.names}
            convert = pa.csv.ConvertOptions(column_types=text)
            return pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
    except (OSError, pa.ArrowException) as error:
        raise GeoBindError(f"table {path} cannot be read: {shorten(str(error), 200)}") from None
    raise GeoBindError(f"table {path}: expected .csv, .tsv, .parquet or .geoparquet")


def rows_with(table: pa.Table, where: str, wanted: Mapping[str, str]) -> pa.Table:
    """The rows that have these values, as text, in these columns. Raises GeoBindError where there are none."""
    for name, value in wanted.items():
        values = column(table, name, where, "of which rows are wanted").cast(pa.string())
        table = table.filter(pc.fill_null(pc.equal(values, value), False))
        if not table.num_rows:
            known = values.drop_null().unique().to_pylist()[:100]
            raise GeoBindError(
                f"table {where} has no row with {name} = {value!r}{did_you_mean(value, known)}"
            )
    return table


def with_prompts(
    table: pa.Table, where: str, columns: Mapping[str, Any] | None, prompts: Mapping[str, Sequence[str]]
) -> tuple[pa.Table, dict[str, Any] | None]:
    """The table with a column of prompts for each modality that is to be made of labels, and where that is.

    A label becomes a list, its words in each template; `_explode` makes a row of each.
    """
    named = None if columns is None else dict(columns)
    for modality, templates in prompts.items():
        check_templates(templates)
        name = f"{modality} prompts"
        labels = column(table, (named or {}).get(modality, modality), where, f"labels of {modality!r}")
        texts = [
            label and [template.replace("{}", label_words(label)) for template in templates]
            for label in labels.cast(pa.string()).to_pylist()
        ]
        table = table.append_column(name, pa.array(texts, pa.list_(pa.string())))
        named = {
            **(named or {known: known for known in _KNOWN if known in table.column_names}),
            modality: name,
        }
    return table, named


def column(table: pa.Table, name: str, where: str, purpose: str) -> pa.Array:
    """One column as one array. Raises GeoBindError naming the column, the table and the nearest names."""
    count = table.column_names.count(name)
    if count == 0:
        raise GeoBindError(
            f"table {where} has no column {name!r} ({purpose}){did_you_mean(name, table.column_names)}"
        )
    if count > 1:
        raise GeoBindError(f"table {where} has {count} columns named {name!r}: rename all but one")
    values = table[name].combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # no chunk at all, or more than one array can hold
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values


def numbers(values: pa.Array, where: str) -> pa.Array:
    """Numbers, or strings that hold numbers, as float64, null where empty. Raises GeoBindError by row."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = pc.utf8_trim_whitespace(strings(values))
    try:
        return values.cast(pa.float64())
    except pa.ArrowException:
        for row, value in enumerate(values.to_pylist()):
            try:
                float(0 if value is None else value)
            except (TypeError, ValueError):
                raise GeoBindError(f"{where}, row {row} (from 0): {shorten(value)} is not a number") from None
        raise GeoBindError(f"{where}: a column of type {values.type}, expected numbers") from None


def stacked(table: pa.Table, names: Sequence[str], where: str, modality: str) -> Vectors:
    """Several numeric columns as one vector a row; a row with one of them empty has none."""
    parts = [
        numbers(column(table, name, where, f"part of {modality!r}"), f"table {where}, column {name!r}")
        for name in names
    ]
    present = np.logical_and.reduce([part.is_valid().to_numpy(zero_copy_only=False) for part in parts])
    matrix = np.stack([part.to_numpy(zero_copy_only=False) for part in parts], axis=1)
    return with_gaps(matrix[present].astype(np.float32), present, modality, f"table {where}")


def positions(table: pa.Table, where: str, names: Sequence[str] | None = None) -> NDArray[np.float64] | None:
    """(n, 2) latitude, longitude of the rows, NaN where empty: from columns, else from GeoParquet points."""
    if names is None:
        found = [next((name for name in options if name in table.column_names), None) for options in _AXES]
        if found == [None, None]:
            return _geometry_positions(table, where)
        if None in found:
            has = found[0] or found[1]
            raise GeoBindError(f"table {where} has {has!r} alone: a position needs latitude and longitude")
        names = [name for name in found if name is not None]
    elif isinstance(names, str) or len(names) != 2:
        raise GeoBindError(f"location takes two columns, latitude and longitude, not {names!r}")
    axes = [
        numbers(column(table, name, where, "position"), f"table {where}, column {name!r}").to_numpy(
            zero_copy_only=False
        )
        for name in names
    ]
    return np.stack(axes, axis=1)


def _geometry_positions(table: pa.Table, where: str) -> NDArray[np.float64] | None:
    """Points of the primary geometry column (GeoParquet 1.1: x is longitude, y is latitude)."""
    metadata = (table.schema.metadata or {}).get(b"geo")
    if metadata is None:
        return None
    geo = json.loads(metadata)
    name = geo["primary_column"]
    spec = geo["columns"][name]
    crs = spec.get("crs")
    if crs is not None and not _is_wgs84(crs):
        raise GeoBindError(
            f"table {where}: geometry is in {shorten(crs.get('name', 'an unknown system'))}, expected WGS84: "
            f"reproject it (GeoDataFrame.to_crs(4326)) or add columns latitude and longitude"
        )
    values = column(table, name, where, "geometry")
    if spec.get("encoding") == "point":
        x, y = (numbers(axis, where).to_numpy(zero_copy_only=False) for axis in values.flatten())
        return np.stack([y, x], axis=1)
    points = [(np.nan, np.nan) if wkb is None else _wkb_point(wkb) for wkb in values.to_pylist()]
    if any(point is None for point in points):
        warnings.warn(
            f"table {where}: {name!r} holds geometries that are no points, so its rows have no location; "
            f"add columns latitude and longitude (of the centroid) if a stage needs it",
            GeoBindWarning,
            stacklevel=5,
        )
        return None
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _wkb_point(wkb: bytes) -> tuple[float, float] | None:
    """Latitude, longitude of a point (ISO or extended WKB), NaN if empty; None for another geometry."""
    order = "<" if wkb[:1] == b"\x01" else ">"
    try:
        (kind,) = struct.unpack_from(order + "I", wkb, 1)
        if (
            kind & 0x0FFFFFFF
        ) % 1000 != 1:  # ISO adds 1000 for z and 2000 for m, the extended form sets high bits
            return None
        has_reference_system = bool(kind & 0x20000000)
        x, y = struct.unpack_from(order + "2d", wkb, 9 if has_reference_system else 5)
    except struct.error:
        raise GeoBindError(f"{shorten(wkb, 40)} is no geometry in WKB: write the table again") from None
    return y, x


def _is_wgs84(crs: dict[str, Any]) -> bool:
    identity = crs.get("id")
    if identity is None:
        return str(crs.get("name", "")).startswith("WGS 84") and crs.get("type") == "GeographicCRS"
    return (identity.get("authority"), str(identity.get("code"))) in (
        ("EPSG", "4326"),
        ("EPSG", "4979"),
        ("OGC", "CRS84"),
        ("OGC", "CRS84h"),
    )


def times(values: Any, where: str, *, mend: bool = False) -> NDArray[np.datetime64]:
    """ISO 8601 strings, dates or timestamps as UTC microseconds; NaT where empty; no zone means UTC.

    Raises GeoBindError naming the row that is none of them, or with `mend` takes it as missing and warns how
    many there are: published tables hold 0000-00-00 and days that no month has.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return values.astype("datetime64[us]")
    if isinstance(values, pa.Array) and (pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)):
        return (
            values.cast(pa.timestamp("us"), safe=False)
            .to_numpy(zero_copy_only=False)
            .astype("datetime64[us]")
        )
    items = values.to_pylist() if isinstance(values, pa.Array) else list(values)
    result = np.full(len(items), np.datetime64("NaT"), dtype="datetime64[us]")
    broken: list[Any] = []
    for row, item in enumerate(items):
        try:
            result[row] = np.datetime64(moment(item), "us")
        except MediaError as error:
            if not mend:
                raise GeoBindError(
                    f"{where}, row {row} (from 0): {error}, or an empty cell where it is not known"
                ) from None
            broken.append(item)
    if broken:
        warnings.warn(
            f"{where}: {len(broken):,} of {len(items):,} dates are none, such as {shorten(broken[0])}: they count as "
            f"missing",
            GeoBindWarning,
            stacklevel=5,
        )
    return result


def moment(value: Any) -> datetime | None:
    """An ISO 8601 string, a date or a time as UTC without a zone (none given means UTC); None where empty.

    >>> moment("2021-05-30T14:00:00+02:00")
    datetime.datetime(2021, 5, 30, 12, 0)

    Raises MediaError for anything else.
    """
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()  # NaT becomes None
    if value is None or value == "" or value != value:  # pandas' NaT and NaN
        return None
    try:
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise MediaError(
            f"{shorten(value)} is no time; expected ISO 8601 such as 2021-05-30T12:00:00Z"
        ) from None
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def _explode(raw: RawColumns, lists: Mapping[str, pa.Array]) -> RawColumns:
    """Rows of lists (several captions, sounds, photos of a place) as one row an item.

    Two list columns run side by side: the i-th caption stands beside the i-th sound and the shorter list
    leaves its rest empty.
    """
    n = len(next(iter(lists.values())))
    lengths = {
        name: pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        for name, values in lists.items()
    }
    count = np.maximum(1, np.maximum.reduce(list(lengths.values())))
    source = np.repeat(np.arange(n), count)
    item = np.arange(len(source)) - np.repeat(np.cumsum(count) - count, count)

    def items(name: str) -> pa.Array:
        start = np.cumsum(lengths[name]) - lengths[name]
        within = item < lengths[name][source]
        return lists[name].flatten().take(pa.array(start[source] + item, mask=~within))

    def repeated(values: Any) -> Any:
        if values is None:
            return None
        return values.take(pa.array(source) if isinstance(values, pa.Array) else source)

    return RawColumns(
        {name: items(name) if name in lists else repeated(values) for name, values in raw.columns.items()},
        split=repeated(raw.split),
        place=repeated(raw.place),
        group=repeated(raw.group),
        datetime=repeated(raw.datetime),
        record=source,
    )


def _is_string_list(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
