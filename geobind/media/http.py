"""Bytes over HTTP by range, with the standard library: retried where a connection breaks off, checked always."""

from __future__ import annotations

import http.client
import io
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from geobind.errors import GeoBindError, MediaError

ATTEMPTS = 4
_TIMEOUT = 60  # seconds without a byte
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def is_url(source: str) -> bool:
    """Is it an address that `read_url` reads, and no path."""
    return source.startswith(("http://", "https://"))


FAILURES = (OSError, http.client.HTTPException)
"""What a connection that fails raises: it may be tried again."""


def attempts() -> Iterator[int]:
    """The numbers of some attempts at one request, each after a longer pause."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.2 * 2**attempt)
        yield attempt


def failure_reason(error: Exception) -> str:
    """What went wrong with a connection, in words."""
    return str(getattr(error, "reason", None) or error) or type(error).__name__


@contextmanager
def opened_url(url: str, start: int = 0, stop: int | None = None) -> Iterator[http.client.HTTPResponse]:
    """An open response with the bytes of a URL from `start` to before `stop` (None: the end).

    The header Range is sent unless all of it is asked for; the caller looks at the status: 206 is the range,
    200 is a server that ignores ranges and sends everything. Raises GeoBindError for a refusal (403, 404),
    OSError and HTTPException where the connection fails: those may be tried again.
    """
    headers = {"User-Agent": "geobind"}
    if start or stop is not None:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code == 429:
            raise ConnectionError(f"status {error.code}") from None
        raise GeoBindError(
            f"{url}: the server answers {error.code} {error.reason}: check the address, and whether it asks for a login"
        ) from None
    with response:
        yield response


def read_url(url: str, offset: int, size: int, total: int | None = None) -> bytes:
    """`size` bytes of a URL from `offset`, by range requests; goes on where a connection breaks off.

    total: bytes of the whole file where they are known; another number means that the file has changed.
    Raises MediaError for a server that ignores ranges, sends others, or fails four times in a row.
    """
    parts, reason = bytearray(), ""
    for _ in attempts():
        try:
            with opened_url(url, offset + len(parts), offset + size) as response:
                check_range(url, response, offset + len(parts), total)
                while piece := response.read(min(1 << 20, size - len(parts))):
                    parts += piece
        except FAILURES as error:
            reason = failure_reason(error)
            if isinstance(error, http.client.IncompleteRead):
                parts += error.partial
        if len(parts) >= size:
            return bytes(parts[:size])
    raise MediaError(
        f"{url}: {len(parts)} of {size} bytes at {offset} came, after {ATTEMPTS} attempts "
        f"({reason or 'the connection breaks off'}): try later, or download the file"
    )


def check_range(url: str, response: http.client.HTTPResponse, start: int, total: int | None) -> int:
    """The size of the whole file, from a response that begins at `start`.

    Raises MediaError where the server ignored the range, sent another one, or the file is no longer of `total` bytes.
    """
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status != 206 or match is None:
        raise MediaError(
            f"{url}: the server ignores ranges (status {response.status}), so rows cannot be read from it: "
            f"download the file and give its path"
        )
    size = -1 if match[3] == "*" else int(match[3])
    if int(match[1]) != start or (total is not None and size not in (-1, total)):
        raise MediaError(
            f"{url}: bytes from {match[1]} of {match[3]}, expected from {start} of {total}: the file has changed "
            f"since its index was made, or the server is wrong; delete the index (geobind doctor shows the cache)"
        )
    return size


class RangeFile(io.RawIOBase):
    """A URL as a seekable file for reading; only what is read is asked for. Wrap it in `io.BufferedReader`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.size = self._probe()
        self._position = 0

    def _probe(self) -> int:
        for _ in attempts():
            try:
                with opened_url(self.url, 0, 1) as response:
                    return check_range(self.url, response, 0, None)
            except FAILURES as error:
                reason = failure_reason(error)
        raise MediaError(f"{self.url} cannot be reached ({reason}): check the address and the network")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self.size - self._position))
        if count:
            buffer[:count] = read_url(self.url, self._position, count, self.size)
            self._position += count
        return count
