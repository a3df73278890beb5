"""A pack is its source, smaller: the same rows in the same order, whatever happened while it was written.

* Keys, captions, positions, times, splits, groups and places are the source's; so is the order of training;
* pictures have the size asked for and stay close to the source's; a small JPEG is the very file; sounds are
  mono FLAC of the rate asked for; what several rows share is stored once;
* a value that cannot be read is listed and left empty, so that no row moves;
* killed by SIGKILL at any shard, the same call makes what an uninterrupted one makes;
* with a recipe the size is what its crops need.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from geobind import GeoBindError, MediaError, Pairs
from geobind.data import pack as packing
from geobind.data.order import epoch_batches
from geobind.data.pack import Packing, pack
from geobind.media.audio import load_audio
from geobind.media.images import Augment, ImageTransform, image_size, load_image

SIZES = Packing({"satellite": 40}, {"audio": 8_000})


def write_source(folder: Path, rows: int = 12, **more: list[str]) -> Path:
    """A table of tiles (60 x 80; the first is small), two captions each, sounds, and all that tells of a row."""
    rng = np.random.default_rng(0)
    for number in range(rows // 2):
        side = (60, 80) if number else (24, 30)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        (folder / "tiles").mkdir(parents=True, exist_ok=True)
        coarse.resize(side[::-1], Image.Resampling.BICUBIC).save(folder / f"tiles/{number}.jpg", quality=92)
    samples = 0.4 * np.sin(np.arange(4410) / 20)
    for name in ("s.wav", "t.wav"):
        soundfile.write(folder / name, np.stack([samples, samples], 1), 44_100)
    table = {
        "satellite": [f"tiles/{row // 2}.jpg" for row in range(rows)],
        "text": [f"caption {row}, “ünïcode”" for row in range(rows)],
        "audio": [("t.wav" if row >= rows - 2 else "s.wav") if row % 3 else "" for row in range(rows)],
        "lat": [repr(1 / 3 + row // 2) for row in range(rows)],
        "lon": [repr(-170.1 + row // 2) for row in range(rows)],
        "datetime": [f"2020-01-{row + 1:02}T10:00:00.5+02:00" if row % 4 else "" for row in range(rows)],
        "split": ["test" if row >= rows - 2 else "train" for row in range(rows)],
        "group": [f"g{row % 3}" for row in range(rows)],
        "rain": [repr(0.1 * row) for row in range(rows)],
        "heat": [repr(30.7 - row) for row in range(rows)],
    } | more
    lines = [
        ",".join(table),
        *(",".join(f'"{cell}"' for cell in cells) for cells in zip(*table.values(), strict=True)),
    ]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "rows.csv"


def read_source(path: Path) -> Pairs:
    columns = {"satellite": "satellite", "text": "text", "audio": "audio", "environment": ["rain", "heat"]}
    return Pairs.from_table(path, columns=columns)


def assert_same_rows(one: Pairs, two: Pairs) -> None:
    assert set(one.modalities) == set(two.modalities)
    for modality in one.modalities:
        if modality != "environment":
            assert one.keys(modality).tolist() == two.keys(modality).tolist()
    assert one.splits.tolist() == two.splits.tolist()
    assert one.groups.tolist() == two.groups.tolist()
    np.testing.assert_array_equal(one.places, two.places)
    np.testing.assert_array_equal(one.times, two.times)
    for first, second in zip(one, two, strict=True):
        for name in ("text", "location", "latitude", "longitude", "datetime"):
            assert first[name] == second[name]
        np.testing.assert_array_equal(first["environment"], second["environment"])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pairs:
    monkeypatch.setattr(packing, "ROWS", 5)
    return read_source(write_source(tmp_path / "source"))


def test_a_pack_reads_as_its_source(source: Pairs, tmp_path: Path) -> None:
    done = pack(source, tmp_path / "out", SIZES, workers=0)
    packed = Pairs.from_folder(tmp_path / "out")
    assert (done.rows, done.unreadable) == (12, [])
    assert done.after == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    assert len(list((tmp_path / "out").glob("*.tar"))) == 3
    assert_same_rows(source, packed)
    for rows_per_place in (None, 1):
        order = {"batch_size": 4, "seed": 3, "epoch": 2, "rows_per_place": rows_per_place}
        np.testing.assert_array_equal(
            epoch_batches(source.places, **order), epoch_batches(packed.places, **order)
        )
    assert bytes(packed[0]["satellite"]) == source[0]["satellite"].read_bytes()
    for row in range(2, 12):
        assert image_size(packed[row]["satellite"]) == (40, 53)
    sound, rate = soundfile.read(io.BytesIO(bytes(packed[1]["audio"])), always_2d=True)
    assert (sound.shape[1], rate, packed[0]["audio"]) == (1, 8_000, None)
    np.testing.assert_allclose(sound[:, 0], load_audio(source[1]["audio"], 8_000), atol=2**-15)


def test_a_pack_looks_like_its_source(source: Pairs, tmp_path: Path) -> None:
    """Within two grey levels on average, for the fixed transform and for the same random crops."""
    pack(source, tmp_path / "out", SIZES, workers=0)
    packed = Pairs.from_folder(tmp_path / "out")
    transform = ImageTransform(20, (0, 0, 0), (1 / 255,) * 3, augment=Augment(scale=(0.25, 1.0), flip=False))
    for row in range(2, 12, 2):
        apart = transform(packed[row]["satellite"]) - transform(source[row]["satellite"])
        assert apart.abs().mean() < 2
    assert transform.least_side(learns=True) == 40
    assert transform.enlarged(40, learns=True) == 0 < transform.enlarged(30, learns=True) < 1
    assert transform.least_side(learns=False) == 20


def test_shared_values_are_stored_once(source: Pairs, tmp_path: Path) -> None:
    pack(source, tmp_path / "out", SIZES, workers=0)
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        kinds = [member.islnk() for member in tar if member.name.endswith("satellite.jpg")]
        assert kinds == [False, True, False, True, False]
        tar.extractall(tmp_path / "unpacked", filter="data")
    one, other = (tmp_path / f"unpacked/00000000{row}.satellite.jpg" for row in (2, 3))
    assert one.read_bytes() == other.read_bytes() != b""


def test_what_cannot_be_read_is_listed_and_moves_no_row(tmp_path: Path) -> None:
    table = write_source(tmp_path / "source")
    (tmp_path / "source/tiles/2.jpg").write_bytes((tmp_path / "source/tiles/2.jpg").read_bytes()[:700])
    (tmp_path / "source/tiles/4.jpg").unlink()
    source = read_source(table)
    done = pack(source, tmp_path / "out", SIZES, workers=0)
    assert [line.partition(":")[0] for line in done.unreadable] == ["row 4", "row 5", "row 8", "row 9"]
    assert "2.jpg" in done.unreadable[0]
    assert "does not exist" in done.unreadable[2]
    packed = Pairs.from_folder(tmp_path / "out")
    assert_same_rows(source, packed)
    for pairs in (source, packed):
        with pytest.raises(MediaError):
            load_image(pairs[4]["satellite"])


def test_a_killed_pack_goes_on_without_loss_or_doubles(source: Pairs, tmp_path: Path) -> None:
    pack(source, tmp_path / "whole", SIZES, workers=0)
    out, table = tmp_path / "killed", tmp_path / "source" / "rows.csv"
    code = f"""
