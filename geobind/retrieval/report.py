"""What `evaluate` found: as a table for the eye, as Markdown, as a figure and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from geobind.retrieval.metrics import GROUP_METRICS, PARTNER_METRICS
from geobind.retrieval.published import PUBLISHED_METRICS
from geobind.storage import replacing, write_text, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]

_METRICS = {"partner": PARTNER_METRICS, "published": PUBLISHED_METRICS, "group": GROUP_METRICS}
_SHOWN = {
    "partner": ("recall@1", "recall@10", "median_rank", "mrr"),
    "published": ("recall@10", "recall@100", "median_rank"),
    "group": GROUP_METRICS,
}
_RIGHT = {
    "partner": "right = what was observed at the same place",
    "published": "right = the other half of the row; R@k counts ranks below k, as the papers do",
    "group": "right = what has a group in common",
}
_SHORT = {"median_rank": "MedR", "mrr": "MRR", "ndcg@10": "nDCG@10", "map": "mAP", "precision@10": "P@10"}
_HEIGHT = {  # inches
    "partner": lambda rows: 4 + 0.12 * rows,
    "published": lambda rows: 4 + 0.12 * rows,
    "group": lambda rows: 1.8 + 0.4 * rows,
}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito, for all eyes

_EXPLAINED = """\
- **R@k**: share of the queries that find a right answer among the first k of the gallery.
- **MedR**: median rank, at which half of the queries have found their first right answer; 1 is best.
- **MRR**: mean of 1 / rank of the first right answer.
- **nDCG@10**: mean of 1 / log2(1 + rank) of the first right answer, 0 beyond rank 10.
- **R@10%**: R@k at a tenth of the gallery (published protocol, which counts ranks below k everywhere).
- **mAP**: mean over queries of the average precision of the whole ranking.
- **P@10**: share of right answers among the first 10.
- **95 % interval**: the middle 95 % of the metric when queries are drawn again with replacement.
- **Chance**: what a random order of the same gallery gives in expectation.
- **Emergent**: no stage has trained the two modalities together; **trained**: one has.

Queries / gallery counts the items that ask and those that are searched. Items that tie share the expected rank.
"""


@dataclass(frozen=True)
class Report:
    """The rows of an evaluation, one a direction and pairs set; docs/evaluation.md describes their fields.

    >>> report = evaluate(space, evaluations)
    >>> rich.print(*report.tables())
    >>> report.write("runs/geobind")           # metrics.json, metrics.md, recall.png
    >>> Report(json.loads(Path("runs/geobind/metrics.json").read_text())) == report
    True
    """

    rows: list[Row]

    def tables(self) -> list[Table]:
        """One rich table a protocol, for a terminal of 100 columns or more (80 will do)."""
        return [_table(protocol, rows) for protocol, rows in self._by_protocol()]

    def to_markdown(self) -> str:
        """All metrics with intervals and chance, and a sentence for each."""
        parts = ["# Retrieval"]
        for protocol, rows in self._by_protocol():
            parts.append(f"## {protocol.capitalize()} protocol ({_RIGHT[protocol]})")
            parts.append("\n".join(_markdown(protocol, rows)))
            parts += [note for row in rows if (note := _note(row))]
        return "\n\n".join([*parts, "## What the numbers are", _EXPLAINED])

    def to_json(self) -> str:
        """The rows, as strict JSON."""
        return json.dumps(self.rows, indent=2, allow_nan=False) + "\n"

    def figure(self) -> Figure:
        """Recall over k, and mean average precision for the group protocol: a panel a protocol."""
        from matplotlib.figure import Figure

        panels = self._by_protocol()
        height = max((_HEIGHT[protocol](len(rows)) for protocol, rows in panels), default=1)
        figure = Figure(figsize=(6.8 * max(len(panels), 1), height), layout="constrained", dpi=150)
        for position, (protocol, rows) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), position + 1)
            (_draw_map if protocol == "group" else _draw_recall)(axes, rows)
        return figure

    def write(self, folder: str | Path) -> None:
        """Write `metrics.json`, `metrics.md` and `recall.png`; a crash leaves the former ones whole.

        Raises GeoBindError where the folder cannot be written.
        """
        folder = Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "metrics.json", self.to_json())
        write_text(folder / "metrics.md", self.to_markdown())
        with replacing(folder / "recall.png") as temporary:
            self.figure().savefig(temporary, format="png")

    def _by_protocol(self) -> list[tuple[str, list[Row]]]:
        found = (
            (protocol, [row for row in self.rows if row["protocol"] == protocol]) for protocol in _METRICS
        )
        return [(protocol, rows) for protocol, rows in found if rows]


# --- words -------------------------------------------------------------------------------------------------


def _label(metric: str) -> str:
    return _SHORT.get(metric) or metric.replace("recall@", "R@")


def _number(metric: str, value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0") if metric == "median_rank" else f"{value:.3f}"


def _interval(metric: str, row: Row) -> str:
    return f"[{_number(metric, row['low'][metric])}, {_number(metric, row['high'][metric])}]"


def _direction(row: Row) -> str:
    return f"{row['query']} → {row['gallery']}"


def _pairs(row: Row) -> str:
    """The pairs set, with its split where that is not the usual one."""
    return row["pairs"] if row["split"] == "test" else f"{row['pairs']} ({row['split'] or 'all rows'})"


def _kind(row: Row) -> str:
    return "trained" if row["trained"] else "emergent"


def _compared(row: Row) -> Iterator[tuple[str, dict[str, float]]]:
    """What stands beside the values: chance and, where there is one, the baseline."""
    yield "chance", row["chance"]
    if row.get("baseline") is not None:
        yield row["baseline_name"], row["baseline"]


def _note(row: Row) -> str:
    """What a reader must know of one direction's items."""
    shared = ", ".join(f"{n:,} {modality}" for modality, n in row["shared_with_train"].items() if n)
    parts = [
        f"items also in the train split: {shared}" if shared else "",
        f"items left out as unreadable: {row['unreadable']:,}" if row["unreadable"] else "",
    ]
    text = "; ".join(part for part in parts if part)
    return f"{_direction(row)}, {_pairs(row)}: {text}." if text else ""


