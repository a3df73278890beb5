"""A file that lies inside a larger one, such as a member of a tar shard: where it is, until it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass

from geobind.errors import MediaError
from geobind.media.http import is_url, read_url


@dataclass(frozen=True)
class Stored:
    """`size` bytes at `offset` of a path or URL that has `total` bytes; a value wherever a path is one.

    Rows hold these in place of the bytes, so that rows are light, travel to loader workers, and only what a
    processor asks for is read: one seek, or one range request.

    >>> load_image(pairs[0]["satellite"])    # Stored('shards/000.tar', offset=512, size=48_211, total=...)
    """

    source: str
    offset: int
    size: int
    total: int

    def __bytes__(self) -> bytes:
        """The bytes. Raises MediaError where the file is gone, or has changed since it was indexed."""
        if is_url(self.source):
            return read_url(self.source, self.offset, self.size, self.total)
        try:
            with open(self.source, "rb", buffering=0) as file:
                found = os.fstat(file.fileno()).st_size
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise MediaError(f"{self.source} cannot be read ({error.strerror}): put the file back") from None
        if found != self.total:
            raise MediaError(
                f"{self.source} has {found} bytes, but {self.total} when it was indexed: start again with the "
                f"file as it is now"
            )
        return content

    def identity(self) -> str:
        """What tells it from other files: its source with size and time, and its place in it."""
        if is_url(self.source):
            return repr(self)
        time = os.stat(self.source).st_mtime_ns if os.path.exists(self.source) else 0
        return f"{os.path.abspath(self.source)} {time} {self!r}"
