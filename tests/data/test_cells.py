"""Geographic splits keep places apart.

* Cells are alike in area at every latitude, and no two points far apart share one;
* no training point is within the buffer of a point of val or test, by brute force, over the date line too;
* whole cells are of one split, shares are met, the seed decides; a place is in one split;
* a file of splits fits the rows it was made for, and no others; a recipe takes it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from geobind import GeoBindError, Pairs, Recipe
from geobind.cli import app
from geobind.data.cells import EARTH_KM, KM_OF_DEGREE, Cells, split_by_cells, within
from geobind.data.splits import geographic_splits


def points(n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clusters, as recordings are, one of them on the date line, one at a pole."""
    rng = np.random.default_rng(seed)
    centres = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 60))), rng.uniform(-180, 180, 60)], 1)
    centres[:2] = [(10, 180), (89.8, 0)]
    chosen = centres[rng.integers(0, 60, n)] + rng.normal(0, 0.7, (n, 2))
    return np.clip(chosen[:, 0], -90, 90), (chosen[:, 1] + 180) % 360 - 180


def distances(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """(n, n) km by the haversine formula."""
    phi, theta = np.radians(latitude), np.radians(longitude)
    a = np.sin((phi[:, None] - phi) / 2) ** 2
    a += np.cos(phi[:, None]) * np.cos(phi) * np.sin((theta[:, None] - theta) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(a, 0, 1)))


@pytest.mark.parametrize("degrees", [10.0, 1.0, 0.3])
def test_cells_are_alike_in_area(degrees: float) -> None:
    cells = Cells(degrees)
    sines = np.sin(np.radians(np.linspace(-90, 90, cells.rows + 1)))
    area = np.repeat(np.diff(sines) / cells.counts, cells.counts)
    inner = area[1:-1] * len(cells) / 2
    assert inner.min() > 0.7
    assert inner.max() < 1.4
    rng = np.random.default_rng(0)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, 200_000)))
    longitude = rng.uniform(-180, 180, 200_000)
    number = cells.of(latitude, longitude)
    assert number.min() >= 0
    assert number.max() < len(cells)
    assert cells.of(90, 12) == len(cells) - 1
    assert cells.of(3, 180) == cells.of(3, -180)


def test_points_of_a_cell_are_near() -> None:
    latitude, longitude = points(1500)
    number = Cells(100 / KM_OF_DEGREE).of(latitude, longitude)
    apart = distances(latitude, longitude)
    assert apart[number[:, None] == number].max() < 230, "no id stands for two places on Earth"


@pytest.mark.parametrize(("buffer_km", "seed"), [(0.0, 0), (10.0, 1), (150.0, 2)])
def test_the_buffer_holds_everywhere(buffer_km: float, seed: int) -> None:
    latitude, longitude = points(seed=seed)
    splits = split_by_cells(latitude, longitude, test=0.2, val=0.1, buffer_km=buffer_km, seed=seed)
    apart = distances(latitude, longitude)
    train, val, test = (splits == name for name in ("train", "val", "test"))
    held = val | test
    if buffer_km:
        assert apart[np.ix_(train, held)].min() > buffer_km
        assert apart[np.ix_(val, test)].min() > buffer_km
    bare = split_by_cells(latitude, longitude, test=0.2, val=0.1, buffer_km=0, seed=seed)
    near = apart[:, bare == "test"].min(1) <= buffer_km
    near |= (bare == "train") & (apart[:, (splits == "val")].min(1) <= buffer_km)
    assert np.array_equal(splits[~near], bare[~near]), "nothing is left out without a reason"
    assert 0.15 < test.mean() <= 0.2
    cells = Cells(100 / KM_OF_DEGREE).of(latitude, longitude)
    for cell in np.unique(cells):
        assert len({*bare[cells == cell].tolist()}) == 1
    again = split_by_cells(latitude, longitude, test=0.2, val=0.1, buffer_km=buffer_km, seed=seed)
    assert np.array_equal(splits, again)
    other = split_by_cells(latitude, longitude, test=0.2, val=0.1, buffer_km=buffer_km, seed=seed + 9)
    assert not np.array_equal(splits, other)


def test_neighbours_in_pieces_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    latitude, longitude = points(800)
    rows, others = np.arange(500), np.arange(500, 800)
    truth = (distances(latitude, longitude)[:500, 500:] <= 60).any(1)
    assert 0.1 < truth.mean() < 0.9
    for at_once in (1 << 22, 40):
        monkeypatch.setattr("geobind.data.cells._AT_ONCE", at_once)
        assert np.array_equal(within(latitude, longitude, rows, others, 60.0), truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 0}, "give shares that leave some"),
        ({"test": 0.7, "val": 0.4}, "give shares"),
        ({"cell_km": 50_000}, "up to 5000 km"),
        ({"cell_km": 4_000, "test": 0.0001}, "give smaller cells"),
        ({"buffer_km": 30_000}, "smaller buffer"),
    ],
)
def test_what_cannot_be_split(options: dict, message: str) -> None:
    with pytest.raises(GeoBindError, match=message):
        split_by_cells(*points(300), **options)


def table(folder: Path) -> Path:
    latitude, longitude = points(400)
    lines = [
        f"{n}.jpg,caption {n}-{copy},{a:.5f},{b:.5f}"
        for n, (a, b) in enumerate(zip(latitude, longitude, strict=True))
        for copy in range(2)
    ]
    lines.append("lost.jpg,somewhere,,")
    (folder / "pairs.csv").write_text("satellite,text,latitude,longitude\n" + "\n".join(lines))
    return folder / "pairs.csv"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_of_splits_goes_into_a_recipe(tmp_path: Path, suffix: str) -> None:
    path, out = table(tmp_path), tmp_path / f"splits{suffix}"
    run = CliRunner().invoke(app, ["data", "split", str(path), "--out", str(out), "--buffer-km", "30"])
    assert run.exit_code == 0, run.output
    assert f"splits: {out}" in run.output
    pairs = Pairs.from_table(path)
    splits = geographic_splits(pairs, buffer_km=30)
    assert splits[-1] is None, "a row without a position is in none"
    assert splits[:-1:2] == splits[1::2], "a place is in one split"
    recipe = {
        "pairs": {"p": {"table": "pairs.csv", "splits": out.name, "columns": {"satellite": "satellite"}}}
    }
    opened = Recipe.parse(recipe).pairs["p"].open("p", str(tmp_path))
    assert opened.splits.tolist() == splits
    assert len(opened.split("test")) > 40
    with pytest.raises(GeoBindError, match=r"made for 801 other rows than the 799 .* make them again"):
        pairs[2:].with_splits(out)
    with pytest.raises(GeoBindError, match=r"instead of"):
        pairs[::-1].with_splits(out)
    with pytest.raises(GeoBindError, match=r"ends in \.parquet or \.csv"):
        CliRunner().invoke(app, ["data", "split", str(path), "--out", "x.txt"], catch_exceptions=False)


def test_pairs_without_positions_are_told(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("satellite,text\na.jpg,b\n")
    with pytest.raises(GeoBindError, match="no positions: add columns latitude"):
        geographic_splits(Pairs.from_table(tmp_path / "p.csv"))