# --- tables ------------------------------------------------------------------------------------------------


def _table(protocol: str, rows: Sequence[Row]) -> Table:
    table = Table(
        title=f"\n{protocol.capitalize()} protocol: {_RIGHT[protocol]}",
        caption="value [95 % interval]; chance is a random order of the gallery",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("Query → gallery")
    table.add_column("Queries", justify="right")
    for metric in _SHOWN[protocol]:
        table.add_column(_label(metric), justify="right", overflow="fold")
    for row in rows:
        kind = (_kind(row), "green" if row["trained"] else "yellow")
        cells: list[Text] = [
            Text.assemble(_direction(row), "\n", (f"{_pairs(row)}, ", "dim"), kind),
            Text.assemble(f"{row['queries']:,}", (f"\nof {row['gallery_size']:,}", "dim")),
        ]
        for metric in _SHOWN[protocol]:
            # Without its space, for a narrow terminal must not break the interval.
            interval = _interval(metric, row).replace(" ", "")
            cell = Text.assemble((_number(metric, row[metric]), "bold"), f" {interval}")
            for name, values in _compared(row):
                cell.append(f"\n{name} {_number(metric, values[metric])}", "dim")
            cells.append(cell)
        table.add_row(*cells)
    return table


def _markdown(protocol: str, rows: Sequence[Row]) -> Iterator[str]:
    metrics = _METRICS[protocol]
    head = ["Query → gallery", "Pairs", "Queries / gallery", "", *map(_label, metrics)]
    yield _line(head)
    yield _line(["---"] * 4 + ["---:"] * len(metrics))
    for row in rows:
        size = f"{row['queries']:,} / {row['gallery_size']:,}"
        values = [f"**{_number(metric, row[metric])}**" for metric in metrics]
        yield _line([f"**{_direction(row)}**", _pairs(row), size, _kind(row), *values])
        yield _line(["", "", "", "95 % interval", *(_interval(metric, row) for metric in metrics)])
        for name, numbers in _compared(row):
            yield _line(["", "", "", name, *(_number(metric, numbers[metric]) for metric in metrics)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# --- figure ------------------------------------------------------------------------------------------------


def _draw_recall(axes: Axes, rows: Sequence[Row]) -> None:
    """Recall over k: a colour for each pair, a marker for each direction, chance dashed."""
    colours: dict[tuple[str, ...], str] = {}
    for row in rows:
        pair = (row["pairs"], str(row["split"]), *sorted((row["query"], row["gallery"])))
        second = pair in colours
        colour = colours.setdefault(pair, _COLOURS[len(colours) % len(_COLOURS)])
        recalls = [m.removeprefix("recall@") for m in _METRICS[row["protocol"]] if m.startswith("recall@")]
        cuts = [int(k) for k in recalls if k.isdigit() and int(k) <= row["gallery_size"]]
        if not cuts:  # published, and fewer than five items
            continue

        def along(values: dict[str, float], cuts: list[int] = cuts) -> list[float]:
            return [values[f"recall@{k}"] for k in cuts]

        axes.fill_between(cuts, along(row["low"]), along(row["high"]), color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            cuts, along(row), color=colour, linewidth=1.8, marker="s" if second else "o", markersize=6,
            markerfacecolor="white" if second else colour, label=f"{_direction(row)}  ({_pairs(row)}, {_kind(row)})",
        )  # fmt: skip
        # With one right answer chance is linear in k, so it bends on this axis; with several it nearly is.
        dense = np.geomspace(cuts[0], cuts[-1], 100)
        chance = np.interp(dense, cuts, along(row["chance"]))
        axes.plot(dense, chance, color=colour, linewidth=1.1, linestyle="--", alpha=0.8)
        if row.get("baseline") is not None:
            axes.plot(cuts, along(row["baseline"]), color=colour, linewidth=1.1, linestyle=":", alpha=0.8)
    axes.plot([], [], color="0.4", linewidth=1.1, linestyle="--", label="chance")
    for name in {row["baseline_name"]: None for row in rows if row.get("baseline") is not None}:
        axes.plot([], [], color="0.4", linewidth=1.1, linestyle=":", label=name)
    ticks = [1, 5, 10, 50, 100]
    axes.set_xscale("log")
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel("k")
    axes.set_title(f"Recall@k, {rows[0]['protocol']} protocol", loc="left", fontsize=11)
    _finish(axes, grid="both")


def _draw_map(axes: Axes, rows: Sequence[Row]) -> None:
    """A bar of mean average precision a direction, with interval and chance."""
    places = list(range(len(rows)))[::-1]
    for place, row in zip(places, rows, strict=True):
        value, low, high = row["map"], row["low"]["map"], row["high"]["map"]
        axes.barh(place, value, height=0.62, color=_COLOURS[0] if row["trained"] else _COLOURS[4], alpha=0.85)
        axes.plot([low, high], [place, place], color="0.15", linewidth=1.4)
        axes.plot(
            [row["chance"]["map"]] * 2,
            [place - 0.4, place + 0.4],
            color="0.15",
            linewidth=1.4,
            linestyle="--",
        )
        if row.get("baseline") is not None:
            axes.plot(
                row["baseline"]["map"], place, marker="D", markersize=5, color="white", markeredgecolor="0.15"
            )
        axes.text(1.02, place, f"{value:.2f}", va="center", fontsize=8.5)
    for trained in (True, False):
        if any(row["trained"] == trained for row in rows):
            colour, name = (
                (_COLOURS[0], "trained") if trained else (_COLOURS[4], "emergent: never trained together")
            )
            axes.barh([0], [0], color=colour, alpha=0.85, label=name)
    axes.plot([], [], color="0.15", linewidth=1.4, label="95 % interval")
    axes.plot([], [], color="0.15", linewidth=1.4, linestyle="--", label="chance")
    for name in {row["baseline_name"]: None for row in rows if row.get("baseline") is not None}:
        axes.plot(
            [], [], marker="D", markersize=5, color="white", markeredgecolor="0.15", linestyle="", label=name
        )
    axes.set_yticks(places, labels=[f"{_direction(row)}\n{_pairs(row)}" for row in rows], fontsize=8.5)
    axes.set_xlim(0, 1)
    axes.set_title("Mean average precision, group protocol", loc="left", fontsize=11)
    _finish(axes, grid="x")


def _finish(axes: Axes, grid: Literal["both", "x"]) -> None:
    from matplotlib.transforms import ScaledTranslation

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    below = axes.transAxes + ScaledTranslation(0, -0.38, axes.figure.dpi_scale_trans)  # inches
    axes.legend(
        frameon=False, fontsize=8.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below
    )  # fmt: skip
