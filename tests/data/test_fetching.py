"""`geobind data fetch` downloads what its host lists, whole or not at all.

* The bytes are those of the host; md5, sha256 and git digests are checked; files in place are not fetched again;
* a download goes on where it broke off: connection by connection, after a real kill -9, or from the start where
  the server knows no ranges;
* wrong bytes are refused and nothing is kept; licence and size come before the question; what cannot be had is told.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geobind import GeoBindError
from geobind.cli import app
from geobind.data.fetching import download
from geobind.data.releases import find_release
from tests.data.conftest import CONTENT
from tests.server import Server


def test_a_hub_data_set_arrives_whole_and_once(host: Server, tmp_path: Path) -> None:
    release = find_release("hub:owner/name")
    assert (release.licence, len(release.files)) == ("cc-by-4.0", 5)
    assert {file.checksum.partition(":")[0] for file in release.files} == {"sha256", "git"}
    paths = download(release, tmp_path / "out")
    source = tmp_path / "host" / "datasets" / "owner" / "name" / "resolve" / "main"
    for path in paths:
        assert path.read_bytes() == (source / path.relative_to(tmp_path / "out")).read_bytes()
    host.requests.clear()
    download(release, tmp_path / "out")
    assert host.requests == []
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_connection_that_breaks_off_goes_on(host: Server, tmp_path: Path) -> None:
    release = find_release("soundingearth-zenodo")
    host.break_off = 50_000
    host.requests.clear()
    download(release, tmp_path)
    assert (tmp_path / "metadata.csv").read_bytes() == CONTENT
    assert (tmp_path / "empty").read_bytes() == b""
    assert host.requests == [None, *(f"bytes={n}-" for n in range(50_000, len(CONTENT), 50_000)), None]


def test_a_killed_download_goes_on_where_it_was(host: Server, tmp_path: Path) -> None:
    host.pause_after = 100_000
    code = f"from geobind.data.fetching import download; from geobind.data.releases import find_release\ndownload(find_release('zenodo:5600379'), {str(tmp_path / 'out')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    part = tmp_path / "out" / "metadata.csv.part"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    host.pause_after = None
    kept = part.stat().st_size
    assert 0 < kept <= 100_000
    assert not (tmp_path / "out" / "metadata.csv").exists()
    host.requests.clear()
    download(find_release("zenodo:5600379"), tmp_path / "out")
    assert f"bytes={kept}-" in host.requests
    assert (tmp_path / "out" / "metadata.csv").read_bytes() == CONTENT


def test_without_ranges_it_starts_over(host: Server, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv.part").write_bytes(b"x" * 1000)
    host.ranges = False
    download(find_release("zenodo:5600379"), tmp_path)
    assert (tmp_path / "metadata.csv").read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_nothing_is_kept(host: Server, tmp_path: Path) -> None:
    release = find_release("zenodo:5600379")
    host.wrong = True
    with pytest.raises(
        GeoBindError, match=r"metadata\.csv: the server sent other bytes .* nothing of it is kept"
    ):
        download(release, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    host.wrong = False
    (tmp_path / "out" / "metadata.csv.part").write_bytes(b"x" * (len(CONTENT) + 5))
    with pytest.raises(GeoBindError, match="204805 bytes"):
        download(release, tmp_path / "out")
    download(release, tmp_path / "out")
    assert (tmp_path / "out" / "metadata.csv").read_bytes() == CONTENT


def test_a_server_that_sends_nothing_is_told_with_what_is_kept(host: Server, tmp_path: Path) -> None:
    release = find_release("zenodo:5600379")
    (tmp_path / "metadata.csv.part").write_bytes(CONTENT[:5000])
    host.break_off = 0
    with pytest.raises(GeoBindError, match=r"no byte came in 4 attempts .* 5\.0 kB of 205 kB are kept"):
        download(release, tmp_path)
    assert (tmp_path / "metadata.csv.part").read_bytes() == CONTENT[:5000]


def test_the_command_shows_licence_and_size_and_asks(host: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["data", "fetch", "zenodo:5600379", "--out", str(out)]
    refused = CliRunner().invoke(app, arguments, input="n\n")
    assert refused.exit_code == 1
    assert "Licence: cc-by-sa-4.0" in refused.output
    assert "205 kB to download" in refused.output
    assert not out.exists()
    run = CliRunner().invoke(app, arguments, input="y\n")
    assert run.exit_code == 0, run.output
    assert "checksums are right" in run.output
    assert (out / "metadata.csv").read_bytes() == CONTENT
    assert CliRunner().invoke(app, arguments).exit_code == 0, "complete: nothing to ask"
    listed = CliRunner().invoke(app, ["data", "fetch"])
    assert "hub:MVRL/GeoSound" in listed.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sat2cap", "Bing imagery, whose terms forbid .* use instead"),
        ("geosoud", "did you mean 'geosound'"),
        ("hub:owner/absent", "404"),
        ("hub:owner", "hub:owner/name or zenodo:number"),
    ],
)
def test_what_cannot_be_had(host: Server, name: str, message: str) -> None:
    with pytest.raises(GeoBindError, match=message):
        find_release(name)


def test_a_host_that_lists_other_folders_or_is_away(host: Server, tmp_path: Path, monkeypatch) -> None:
    record = tmp_path / "host" / "api" / "records" / "5600379"
    record.write_text(record.read_text().replace('"metadata.csv"', '"../metadata.csv"'))
    with pytest.raises(GeoBindError, match="outside the folder: refused"):
        find_release("zenodo:5600379")
    record.write_text("<html>")
    with pytest.raises(GeoBindError, match="does not answer with JSON"):
        find_release("zenodo:5600379")
    monkeypatch.setenv("ZENODO_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(GeoBindError, match="cannot be reached"):
        find_release("zenodo:5600379")
