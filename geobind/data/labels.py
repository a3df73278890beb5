"""Labels as text: the words of a class's name, and the wordings in which it is put."""

from __future__ import annotations

import re
from collections.abc import Sequence

from geobind.errors import GeoBindError, shorten


def check_templates(templates: Sequence[str]) -> None:
    """Raises GeoBindError where one of the templates has no place for the text."""
    if isinstance(templates, str) or not templates or any("{}" not in template for template in templates):
        raise GeoBindError(f"templates are {shorten(templates)}: give a list; each needs a {{}} for the text")


def label_words(name: str) -> str:
    """A label as people write it; one that has spaces stays as it is.

    >>> label_words("DenseResidential"), label_words("sea_waves"), label_words("New Cabo")
    ('dense residential', 'sea waves', 'New Cabo')
    """
    if " " in name:
        return name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name).lower()
