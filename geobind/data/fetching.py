"""Downloads that go on where they broke off and keep nothing that is not what the host's checksum says."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geobind.console import progress_bar, size_text
from geobind.data.releases import Release, RemoteFile
from geobind.errors import GeoBindError, MediaError
from geobind.media.http import ATTEMPTS, FAILURES, check_range, failure_reason, opened_url
from geobind.storage import writing

_PIECE = 1 << 20


def missing_files(release: Release, folder: Path) -> list[RemoteFile]:
    """The files that a folder does not hold yet. A file has its name only when its checksum was right."""
    return [file for file in release.files if _size(folder / file.path) != file.size]


def download(release: Release, folder: str | Path, *, progress: bool = False) -> list[Path]:
    """Download what a folder lacks of a release; the paths of all its files.

    Each file grows as `<name>.part`, from which the next call goes on, and gets its name when size and
    checksum are right. Raises GeoBindError for too little space and for a connection that fails four times
    without a byte (what came is kept), and for wrong bytes (which are not kept).
    """
    folder = Path(folder)
    wanted = missing_files(release, folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    parts = sum(_size(_part(folder, file)) or 0 for file in wanted)
    needed, free = sum(file.size for file in wanted) - parts, shutil.disk_usage(folder).free
    if needed > free:
        raise GeoBindError(
            f"{release.name} needs {size_text(needed)} and {folder} has {size_text(free)} free: give another folder"
        )
    with progress_bar(disable=not progress) as bar:
        task = bar.add_task(f"{release.name} (MB)", total=release.size / 1e6, note="")
        bar.update(task, completed=(release.size - needed) / 1e6)
        for file in wanted:
            bar.update(task, note=file.path)
            _fetch(file, folder, lambda count: bar.advance(task, count / 1e6))
    return [folder / file.path for file in release.files]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _part(folder: Path, file: RemoteFile) -> Path:
    return folder / f"{file.path}.part"


def _fetch(file: RemoteFile, folder: Path, advance: Callable[[int], Any]) -> None:
    target, part = folder / file.path, _part(folder, file)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    failures, reason = 0, ""
    while (_size(part) or 0) < file.size or not part.exists():
        before = _size(part) or 0
        try:
            _append(file, part, advance)
        except FAILURES as error:
            reason = failure_reason(error)
        if (_size(part) or 0) > before:
            failures = 0
            continue
        failures += 1
        if part.exists() and file.size == 0:
            break
        if failures == ATTEMPTS:
            raise GeoBindError(
                f"{file.url}: no byte came in {ATTEMPTS} attempts ({reason or 'the connection breaks off'}), "
                f"{size_text(before)} of {size_text(file.size)} are kept: the same command goes on from there"
            )
        time.sleep(0.5 * 2**failures)
    _check(file, part)
    with writing(target):
        os.replace(part, target)


def _append(file: RemoteFile, part: Path, advance: Callable[[int], Any]) -> None:
    """One response, onto what is there; from the start where the server ignores ranges."""
    start = _size(part) or 0
    with opened_url(file.url, start) as response:
        mode = "ab"
        if start:
            if response.status == 206:
                try:
                    check_range(file.url, response, start, file.size)
                except MediaError:
                    part.unlink()  # of another version of the file
                    raise ConnectionError("the file has changed") from None
            else:
                mode = "wb"
                advance(-start)
        with open(part, mode, buffering=0) as out:  # what came is there, whenever this process ends
            while piece := response.read1(_PIECE):
                out.write(piece)
                advance(len(piece))


def _check(file: RemoteFile, part: Path) -> None:
    """Size and checksum of a finished file. Raises GeoBindError, and removes it, where they are wrong."""
    size = part.stat().st_size
    found, expected = f"{size} bytes", f"{file.size} bytes"
    if size == file.size and file.checksum is not None:
        kind, _, expected = file.checksum.partition(":")
        found = _digest(part, kind, size)
    if found != expected:
        part.unlink()
        raise GeoBindError(
            f"{file.url}: the server sent other bytes than its checksum says ({found[:16]} instead of {expected[:16]}): "
            f"nothing of it is kept; try again, and tell the host if it stays so"
        )


def _digest(path: Path, kind: str, size: int) -> str:
    """`git` is the SHA-1 of a git blob, by which the Hub lists small files."""
    digest = hashlib.sha1(f"blob {size}\0".encode()) if kind == "git" else hashlib.new(kind)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
