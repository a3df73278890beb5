"""Retrieval in the report: a matrix of all directions, and the tables of both protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from geobind.demo.elements import table

if TYPE_CHECKING:
    from geobind.retrieval.report import Row

Ceilings = Mapping[tuple[str, str], tuple[float, float]]  # (query, gallery) to what `ceiling` returns
MODALITIES = ("satellite", "image", "text", "audio", "location", "environment")
_PROTOCOLS = (
    (
        "partner",
        "right is what was observed at the same place",
        {"recall@1": "R@1", "recall@10": "R@10", "median_rank": "median rank", "mrr": "MRR"},
    ),
    ("group", "right is what has a group in common", {"map": "mAP", "precision@10": "P@10"}),
)


def percent(value: float) -> str:
    """A share for the eye: "4.2 %", "58 %"."""
    return f"{100 * value:.{1 if value < 0.1 else 0}f}\xa0%"


def kind(row: Row) -> str:
    """Whether a stage linked the two modalities; also the name of the colour in the style sheet."""
    return "trained" if row["trained"] else "emergent"


def find(rows: Sequence[Row], query: str, gallery: str) -> Row | None:
    """A direction under the partner protocol."""
    found = (
        row
        for row in rows
        if row["protocol"] == "partner" and (row["query"], row["gallery"]) == (query, gallery)
    )
    return next(found, None)


def matrix(rows: Sequence[Row]) -> str:
    """Recall@10 of every direction: queries down, galleries across."""
    known = {row[side] for row in rows for side in ("query", "gallery")}
    names = [*(name for name in MODALITIES if name in known), *sorted(known.difference(MODALITIES))]

    def cell(query: str, gallery: str) -> str:
        row = find(rows, query, gallery)
        if row is None:
            return "<td></td>"
        value, low, high, chance = (
            values["recall@10"] for values in (row, row["low"], row["high"], row["chance"])
        )
        title = f"{query} to {gallery}, {kind(row)}: {value:.3f} [{low:.3f}, {high:.3f}], chance {chance:.3f}"
        return (
            f'<td class="{kind(row)}" style="--share:{value:.3f}" title="{escape(title)}">'
            f"{value:.2f}<small>chance {chance:.2f}</small></td>"
        )

    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = "".join(
        f"<tr><td>{escape(query)}</td>{''.join(cell(query, gallery) for gallery in names)}</tr>"
        for query in names
    )
    return (
        '<div class="scroll"><table class="matrix">'
        f"<thead><tr><th>query &darr; gallery &rarr;</th>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def protocols(rows: Sequence[Row], ceilings: Ceilings) -> str:
    """Every direction of each protocol, with interval, chance, baseline and ceiling."""
    parts = []
    for protocol, right, metrics in _PROTOCOLS:
        shown = [row for row in rows if row["protocol"] == protocol]
        if not shown:
            continue
        main = "recall@10" if protocol == "partner" else "map"
        limits = ceilings if protocol == "partner" else {}
        head = ["query &rarr; gallery", "queries", *metrics.values(), f"chance<small>{metrics[main]}</small>"]
        if any(row.get("baseline") for row in shown):
            head.append(f"baseline<small>{metrics[main]}</small>")
        if limits:
            head.append(f"ceiling<small>{metrics[main]}, (reached)</small>")
        lines = [_line(row, list(metrics), main, limits) for row in shown]
        parts.append(
            f"<h3>{protocol.capitalize()} protocol: {right}</h3>"
            '<p class="small soft">Values, and their 95 % intervals below.</p>'
            + table(head, [line[: len(head)] for line in lines])
        )
    return "".join(parts)


def _line(row: Row, metrics: Sequence[str], main: str, ceilings: Ceilings) -> list[str]:
    def number(metric: str, value: float) -> str:
        return f"{value:,.0f}" if metric == "median_rank" else f"{value:.3f}"

    cells = [
        f"{escape(row['query'])} &rarr; {escape(row['gallery'])}<small>{kind(row)}</small>",
        f"{row['queries']:,}<small>of {row['gallery_size']:,}</small>{_warnings(row)}",
    ]
    for metric in metrics:
        low, high = (number(metric, row[end][metric]) for end in ("low", "high"))
        value = number(metric, row[metric])
        cells.append(f"{f'<b>{value}</b>' if metric == main else value}<small>[{low}, {high}]</small>")
    cells.append(number(main, row["chance"][main]))
    if "baseline" in row:
        cells.append(number(main, row["baseline"][main]) if row["baseline"] else "")
    if ceilings:
        ceiling = ceilings.get((row["query"], row["gallery"]))
        cells.append("" if ceiling is None else _share_of(row[main], ceiling))
    return cells


def _warnings(row: Row) -> str:
    """What a reader must know of the items."""
    found = [
        f"{count:,} {escape(name)} also in train" for name, count in row["shared_with_train"].items() if count
    ]
    if row["unreadable"]:
        found.append(f"{row['unreadable']:,} unreadable")
    return "".join(f"<small>{text}</small>" for text in found)


def _share_of(recall: float, ceiling: tuple[float, float]) -> str:
    """The ceiling with ties at the expected rank, and below it in random order; and how much of each was reached."""
    first, second = (
        f"{value:.3f} ({100 * recall / value:.0f}\xa0%)" if value else "0.000" for value in ceiling
    )
    return f"{first}<small>{second}</small>"


def note(rows: Sequence[Row], ceilings: Ceilings) -> str:
    """What baseline and ideal observer are."""
    names = sorted({row["baseline_name"] for row in rows if row.get("baseline")})
    parts = [f"Baseline: {escape(name)}." for name in names]
    if ceilings:
        parts.append(
            "Ceiling: an ideal observer, who reads without error those attributes of a place that an item shows and "
            "knows nothing else. Places that are alike in them tie, so it does not find all either: above, its "
            "recall where ties share their expected rank, below where they are put in random order; in "
            "brackets, how much of it was reached."
        )
    return f'<p class="small soft">{" ".join(parts)}</p>' if parts else ""
