"""Feature files stand in for media.

* looking up by key gives the vector of that key, in the table's order, float32 whatever is stored;
* `.npz`, compressed `.npz` and Parquet give the same; an uncompressed one is memory-mapped and travels to
  another process as a path;
* keys without vector, NaN, contradicting keys and files that are no feature files: one line that names
  the key and the file.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geobind.data.features import look_up, read_features
from geobind.errors import GeoBindError

KEYS = np.array(["a.jpg", "b.jpg", "a port, with boats", "ü"])
VECTORS = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float16)


def write(path: Path, keys: Any = KEYS, vectors: Any = VECTORS, compressed: bool = False) -> Path:
    if path.suffix == ".npz":
        (np.savez_compressed if compressed else np.savez)(path, key=keys, vector=vectors)
    else:
        pq.write_table(pa.table({"key": list(keys), "vector": list(vectors)}), path)
    return path


@pytest.fixture(params=["stored.npz", "compressed.npz", "features.parquet", "fortran.npz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    vectors = np.asfortranarray(VECTORS) if "fortran" in request.param else VECTORS
    return write(tmp_path / request.param, vectors=vectors, compressed="compressed" in request.param)


def strings(*values: str | None) -> pa.Array:
    return pa.array(values, pa.large_string())


def test_vectors_follow_the_keys(file: Path) -> None:
    column = look_up("satellite", strings("ü", "a.jpg", None, "ü"), file)
    for row, key in enumerate([3, 0, None, 3]):
        value = column.value(row)
        if key is None:
            assert value is None
        else:
            assert value is not None
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, VECTORS[key].astype(np.float32))
    assert column.present().tolist() == [True, True, False, True]
    assert column.keys().to_pylist() == ["ü", "a.jpg", None, "ü"]


def test_columns_survive_pickling_and_selection(file: Path) -> None:
    column = look_up("satellite", strings("b.jpg", "a.jpg", None, "ü"), file)
    taken = column.take(np.array([3, 2, 0]))
    again = pickle.loads(pickle.dumps(taken))
    for row, original in enumerate([3, 2, 0]):
        np.testing.assert_array_equal(again.value(row), column.value(original))
    assert again.keys().equals(taken.keys())


def test_uncompressed_archives_are_mapped_and_travel_as_a_path(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(2000, 100))
    keys = np.arange(2000).astype(str)
    path = write(tmp_path / "big.npz", keys, vectors)
    column = look_up("satellite", pa.array(keys, pa.large_string()), path)
    assert isinstance(column.matrix, np.memmap)
    sent = pickle.dumps(column)
    assert len(sent) < vectors.nbytes / 20
    np.testing.assert_array_equal(pickle.loads(sent).value(1234), vectors[1234].astype(np.float32))


def test_what_is_in_memory_travels_without_the_rows_nobody_uses(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(2000, 100))
    path = write(tmp_path / "big.npz", np.arange(2000).astype(str), vectors, compressed=True)
    column = look_up("satellite", strings("7", "1999", "7"), path)
    assert len(pickle.dumps(column)) < vectors.nbytes / 100


def test_equal_rows_of_one_key_are_one_and_unequal_ones_are_refused(tmp_path: Path) -> None:
    keys = np.array(["a", "b", "a"])
    vectors = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    column = look_up("text", strings("a"), write(tmp_path / "same.npz", keys, vectors))
    np.testing.assert_array_equal(column.value(0), [1, 2])
    vectors[2] = 0
    with pytest.raises(GeoBindError, match="two different vectors for 'a'"):
        look_up("text", strings("a"), write(tmp_path / "other.npz", keys, vectors))


def test_a_nan_is_refused_by_key_if_it_is_used(tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[1, 3] = np.nan
    path = write(tmp_path / "nan.npz", vectors=vectors)
    look_up("satellite", strings("a.jpg", "ü"), path)
    with pytest.raises(GeoBindError, match=r"nan\.npz: the vector of 'b\.jpg' has NaN"):
        look_up("satellite", strings("a.jpg", "b.jpg"), path)


def test_keys_without_a_vector_are_counted_and_the_first_is_named(file: Path) -> None:
    with pytest.raises(GeoBindError, match=r"lacks 2 of the 3 rows of 'image', the first is 'c\.jpg'"):
        look_up("image", strings("a.jpg", "c.jpg", "d.jpg"), file)


def broken(folder: Path, kind: str) -> Path:
    path = folder / "broken.npz"
    match kind:
        case "absent":
            return folder / "absent.npz"
        case "text":
            path = folder / "features.txt"
            path.write_text("no features")
        case "garbage":
            path.write_bytes(b"PK no archive")
        case "cut":
            write(path)
            path.write_bytes(path.read_bytes()[:-40])
        case "other arrays":
            np.savez(path, keys=KEYS, vectors=VECTORS)
        case "pickled keys":
            np.savez(path, key=KEYS.astype(object), vector=VECTORS)
        case "lengths":
            np.savez(path, key=KEYS[:3], vector=VECTORS)
        case "one dimension":
            np.savez(path, key=KEYS, vector=VECTORS[:, 0])
        case "parquet garbage":
            path = folder / "broken.parquet"
            path.write_bytes(b"PAR1 no table")
        case "parquet columns":
            path = folder / "broken.parquet"
            pq.write_table(pa.table({"key": ["a"], "embedding": [[1.0]]}), path)
        case "parquet lengths":
            path = folder / "broken.parquet"
            pq.write_table(pa.table({"key": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}), path)
        case "parquet strings":
            path = folder / "broken.parquet"
            pq.write_table(pa.table({"key": ["a"], "vector": ["1 2 3"]}), path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "does not exist"),
        ("text", "expected .npz or .parquet"),
        ("garbage", "cannot be read"),
        ("cut", "cannot be read"),
        ("other arrays", "no array 'key', only keys, vectors"),
        ("pickled keys", "dtype=str"),
        ("lengths", "3 keys and vectors of shape"),
        ("one dimension", r"expected \(n,\) and \(n, width\)"),
        ("parquet garbage", "cannot be read"),
        ("parquet columns", "no column 'vector', only key, embedding"),
        ("parquet lengths", "vector 1 has 2 numbers"),
        ("parquet strings", "expected lists of numbers"),
    ],
)
def test_files_that_are_no_feature_files_get_one_line(tmp_path: Path, kind: str, message: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(GeoBindError, match=message) as caught:
        read_features(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_sample_features_cover_the_sample_tables(sample: Path) -> None:
    keys, vectors = read_features(sample / "features" / "text_minilm.npz")
    assert isinstance(vectors, np.memmap)
    assert vectors.shape == (len(keys), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors[:50].astype(np.float32), axis=1), 1, atol=2e-3)
