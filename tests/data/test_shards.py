"""Tar shards are rows by index, local and over HTTP.

* A row's bytes are the member's, read by offset, as `tarfile` itself reads them; so too over ranges;
* the index is made once; another file under the same name is noticed;
* Sat2Cap's shards bring place, time and its own split; broken dates become missing and are counted;
* over HTTP, a run that is killed and started again goes on at its row;
* what is broken (cut off, a member twice or lacking, no tar, a server without ranges) is one line.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from geobind import GeoBindError, MediaError, Pairs, Recipe, evaluate
from geobind.binding.report import BindReport
from geobind.data.shards import expand
from geobind.data.source import split_of_name
from geobind.errors import GeoBindWarning
from geobind.media import http
from geobind.media.images import load_image
from scripts.make_replicas import SAT2CAP_TEST, SAT2CAP_TRAIN, add_member, write_sat2cap
from tests.server import serving

pytestmark = pytest.mark.filterwarnings("ignore:.*dates are none:geobind.errors.GeoBindWarning")


def write_tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            add_member(tar, name, content)
    return path


def members(folder: Path) -> dict[str, bytes]:
    """All members of a folder's shards, as tarfile reads them, in order."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    return found


def test_rows_are_the_members_of_sat2cap(tmp_path: Path) -> None:
    folder = write_sat2cap(tmp_path / "sat2cap", samples=6)
    pairs = Pairs.from_folder(folder)
    truth = members(folder)
    assert pairs.modalities == ("satellite", "image", "location")
    assert [bytes(row["satellite"]) for row in pairs] == [
        v for k, v in truth.items() if k.endswith(".overhead.jpg")
    ]
    assert [bytes(row["image"]) for row in pairs] == [
        v for k, v in truth.items() if k.endswith("groundlevel.jpg")
    ]
    assert load_image(pairs[3]["image"]).shape == (48, 48, 3)
    assert Counter(pairs.splits) == {"train": 12, "test": 6, "queue": 6}
    assert set(pairs.keys("satellite")[pairs.splits == "test"].tolist()) == {
        f"{SAT2CAP_TEST[0]}/{name.removesuffix('.jpg')}.jpg"
        for name in members_of(folder / f"{SAT2CAP_TEST[0]}.tar")
        if name.endswith("overhead.jpg")
    }


