"""Tables become columns: CSV, Parquet and GeoParquet say the same when they hold the same.

* a cell is a path under the root, content (captions), a vector, a position or a time, by its column;
* lists of strings become one row an item, of one place;
* each mistake in a table gives one line that names the table, the column or row, and the remedy.
"""

from __future__ import annotations

import gzip
import json
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, GeoBindWarning

COLUMNS: dict[str, list[Any]] = {
    "key": ["1", "2", "3"],
    "satellite": ["tiles/a.jpg", "tiles/b.jpg", "tiles/a.jpg"],
    "text": ['a "port", with\nboats', "null", ""],
    "lat": [40.5, -33.5, 40.5],
    "lon": [-88.25, 151.0, -88.25],
    "rain": [1.5, 2.5, 3.5],
    "heat": [10, 20, 30],
    "split": ["train", "test", ""],
    "group": ["port", "", "port"],
    "datetime": ["2021-05-30T12:00:00+02:00", "2021-05-30", ""],
}


def write(path: Path, columns: dict[str, list[Any]] = COLUMNS) -> Path:
    table = pa.table(columns)
    if ".csv" in path.suffixes or ".tsv" in path.suffixes:
        delimiter = "\t" if ".tsv" in path.suffixes else ","
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter=delimiter))
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(path.read_bytes()))
    else:
        pq.write_table(table, path)
    return path


def read(table: dict[str, Any], **options: Any) -> Pairs:
    return Pairs.from_table(pa.table(table), **options)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.CSV", "t.csv.gz", "t.parquet", "in memory"])
def test_formats_say_the_same(tmp_path: Path, name: str) -> None:
    choice = {"satellite": "satellite", "text": "text", "environment": ["rain", "heat"]}
    if name == "t.CSV":
        table: Any = write(tmp_path / "t.csv").rename(tmp_path / name)
    else:
        table = pa.table(COLUMNS) if name == "in memory" else write(tmp_path / name)
    pairs = Pairs.from_table(table, columns=choice, root=tmp_path)
    assert pairs.modalities == ("satellite", "text", "environment", "location")
    assert pairs[0]["satellite"] == tmp_path / "tiles" / "a.jpg"
    assert [row["text"] for row in pairs] == ['a "port", with\nboats', "null", None]
    assert pairs[1]["location"] == (-33.5, 151.0)
    assert (pairs[1]["latitude"], pairs[1]["longitude"]) == (-33.5, 151.0)
    np.testing.assert_array_equal([row["environment"] for row in pairs], [[1.5, 10], [2.5, 20], [3.5, 30]])
    assert pairs[2]["environment"].dtype == np.float32
    times = [datetime(2021, 5, 30, 10, tzinfo=UTC), datetime(2021, 5, 30, tzinfo=UTC), None]
    assert [row["datetime"] for row in pairs] == times
    assert pairs.splits.tolist() == ["train", "test", None]
    assert pairs.groups.tolist() == ["port", None, "port"]
    assert pairs.places[0] == pairs.places[2] != pairs.places[1]


def test_known_modalities_are_found_and_others_are_named(tmp_path: Path) -> None:
    pairs = Pairs.from_table(write(tmp_path / "sites.csv"))
    assert pairs.name == "sites"
    assert pairs.modalities == ("satellite", "text", "location")
    assert pairs[0]["satellite"] == tmp_path / "tiles" / "a.jpg"
    pairs = Pairs.from_table(
        tmp_path / "sites.csv", columns={"radar": "satellite", "location": ["lat", "lon"]}
    )
    assert pairs.modalities == ("radar", "location")


def test_ids_stay_strings(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("place,satellite,split\n007,1.0,01\n7,1.00,1\n")
    pairs = Pairs.from_table(path)
    assert pairs.places[0] != pairs.places[1]
    assert pairs.keys("satellite").tolist() == ["1.0", "1.00"]
    assert pairs.splits.tolist() == ["01", "1"]


def test_lists_of_strings_become_rows_of_one_place() -> None:
    pairs = read(
        {
            "text": [["a", "b", "c"], [], None, ["d"]],
            "audio": [["1.ogg", "2.ogg"], ["3.ogg"], None, []],
            "lat": [1.0, 2.0, 3.0, 4.0],
            "lon": [1.0, 2.0, 3.0, 4.0],
            "environment": [[1.0], [2.0], [3.0], [4.0]],
            "split": ["train", "test", "test", "train"],
            "datetime": ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"],
        }
    )
    assert pairs.keys("text").tolist() == ["a", "b", "c", None, None, "d"]
    assert pairs.keys("audio").tolist() == ["1.ogg", "2.ogg", None, "3.ogg", None, None]
    assert [row["latitude"] for row in pairs] == [1, 1, 1, 2, 3, 4]
    assert [row["environment"].item() for row in pairs] == [1, 1, 1, 2, 3, 4]
    assert [row["datetime"].day for row in pairs] == [1, 1, 1, 2, 3, 4]
    assert pairs.splits.tolist() == ["train"] * 3 + ["test"] * 2 + ["train"]
    assert np.unique(pairs.places, return_inverse=True)[1].tolist() == [0, 0, 0, 1, 2, 3]


def test_exploded_rows_without_any_id_keep_the_place_of_their_record() -> None:
    for satellite in ({}, {"satellite": pa.array([None, None], pa.string())}):
        places = read({"text": [["a", "b"], ["c"]], "audio": ["1.ogg", "2.ogg"], **satellite}).places
        assert places[0] == places[1] != places[2]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.int16())]
)
def test_lists_of_numbers_are_vectors(kind: pa.DataType) -> None:
    table = pa.table({"environment": pa.array([[1, 2], None, [3, 4]], kind), "satellite": ["a", "b", "c"]})
    pairs = Pairs.from_table(table)
    np.testing.assert_array_equal(pairs[2]["environment"], np.array([3, 4], np.float32))
    assert pairs[1]["environment"] is None
    assert len(pairs.having(["environment"])) == 2


