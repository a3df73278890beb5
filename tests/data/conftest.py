"""A host of published data on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from geobind.data import fetching
from geobind.media import http
from scripts.make_replicas import write_hub
from tests.server import Server, serving

CONTENT = bytes(range(256)) * 800


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a Hub data set, owner/name, in two pages, and a Zenodo record, 5600379."""
    root = tmp_path / "host"
    folder = write_hub(root / "datasets" / "owner" / "name" / "resolve" / "main", rows=8, seconds=4.0)
    (folder / "README.md").write_text("a card")
    (root / "api" / "records").mkdir(parents=True)
    (root / "files").mkdir()
    (root / "files" / "metadata.csv").write_bytes(CONTENT)
    (root / "files" / "empty").touch()
    with serving(root) as server:
        entries = [{"type": "directory", "path": "data"}]
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                entry = {"type": "file", "size": len(content), "path": path.relative_to(folder).as_posix()}
                entry["oid"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
                if path.suffix == ".parquet":
                    entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
                entries.append(entry)
        api = root / "api" / "datasets" / "owner"
        (api / "name" / "tree").mkdir(parents=True)
        (api / "name" / "tree" / "main").write_text(json.dumps(entries[:3]))
        (api / "name" / "tree" / "more").write_text(json.dumps(entries[3:]))
        server.documents["/api/datasets/owner/name"] = json.dumps(
            {"cardData": {"license": "cc-by-4.0"}}
        ).encode()
        server.links["/api/datasets/owner/name/tree/main"] = server.url("api/datasets/owner/name/tree/more")
        md5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
        files = [
            {"key": "metadata.csv", "size": len(CONTENT), "checksum": md5, "links": {"self": server.url("files/metadata.csv")}},
            {"key": "empty", "size": 0, "links": {"self": server.url("files/empty")}},
        ]  # fmt: skip
        record = {"files": files, "metadata": {"title": "Sounds", "license": {"id": "cc-by-sa-4.0"}}}
        (root / "api" / "records" / "5600379").write_text(json.dumps(record))
        monkeypatch.setenv("HF_ENDPOINT", server.url("").rstrip("/"))
        monkeypatch.setenv("ZENODO_ENDPOINT", server.url("").rstrip("/"))
        for module in (fetching, http):
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None))
        server.requests.clear()
        yield server