import os, signal
from pathlib import Path
from geobind.data import pack as p
from tests.data.test_pack import SIZES, read_source
p.ROWS, add, rows = 5, p._add, []
def dying(tar, name, content):
    rows.append(name)
    if len(rows) > 12 and name.endswith(".json"):
        os.kill(os.getpid(), signal.SIGKILL)
    add(tar, name, content)
p._add = dying
p.pack(read_source(Path({str(table)!r})), {str(out)!r}, SIZES, workers=0)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(out.glob("*.tar"))) == 1, "the second shard was under way"
    with pytest.raises(GeoBindError, match=r"5 of 12 rows: the same geobind data pack goes on"):
        Pairs.from_folder(out)
    first = (out / "000000.tar").stat().st_mtime_ns
    pack(source, out, SIZES, workers=2)
    assert (out / "000000.tar").stat().st_mtime_ns == first
    for path in (tmp_path / "whole").glob("*.tar"):
        assert path.read_bytes() == (out / path.name).read_bytes()
    assert sorted(path.name for path in out.iterdir() if not path.name.endswith(".tmp")) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )
    with pytest.raises(GeoBindError, match="a pack of other data or another size"):
        pack(source, out, Packing({"satellite": 30}, {}), workers=0)


def test_from_the_command_line(run, tmp_path: Path) -> None:
    table = write_source(tmp_path / "source")
    status, out, _ = run("data", "pack", table, "--out", tmp_path / "out", "--size", "40", "--workers", "0")
    assert status == 0
    assert "rows: 12 rows" in out
    assert "satellite 40 pixels, audio 48,000 Hz" in out
    assert f"rows: {{folder: {tmp_path / 'out'}}}" in out.replace("\n", "")
    status, _, err = run("data", "pack", table, "--out", tmp_path / "o2")
    assert status == 1
    assert "give --size" in err
    status, _, err = run("data", "pack", table, "--out", tmp_path / "o2", "--size", "satellite=big")
    assert status == 1
    assert "--size satellite=big: expected pixels" in err
    status, _, err = run("data", "pack", table, "--out", tmp_path / "o2", "--size", "audio=40")
    assert status == 1
    assert "holds no pictures" in err


def test_a_recipe_says_what_its_crops_need(run, tmp_path: Path) -> None:
    table = write_source(tmp_path / "source")
    recipe = {
        "dim": 32,
        "towers": {
            "satellite": {"tower": "small", "size": 32, "augment": {"scale": [0.64, 1.0]}},
            "audio": {"tower": "small"},
        },
        "pairs": {"rows": {"table": str(table)}},
        "stages": [{"learners": ["satellite", "audio"], "links": [{"query": "satellite", "gallery": "audio"}], "pairs": "rows"}],
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    status, out, err = run("data", "pack", tmp_path / "r.yaml", "--out", tmp_path / "out", "--workers", "0")
    assert status == 0, err
    assert "satellite 40 pixels, audio 16,000 Hz" in out
    assert "enlarged" not in out
    assert image_size(Pairs.from_folder(tmp_path / "out" / "rows")[4]["satellite"]) == (40, 53)
    status, out, _ = run(
        "data", "pack", tmp_path / "r.yaml", "--out", tmp_path / "o2", "--size", "satellite=36", "--workers", "0"
    )  # fmt: skip
    assert "satellite: 42% of the recipe's crops will be enlarged at this size" in out
