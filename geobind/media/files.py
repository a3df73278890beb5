"""What all media have in common: a value that is a file, and the errors when it cannot be read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from geobind.errors import MediaError, shorten
from geobind.media.stored import Stored

AGAIN = "copy or download it again, or remove its row"


def describe(value: object) -> str:
    """The name of a value in a message: its path, or its size and shape."""
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, Stored):
        return f"at byte {value.offset} of {value.source}"
    if isinstance(value, bytes):
        return f"of {len(value)} bytes"
    return f"array of shape {value.shape}" if isinstance(value, np.ndarray) else shorten(value)


@contextmanager
def opened(value: str | Path | bytes | Stored, noun: str) -> Iterator[BinaryIO]:
    """A path, bytes or a stored file as an open binary file at its start; `noun` ("image") goes into the message.

    Raises MediaError for a path that is missing or cannot be opened, for an empty file, and where the disk or the
    network fails while it is read.
    """
    content = bytes(value) if isinstance(value, bytes | Stored) else None
    try:
        file: BinaryIO = Path(value).open("rb") if content is None else io.BytesIO(content)  # type: ignore[arg-type]  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(
            f"{noun} {describe(value)} does not exist: check the path, and the root of relative paths"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{noun} {describe(value)} cannot be opened ({reason}): give a readable file"
        ) from None
    with file:
        try:
            if not file.read(1):
                raise MediaError(f"{noun} {describe(value)} is empty: {AGAIN}")
            file.seek(0)
            yield file
        except OSError as error:
            reason = error.strerror or error
            raise MediaError(f"{noun} {describe(value)} cannot be read ({reason}): {AGAIN}") from None


def unreadable(noun: str, value: object, reason: object) -> MediaError:
    """The error for a value that is there and cannot be decoded."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return MediaError(f"{noun} {describe(value)} cannot be decoded ({text}): {AGAIN}")
