"""What geobind raises when the user can mend it: one line that says what was given, expected and to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class GeoBindError(Exception):
    """A mistake in input, recipe or set-up; its message is one line with the remedy."""


class MediaError(GeoBindError):
    """One value (a file, a vector, a sentence) that cannot be read; others may be fine."""


class Terminated(GeoBindError):
    """SIGTERM came, and what is done so far is kept; the command line exits with 75 ("try again")."""


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


def first_problem(error: ValidationError, keys_at: Callable[[list[str]], Iterable[str]]) -> str:
    """The first of pydantic's errors in one line that names the key.

    `keys_at` gives the keys known at a place (the keys that lead to it), for the nearest to a misspelt one.
    """
    first = error.errors()[0]
    *path, last = [str(part) for part in first["loc"]] or [""]
    where = ".".join([*path, last])
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}{did_you_mean(last, keys_at(path))}"
    if first["type"] == "missing":
        return f"the key {where!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}, got {shorten(first['input'])}" if where else message


class GeoBindWarning(UserWarning):
    """Something the user should know and may go on with: one line, like an error's."""
