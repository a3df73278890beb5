"""Files and folders that are whole or not there, whenever a process is killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from geobind.errors import GeoBindError


def cache_folder() -> Path:
    """Where targets of frozen towers and indexes of shards are kept: $GEOBIND_CACHE, else the user's cache folder."""
    base = os.environ.get("GEOBIND_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "geobind"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path`, whose file takes its name when the block ends well and is removed when it does not.

    >>> with replacing(Path("index.parquet")) as temporary:
    ...     pq.write_table(table, temporary)

    So a file is whole or not there, also where several processes write it. Raises what `writing` raises.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old content or the new."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise GeoBindError where a file or folder cannot be written: permission, a full disk, a folder in its place."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise GeoBindError(
            f"cannot write {path} ({getattr(error, 'strerror', None) or error}): free space, or choose another place"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, {} where there is no such file. Raises GeoBindError for one that is broken."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GeoBindError(f"{path} cannot be read ({error}): save the space again") from None


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside `target` and swap; a crash leaves the old one, perhaps under `.old`."""
    new, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    write(new)
    recover_folder(target)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Undo a swap that was cut off between its two renames."""
    old = target.with_name(target.name + ".old")
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, target)