def members_of(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


@pytest.mark.filterwarnings("default:.*dates are none:geobind.errors.GeoBindWarning")
def test_dates_that_are_none_are_missing_and_counted(tmp_path: Path) -> None:
    folder = write_sat2cap(tmp_path / "sat2cap", samples=10)
    with pytest.warns(GeoBindWarning, match=r"6 of 40 dates are none, such as '0000-00-00 00:00:00.0'"):
        pairs = Pairs.from_folder(folder)
    lacking = [number for number, row in enumerate(pairs) if row["datetime"] is None]
    assert len(lacking) == 8, "two have no date at all"
    assert pairs[0]["datetime"].year == 2010 or pairs[0]["datetime"] is not None


def test_an_index_is_made_once_and_a_changed_shard_is_noticed(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", {"k.jpg": b"one", "k.txt": b"a port"})
    pairs = Pairs.from_shards(shard)
    index = next((tmp_path / "cache" / "shards").iterdir())
    made = index.stat().st_mtime_ns
    row = Pairs.from_shards(shard)[0]
    assert (bytes(row["image"]), row["text"]) == (b"one", "a port")
    assert index.stat().st_mtime_ns == made
    write_tar(shard, {"j.jpg": b"another", "j.txt": b"a farm", "k.jpg": b"x" * 20_000})
    with pytest.raises(MediaError, match="when it was indexed"):
        bytes(pairs[0]["image"])
    assert Pairs.from_shards(shard, columns={"image": "jpg"})[1]["image"].size == 20_000


def test_rows_travel_to_workers_and_subsets_keep_them(tmp_path: Path) -> None:
    pairs = Pairs.from_folder(write_sat2cap(tmp_path / "s", samples=4))
    chosen = pickle.loads(pickle.dumps(pairs.subset([7, 2])))
    assert list(chosen) == [pairs[7], pairs[2]]
    assert bytes(chosen[0]["image"]) == bytes(pairs[7]["image"])


def test_generic_shards_take_columns_from_members_and_json(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    rows = {"x/a.tile.JPEG": b"1", "x/a.meta.json": b'{"caption": "a dune", "lat": 1.5, "lon": 2, "n": [1]}'}
    rows |= {"x/b.tile.jpg": b"2", "x/b.meta.json": b'{"caption": "a bay", "lat": 1.5, "lon": 2}'}
    write_tar(folder / "train" / "000.tar", rows)
    write_tar(folder / "val" / "000.tar", {"x/c.tile.jpg": b"3"})
    recipe = {
        "pairs": {"p": {"folder": str(folder), "columns": {"satellite": "tile.jpg", "text": "caption"}}}
    }
    pairs = Recipe.parse(recipe).open_pairs("p")
    assert [bytes(row["satellite"]) for row in pairs] == [b"1", b"2", b"3"]
    assert [row["text"] for row in pairs] == ["a dune", "a bay", None]
    assert pairs.splits.tolist() == ["train", "train", "val"]
    assert pairs.places[0] == pairs.places[1] != pairs.places[2], "one position is one place"
    assert pairs.keys("satellite")[0] == "train/000/x/a.tile.jpg"
    with pytest.raises(GeoBindError, match=r"no column 'tile\.png'"):
        Pairs.from_folder(folder, columns={"satellite": "tile.png"})


def test_names_of_shards_and_splits(tmp_path: Path) -> None:
    assert expand("https://h/a-{08..10}.tar") == [f"https://h/a-{n}.tar" for n in ("08", "09", "10")]
    with pytest.raises(GeoBindError, match="no shards in"):
        expand(tmp_path)
    names = ["train_3.tar", "x/val.tar", "test/9.tar", "trainers/9.tar", "validation-00000-of-00001.parquet"]
    assert [split_of_name(name) for name in names] == ["train", "val", "test", None, "val"]


# --- over HTTP -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=lambda seconds: None))


def test_remote_rows_are_local_rows_and_only_they_travel(tmp_path: Path) -> None:
    folder = write_sat2cap(tmp_path / "s", samples=4)
    big = write_tar(folder / "big.tar", {"a.overhead.jpg": b"x" * 2_000_000, "a.groundlevel.jpg": b"y" * 30})
    with serving(folder) as server:
        for path in [folder / f"{SAT2CAP_TRAIN[0]}.tar", big]:
            remote = Pairs.from_shards(server.url(path.name))
            local = Pairs.from_shards(path)
            for one, other in zip(remote, local, strict=True):
                assert bytes(one["satellite"]) == bytes(other["satellite"])
                assert one.get("location") == other.get("location")
        server.sent = 0
        server.requests.clear()
        again = Pairs.from_shards(server.url(big.name))
        assert server.sent == 0, "the index came from the cache"
        assert bytes(again[0]["image"]) == b"y" * 30
        assert server.requests == ["bytes=2001408-2001437"], "and of the row only what is read"


def test_indexing_over_http_skips_large_members(tmp_path: Path) -> None:
    write_tar(tmp_path / "w.tar", {f"{n}.jpg": b"x" * 3_000_000 for n in range(3)})
    with serving(tmp_path) as server:
        assert len(Pairs.from_shards(server.url("w.tar"))) == 3
        assert server.sent < 2_000_000


def test_a_connection_that_breaks_off_is_taken_up_where_it_was(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"k.jpg": bytes(range(256)) * 400})
    with serving(tmp_path) as server:
        pairs = Pairs.from_shards(server.url("a.tar"))
        server.break_off, server.breaks = 40_000, 3
        assert bytes(pairs[0]["image"]) == bytes(range(256)) * 400
        server.break_off, server.breaks = 10, 1000
        with pytest.raises(MediaError, match=r"40 of 102400 bytes at 512 came, after 4 attempts"):
            bytes(pairs[0]["image"])


def test_a_server_without_ranges_and_a_changed_file_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"k.jpg": b"abc"})
    with serving(tmp_path) as server:
        pairs = Pairs.from_shards(server.url("a.tar"))
        server.ranges = False
        with pytest.raises(MediaError, match=r"ignores ranges .* download the file"):
            bytes(pairs[0]["image"])
        with pytest.raises(GeoBindError, match="404"):
            Pairs.from_shards(server.url("b.tar"))
        server.ranges = True
        write_tar(tmp_path / "a.tar", {"k.jpg": b"abc" * 8000})
        with pytest.raises(MediaError, match="has changed"):
            bytes(pairs[0]["image"])


# --- broken --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [700, 1536 + 100, 2048, 2560])
def test_a_shard_cut_off_is_refused_wherever_it_was_cut(tmp_path: Path, keep: int) -> None:
    shard = write_tar(tmp_path / "a.tar", {"k.jpg": b"x" * 900, "l.jpg": b"y" * 300})
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(GeoBindError, match=rf"a\.tar is cut off after {keep:,} bytes: download"):
        Pairs.from_shards(shard)
    assert not (tmp_path / "cache").exists(), "nothing half-written"