def test_a_vector_with_an_empty_part_is_missing() -> None:
    pairs = read(
        {"satellite": ["a", "b"], "rain": ["1.5", ""], "heat": [1, 2]},
        columns={"satellite": "satellite", "environment": ["rain", "heat"]},
    )
    assert pairs[1]["environment"] is None
    assert pairs[0]["environment"].tolist() == [1.5, 1]


def test_bytes_in_a_table_stay_bytes() -> None:
    pairs = read({"satellite": [b"one", None, b"one"], "text": ["a", "b", "c"]})
    assert pairs[0]["satellite"] == b"one"
    assert pairs[1]["satellite"] is None
    assert pairs.keys("satellite")[0] == pairs.keys("satellite")[2]
    assert pairs.places[0] == pairs.places[2] != pairs.places[1]


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_timestamps_are_utc(unit: str) -> None:
    moment = datetime(2021, 5, 30, 12, 30, tzinfo=UTC)
    for zone in (None, "UTC", "Asia/Tokyo"):
        times = pa.array([moment, None], pa.timestamp(unit, tz=zone))
        assert [row["datetime"] for row in read({"satellite": ["a", "b"], "datetime": times})] == [
            moment,
            None,
        ]


# --- GeoParquet ----------------------------------------------------------------------------------------------


def geo_table(geometry: list[Any], encoding: str = "WKB", **spec: Any) -> pa.Table:
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": encoding, "geometry_types": [], **spec}},
    }
    table = pa.table({"satellite": [f"{row}.jpg" for row in range(len(geometry))], "geometry": geometry})
    return table.replace_schema_metadata({"geo": json.dumps(geo)})


def point(
    x: float, y: float, order: str = "<", kind: int = 1, *rest: float, srid: int | None = None
) -> bytes:
    reference = b"" if srid is None else struct.pack(order + "I", srid)
    flag = 0 if srid is None else 0x20000000
    head = struct.pack(order + "BI", order == "<", kind | flag)
    return head + reference + struct.pack(f"{order}{2 + len(rest)}d", x, y, *rest)


def test_points_of_geoparquet_are_locations(tmp_path: Path) -> None:
    points = [
        point(151.0, -33.5),
        point(151.0, -33.5, ">"),
        point(151.0, -33.5, "<", 1001, 12.0),
        point(151.0, -33.5, "<", 0x80000001, 12.0),
        point(151.0, -33.5, ">", srid=4326),
        point(float("nan"), float("nan")),
        None,
    ]
    path = tmp_path / "sites.geoparquet"
    pq.write_table(geo_table(points), path)
    pairs = Pairs.from_table(path)
    assert [row["location"] for row in pairs] == [(-33.5, 151.0)] * 5 + [None] * 2
    assert pairs[6]["latitude"] is None


def test_native_points_of_geoparquet_are_locations() -> None:
    pairs = Pairs.from_table(geo_table([{"x": 151.0, "y": -33.5}, None], encoding="point"))
    assert [row["location"] for row in pairs] == [(-33.5, 151.0), None]


@pytest.mark.parametrize(
    "crs",
    [
        None,
        {"type": "GeographicCRS", "name": "WGS 84 (CRS84)", "id": {"authority": "OGC", "code": "CRS84"}},
        {"type": "GeographicCRS", "name": "WGS 84", "id": {"authority": "EPSG", "code": 4326}},
        {"type": "GeographicCRS", "name": "WGS 84"},
    ],
)
def test_wgs84_is_known_by_its_names(crs: dict[str, Any] | None) -> None:
    assert Pairs.from_table(geo_table([point(151.0, -33.5)], crs=crs))[0]["location"] == (-33.5, 151.0)


