"""Pieces of the report: pictures and sounds inside the file, tables, bars and curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from geobind.errors import MediaError

Picture = Path | NDArray[np.uint8]  # a file, or (h, w, 3)
Sound = Path | tuple[NDArray[np.float32], int]  # a file, or samples and their rate

SIMULATED = '<span class="badge simulated" title="rendered by a program; no photograph, no recording">SIMULATED</span>'
COMPOSED = '<span class="badge composed" title="put together from what is really there">COMPOSED</span>'
REAL = '<span class="badge real">REAL</span>'
_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
    ".ogg": "audio/ogg", ".flac": "audio/flac", ".wav": "audio/wav", ".mp3": "audio/mpeg",
}  # fmt: skip


def picture(value: Picture, alt: str, kind: str = "") -> str:
    """An image inside the page; `kind` is its class in the style sheet."""
    if isinstance(value, Path):
        source = _file(value)
    else:
        file = io.BytesIO()
        Image.fromarray(value).save(file, format="PNG")
        source = _data("image/png", file.getvalue())
    return f'<img class="{kind}" src="{source}" alt="{escape(alt)}">'


def player(value: Sound, label: str) -> str:
    """A player with its sound inside the page."""
    if isinstance(value, Path):
        source = _file(value)
    else:
        file = io.BytesIO()
        soundfile.write(file, *value, format="WAV", subtype="PCM_16")
        source = _data("audio/wav", file.getvalue())
    return f'<audio controls preload="none" src="{source}" aria-label="{escape(label)}"></audio>'


def _file(path: Path) -> str:
    kind = _TYPES.get(path.suffix.lower())
    if kind is None:
        raise MediaError(f"{path.name} is no image or sound that browsers show: {', '.join(_TYPES)}")
    return _data(kind, path.read_bytes())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1, kind: str = "") -> str:
    """A table of HTML cells that scrolls sideways where it must; the first `words` columns are not numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{'' if column < words else ' class=number'}>{cell}</{tag}>"
            for column, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{line('td', cells)}</tr>" for cells in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{line("th", head)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def bar(share: float, *, mark: float | None = None, kind: str = "") -> str:
    """A horizontal bar, `share` of its width full, with a mark at another share (chance, say)."""
    line = f'<i style="left:{100 * mark:.1f}%"></i>' if mark is not None else ""
    return f'<span class="bar {kind}"><b style="width:{100 * min(max(share, 0), 1):.1f}%"></b>{line}</span>'


def curve(values: Sequence[float], name: str, *, best: int | None = None, low: float | None = None) -> str:
    """Values by epoch as a line, `best` ringed; the axis begins at `low`, or below the least value."""
    wide, high, left, right, top, bottom = 300, 150, 44, 10, 12, 34
    least, most = min(values) if low is None else low, max(values)
    span = (most - least) or 1.0

    def at(epoch: int, value: float) -> tuple[float, float]:
        along = epoch / (len(values) - 1) if len(values) > 1 else 0.5
        return left + along * (wide - left - right), top + (1 - (value - least) / span) * (
            high - top - bottom
        )

    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(epoch, value) for epoch, value in enumerate(values)))
    parts = []
    for value in (least, (least + most) / 2, most):
        y = at(0, value)[1]
        parts.append(f'<line class="rule" x1="{left}" x2="{wide - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for epoch in sorted({0, len(values) - 1}):
        parts.append(
            f'<text x="{at(epoch, least)[0]:.1f}" y="{high - 18}" text-anchor="middle">{epoch + 1}</text>'
        )
    parts.append(f'<text x="{(left + wide - right) / 2}" y="{high - 4}" text-anchor="middle">epoch</text>')
    parts.append(f'<polyline points="{points}"/>')
    if best is not None:
        x, y = at(best, values[best])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
    label = f"{name} by epoch, from {values[0]:.3f} to {values[-1]:.3f}"
    return f'<svg class="curve" viewBox="0 0 {wide} {high}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