def test_a_member_that_is_lacking_is_counted_and_the_row_stays(tmp_path: Path) -> None:
    folder = write_sat2cap(tmp_path / "s", samples=4, broken=True)
    with pytest.warns(GeoBindWarning, match=r"4 of 16 samples lack the member groundlevel\.jpg, such as '40"):
        pairs = Pairs.from_folder(folder)
    assert pairs[1]["image"] is None
    assert len(pairs.having(["satellite", "image"])) == 12


def test_a_member_twice_and_keys_in_two_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "twice.tar", [("k.jpg", b"1"), ("k.jpeg", b"2")])
    with pytest.raises(GeoBindError, match=r"'k\.jpeg' twice .* one key a sample"):
        Pairs.from_folder(tmp_path / "a")
    for name in "xy":
        write_tar(tmp_path / "b" / f"{name}.tar", {"k.jpg": b"1"})
    with pytest.warns(GeoBindWarning, match="1 keys are in several shards, such as 'k'"):
        Pairs.from_folder(tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no tar at all" * 100, "no tar archive"), (b"", "no tar archive"), (None, "does not exist")],
)
def test_what_is_no_shard(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.tar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GeoBindError, match=message):
        Pairs.from_shards(str(path))


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"k.jpg": b"1", "k.json": b"{lat: 1}"})
    with pytest.raises(GeoBindError, match=r"member k\.json is no JSON object .* write it again"):
        Pairs.from_shards(tmp_path / "a.tar")


def test_a_recipe_trains_from_shards_and_skips_what_is_broken(tmp_path: Path) -> None:
    """Readers, workers, target cache and replacement of unreadable rows, end to end."""
    folder = write_sat2cap(tmp_path / "s", samples=12)
    path = folder / f"{SAT2CAP_TRAIN[0]}.tar"
    pairs = Pairs.from_shards(path)
    content = bytearray(path.read_bytes())
    where = pairs[3]["image"]
    content[where.offset : where.offset + 200] = bytes(200)
    path.write_bytes(content)
    tower = {"tower": "small", "size": 32, "width": 64}
    recipe = {
        "dim": 64, "towers": {"satellite": tower, "image": tower},
        "pairs": {"p": {"folder": str(folder)}},
        "stages": [{"learner": "satellite", "target": "image", "pairs": "p", "epochs": 1, "batch_size": 8}],
        "evaluations": [{"between": ["satellite", "image"], "pairs": "p"}],
    }  # fmt: skip
    reports: list[BindReport] = []
    parsed = Recipe.parse(recipe)
    with pytest.warns(GeoBindWarning, match=f"at byte {where.offset} of .* cannot be decoded"):
        space = parsed.run(tmp_path / "out", progress=False, report=reports.append)
    assert reports[0].rows == 23
    metrics = evaluate(space, parsed.open_evaluations())
    assert metrics.rows[0]["recall@10"] > 0


STREAM = """
import sys, torch
from geobind import GeoBind, Pairs, Stage, bind
from geobind.towers.base import build_tower
torch.manual_seed(0)
towers = [build_tower("small", modality=m, dim=64, size=32, width=64) for m in ("satellite", "image")]
stage = Stage(learner="satellite", target="image", pairs=Pairs.from_shards(sys.argv[1]), epochs=8, batch_size=8,
              validation=0, cache_targets=False)
space = GeoBind(64, towers)
bind(space, stage, out=sys.argv[2], progress=False, workers=0)
print(space.fingerprint("satellite"))
"""


def test_a_stream_keeps_its_position_through_a_kill(tmp_path: Path) -> None:
    """A run over HTTP, killed and started again, asks for no row of the epochs that it has behind it."""
    folder = write_sat2cap(tmp_path / "s", samples=24)
    root, name = Path(__file__).parents[2], f"{SAT2CAP_TRAIN[0]}.tar"
    with serving(folder) as server:

        def start(out: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", STREAM, server.url(name), str(tmp_path / out)]
            server.requests.clear()
            return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)

        whole, _ = start("whole").communicate()
        asked = len(server.requests)
        assert asked >= 8 * 2 * 24
        killed = start("cut")
        while not (tmp_path / "cut" / "checkpoints.json").exists():
            assert killed.poll() is None
            time.sleep(0.005)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        resumed, _ = start("cut").communicate()
        assert resumed == whole != ""
        assert len(server.requests) <= asked - 2 * 24