def test_another_reference_system_is_refused() -> None:
    crs = {"type": "ProjectedCRS", "name": "WGS 84 / UTM 56S", "id": {"authority": "EPSG", "code": 32756}}
    with pytest.raises(GeoBindError, match=r"in 'WGS 84 / UTM 56S', expected WGS84.*to_crs\(4326\)"):
        Pairs.from_table(geo_table([point(334000.0, 6250000.0)], crs=crs))


def test_geometries_that_are_no_points_give_no_location_and_a_warning() -> None:
    polygon = struct.pack("<BII", 1, 3, 0)
    with pytest.warns(GeoBindWarning, match="no points") as caught:
        assert Pairs.from_table(geo_table([polygon])).modalities == ("satellite",)
    assert caught[0].filename == __file__


# --- mistakes ------------------------------------------------------------------------------------------------

SITE: dict[str, list[Any]] = {"satellite": ["a.jpg", "b.jpg"], "text": ["one", "two"]}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (SITE, {"columns": {"satellite": "satelite"}}, r"table T has no column 'satelite' .*did you mean 'satellite'"),
        (SITE, {"split": "splits"}, r"table T has no column 'splits' \(the split column\)"),
        (SITE, {"group": "label"}, "no column 'label'"),
        (SITE, {"place": "site"}, "no column 'site'"),
        (SITE, {"features": {"audio": "x.npz"}}, r"no column 'audio' \(modality 'audio'\)"),
        ({"a": [1]}, {}, r"no column of a known modality .* but a: name them \(columns"),
        ({"satellite": []}, {}, "table T has no rows"),
        (SITE | {"lat": [1, 95], "lon": [1, 1]}, {}, r"table T, row 1 \(from 0\): latitude 95 .*swapped"),
        (SITE | {"lat": [1, 1], "lon": [1, 200]}, {}, r"row 1 .*: longitude 200 .*subtract 360"),
        (SITE | {"lat": [1, 1]}, {}, "'lat' alone"),
        (SITE | {"lat": ["1", "1,5"], "lon": [1, 1]}, {}, r"'lat', row 1 .*: '1,5' is not a number"),
        (SITE | {"lat": [1.0, 2.0], "lon": [1, 1], "place": ["p", "p"]}, {}, r"place 'p' has two positions, \(1, 1\) and"),
        (SITE | {"datetime": ["", "noon"]}, {}, r"row 1 .*: 'noon' is no time; expected ISO 8601"),
        ({"satellite": ["a.jpg", "https://x.org/b.jpg"]}, {}, r"row 1 .*'https://x.org/b.jpg' is a URL.* download it"),
        ({"satellite": [True, False]}, {}, "satellite is a column of type bool"),
        ({"environment": [[1.0], [float("nan")]]}, {}, r"row 1 .*: environment is a vector with NaN"),
        ({"environment": [[1.0], [1.0, 2.0]]}, {}, "vector 1 has 2 numbers"),
        ({"r": [1.0, float("inf")]}, {"columns": {"environment": ["r"]}}, r"row 1 .*NaN or infinity"),
        ({"r": ["1", "x"]}, {"columns": {"environment": ["r"]}}, "'r', row 1 .*'x' is not a number"),
        (SITE, {"columns": {"location": "text"}}, "location takes two columns"),
    ],
)  # fmt: skip
def test_each_mistake_gets_one_line(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(GeoBindError, match=message) as caught:
        read(columns, name="T", **options)
    assert "\n" not in str(caught.value)


def test_positions_of_a_place_may_differ_by_rounding_and_by_the_date_line() -> None:
    near = {"lat": [1.00001, 1.0], "lon": [180.0, -180.0], "place": ["p", "p"]}
    assert len(set(read(SITE | near).places)) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "does not exist"),
        ("t.xlsx", "x", "expected .csv, .tsv, .parquet"),
        ("t.csv", "", "cannot be read.*mpty"),
        ("t.csv", "satellite,text\n", "no rows"),
        ("t.csv", "satellite,text\na,b,c\n", "cannot be read.*columns"),
        ("t.csv", "satellite,satellite\na,b\n", "2 columns named 'satellite'"),
        ("t.parquet", "PAR1", "cannot be read"),
    ],
)
def test_files_that_are_no_tables_get_one_line(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(GeoBindError, match=message) as caught:
        Pairs.from_table(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_only_keeps_rows_with_these_values(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,modality,class\na.jpg,satellite,Port\nb.ogg,audio,Port\nc.jpg,satellite,\n")
    pairs = Pairs.from_table(
        path, columns={"satellite": "path"}, group="class", only={"modality": "satellite"}
    )
    assert list(pairs.keys("satellite")) == ["a.jpg", "c.jpg"]
    with pytest.raises(GeoBindError, match="no row with modality = 'satelite'; did you mean 'satellite'"):
        Pairs.from_table(path, columns={"satellite": "path"}, only={"modality": "satelite"})
    with pytest.raises(GeoBindError, match="no column 'kind'"):
        Pairs.from_table(path, columns={"satellite": "path"}, only={"kind": "satellite"})
