"""What geobind raises when the user can mend it: one line that says what was given, expected and to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GeoBindError(Exception):
    """A mistake in input, recipe or set-up; its message is one line with the remedy."""


class MediaError(GeoBindError):
    """One value (a file, a vector, a sentence) that cannot be read; others may be fine."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """The end of an error message: the nearest of `options`, else all of them.

    >>> did_you_mean("satelite", ["satellite", "text"])
    "; did you mean 'satellite'?"
    """
    options = list(options)
    near = difflib.get_close_matches(name, options, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(options)) or 'none'}"


def shorten(value: object, length: int = 80) -> str:
    """`repr` of a value, on one line and short enough for a message."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= length else text[: length - 3] + "..."


class GeoBindWarning(UserWarning):
    """Something the user should know and may go on with: one line, like an error's."""
