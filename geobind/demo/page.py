"""The report of the demo: one HTML file that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from geobind.data.earth.world import SOURCES
from geobind.demo.elements import (
    COMPOSED,
    REAL,
    SIMULATED,
    Picture,
    Sound,
    bar,
    curve,
    picture,
    player,
    table,
)
from geobind.demo.maps import position
from geobind.demo.tables import Ceilings, find, kind, matrix, note, percent, protocols
from geobind.storage import write_text, writing

if TYPE_CHECKING:
    from geobind.binding.report import BindReport
    from geobind.demo.maps import ClassMap, Panel
    from geobind.retrieval.report import Report

TEMPLATE = Path(__file__).with_name("report.html")
PAGE = "report.html"
_BADGES = {"image": SIMULATED, "audio": SIMULATED, "text": COMPOSED}

# What the recipe says in place of the stand-ins where the real weights can be downloaded.
SWAP = """\
dim: 512
towers:
  image: {tower: clip, weights: openai/clip-vit-base-patch32}
  text: {tower: clip, weights: openai/clip-vit-base-patch32}
  satellite: {tower: clip, weights: openai/clip-vit-base-patch32}
  audio: {tower: clap, weights: laion/clap-htsat-fused}
"""


@dataclass(frozen=True)
class Place:
    """What is known of one place; None or empty for a modality that it lacks.

    `near` says where it is in words ("149 km from Barcelos", from `maps.place_name`). `environment` and
    `attributes` are shown as they are: {"rain": "2,300 mm a year"}, {"cover": "rainforest"}.
    """

    latitude: float
    longitude: float
    near: str = ""
    satellite: Picture | None = None
    image: Picture | None = None
    audio: Sound | None = None
    captions: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Neighbours:
    """One query and the best of a gallery: `found` are (cosine, place), the best first.

    `query` is a sentence (text), or the place whose `modality` asks. `gallery` names the modality that was
    searched, which is shown of every place found. `right` says which of them is the query's own place.

    >>> Neighbours("text", "sand dunes", "satellite", [(0.81, place), (0.79, other)])
    """

    modality: str
    query: str | Place
    gallery: str
    found: Sequence[tuple[float, Place]]
    right: int | None = None


@dataclass(frozen=True)
class Results:
    """Everything that `write_page` shows; the sections of the page are in the order of the fields.

    * `places`: number of places by split, {"train": 9000, "val": 500, "test": 1500};
    * `maps`: the PNG that `draw_maps` wrote, and `panels` what it shows (for the players of the sounds);
    * `classes`: the area under the ROC curve of each land-cover class;
    * `report`: what `evaluate` returned, with the baseline; both protocols if it holds both;
    * `ceilings`: (query, gallery) to recall@10 of the ideal observer, as `ceiling` returns it: ties at the
      expected rank, ties in random order;
    * `stages`: what `bind` returned, in order;
    * `seconds`: step to its wall time, in order; None for what an earlier run had left;
    * `recipe`: the text of the recipe; `machine`: "2 cores, Python 3.11, torch 2.13".
    """

    seed: int
    places: Mapping[str, int]
    maps: Path
    panels: Sequence[Panel]
    classes: Sequence[ClassMap]
    report: Report
    ceilings: Ceilings
    stages: Sequence[BindReport]
    examples: Sequence[Place]
    neighbours: Sequence[Neighbours]
    seconds: Mapping[str, float | None]
    recipe: str
    machine: str


def write_page(folder: str | Path, results: Results) -> Path:
    """Write `report.html` into a folder and return its path.

    Raises GeoBindError where it cannot be written, and for a picture or sound that is not there.
    """
    path = Path(folder) / PAGE
    with writing(path):
        content = page(results)
    write_text(path, content)
    return path


def page(results: Results) -> str:
    """The report as HTML; whatever comes from outside (queries, captions, names) is escaped."""
    order = ("train", "val", "test")
    count = {name: results.places[name] for name in order if name in results.places} | dict(results.places)
    splits = ", ".join(f"{number:,} {escape(split)}" for split, number in count.items())
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        real=REAL,
        composed=COMPOSED,
        simulated=SIMULATED,
        stage_count=len(results.stages),
        machine=escape(results.machine),
        place_count=f"{sum(count.values()):,} places ({splits})",
        figures=_figures(results),
        maps=picture(results.maps, "World maps: " + "; ".join(panel.query for panel in results.panels)),
        sounds=_sounds(results.panels),
        classes=_classes(results.classes),
        matrix=matrix(results.report.rows),
        tables=protocols(results.report.rows, results.ceilings),
        note=note(results.report.rows, results.ceilings),
        stages=_stages(results.stages),
        places="".join(["<div class=cards>", *map(_place, results.examples), "</div>"]),
        neighbours="".join(map(_neighbours, results.neighbours)),
        swap=escape(SWAP),
        recipe=escape(results.recipe),
        seed=results.seed,
        times=_times(results.seconds),
        sources=table(
            ["what", "from", "read from the package", "licence"],
            [[escape(word) for word in (s.what, s.credit, s.package, s.licence)] for s in SOURCES],
            words=4,
        ),
    )


# --- figures and tables ------------------------------------------------------------------------------------


def _figures(results: Results) -> str:
    """The headline numbers, of those directions that were evaluated."""
    cards = []
    for query, gallery in (("satellite", "image"), ("text", "satellite"), ("audio", "text")):
        row = find(results.report.rows, query, gallery)
        if row is None:
            continue
        beside = {"chance": percent(row["chance"]["recall@10"])}
        if row.get("baseline"):
            base = row["baseline"]["recall@10"]
            times = f" ({row['recall@10'] / base:.1f} times it)" if base else ""
            beside["baseline"] = percent(base) + times
        if (query, gallery) in results.ceilings:
            limit = results.ceilings[query, gallery][0]
            share = f" ({percent(row['recall@10'] / limit)} reached)" if limit else ""
            beside["ceiling"] = percent(limit) + share
        cards.append(
            f'<div class="card"><p>{query} &rarr; {gallery} <span class="soft">({kind(row)})</span></p>'
            f"<strong>{percent(row['recall@10'])}</strong>"
            f'<p class="small soft">recall@10 of {row["gallery_size"]:,}</p>{_facts(beside)}</div>'
        )
    if results.classes:
        areas = sorted(found.auc for found in results.classes)
        cards.append(
            f'<div class="card"><p>text &rarr; world map</p><strong>{np.median(areas):.2f}</strong>'
            f'<p class="small soft">median AUC of {len(areas)} land-cover classes against MODIS</p>'
            f"{_facts({'chance': '0.5', 'range': f'{areas[0]:.2f} to {areas[-1]:.2f}'})}</div>"
        )
    return f'<div class="cards figures">{"".join(cards)}</div>'


def _classes(classes: Sequence[ClassMap]) -> str:
    rows = [
        [
            escape(found.name),
            f"&ldquo;{escape(found.sentence)}&rdquo;",
            bar(found.auc, mark=0.5, kind="emergent"),
            f"{found.auc:.3f}",
            "" if found.auc_on_land != found.auc_on_land else f"{found.auc_on_land:.3f}",  # NaN for water
            percent(found.share),
        ]
        for found in sorted(classes, key=lambda found: -found.auc)
    ]
    return table(["class", "sentence", "", "AUC", "on land", "of the Earth"], rows, words=3)


def _times(seconds: Mapping[str, float | None]) -> str:
    known = [value for value in seconds.values() if value is not None]
    longest = max(known, default=0) or 1.0
    rows = [
        [
            escape(step),
            "" if value is None else bar(value / longest),
            "kept" if value is None else f"{value:,.1f} s",
        ]
        for step, value in seconds.items()
    ]
    return table(
        ["step", "", "time"], [*rows, ["<b>all together</b>", "", f"<b>{sum(known):,.1f} s</b>"]], words=2
    )


def _stages(stages: Sequence[BindReport]) -> str:
    cards = []
    for number, report in enumerate(stages, 1):
        links = ", ".join(escape(pair.replace("-", " ↔ ")) for pair in report.temperatures)
        facts = [
            f"{report.rows:,} rows",
            f"{len(report.losses)} epochs",
            f"{report.seconds:,.0f} s",
            *(f"temperature {value:.3f}" for value in report.temperatures.values()),
        ]
        charts = ""
        if report.losses:
            charts += f"<div><h4>loss</h4>{curve(report.losses, 'loss', best=report.best_epoch)}</div>"
        if report.recalls:
            chart = curve(report.recalls, "validation recall@10", best=report.best_epoch, low=0)
            charts += f"<div><h4>validation recall@10</h4>{chart}</div>"
        cards.append(
            f'<div class="card"><p><b>{number}. {escape(report.stage)}</b> <span class="soft">{links}</span></p>'
            f'<div class="curves">{charts}</div><p class="small soft">{"; ".join(facts)}</p></div>'
        )
    return f'<div class="cards wide">{"".join(cards)}</div>'


# --- places ------------------------------------------------------------------------------------------------


def _sounds(panels: Sequence[Panel]) -> str:
    """The sounds that the maps were asked with."""
    players = [
        f"<div><p class=small>{escape(panel.query)} {SIMULATED}</p>{player(panel.sound, panel.query)}</div>"
        for panel in panels
        if panel.sound is not None and panel.kind == "sound"
    ]
    return f'<div class="sounds">{"".join(players)}</div>' if players else ""


def _shown(place: Place, modality: str) -> str:
    """What a place has of one modality, without caption."""
    value: Any = getattr(place, modality, None)
    where = position(place.latitude, place.longitude)
    if modality == "location":
        return f"<p>{where}</p>"
    if modality == "environment":
        return _facts(place.environment)
    if modality == "text":
        return "".join(f"<blockquote>{escape(caption)}</blockquote>" for caption in place.captions)
    if value is None:
        return ""
    if modality == "audio":
        return player(value, f"simulated sound of {where}")
    tile = modality == "satellite"
    return picture(
        value, f"{'satellite tile' if tile else 'simulated view'} of {where}", "tile" if tile else "view"
    )


def _facts(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in facts.items())}</dl>"


def _place(place: Place) -> str:
    parts = [
        f"<p><b>{position(place.latitude, place.longitude)}</b> "
        f'<span class="soft">{escape(place.near)}</span></p>'
    ]
    sights = [
        f"<figure>{shown}<figcaption>{words} {badge}</figcaption></figure>"
        for modality, words, badge in (("satellite", "tile", REAL), ("image", "view", SIMULATED))
        if (shown := _shown(place, modality))
    ]
    parts.append(f'<div class="sights">{"".join(sights)}</div>')
    if place.audio is not None:
        parts.append(f'<p class="small">sound {SIMULATED}</p>{_shown(place, "audio")}')
    if place.captions:
        parts.append(
            f'<p class="small">{"caption" if len(place.captions) == 1 else "captions"} {COMPOSED}</p>'
        )
        parts.append(_shown(place, "text"))
    if place.environment:
        parts.append(f'<p class="small">position, climate, elevation {REAL}</p>{_facts(place.environment)}')
    if place.attributes:
        words = " &middot; ".join(f"{escape(k)}: {escape(v)}" for k, v in place.attributes.items())
        parts.append(f'<p class="small soft">{words}</p>')
    return f'<div class="card">{"".join(parts)}</div>'


def _neighbours(found: Neighbours) -> str:
    badge = _BADGES.get(found.modality, REAL)
    if isinstance(found.query, str):
        query = f"<p><b>&ldquo;{escape(found.query)}&rdquo;</b></p>"
    else:
        where = escape(found.query.near) or position(found.query.latitude, found.query.longitude)
        query = f'{_shown(found.query, found.modality)}<p class="small soft">{where} {badge}</p>'
    strip = []
    for rank, (score, place) in enumerate(found.found):
        words = [f"{score:.2f}", escape(place.near) or position(place.latitude, place.longitude)]
        if "cover" in place.attributes:
            words.insert(1, escape(place.attributes["cover"]))
        if rank == found.right:
            words.append("<b>the same place</b>")
        strip.append(
            f"<figure{' class=right' if rank == found.right else ''}>{_shown(place, found.gallery)}"
            f"<figcaption>{' &middot; '.join(words)}</figcaption></figure>"
        )
    return (
        f'<div class="asked"><div class="query"><p class="small">{escape(found.modality)} &rarr; '
        f"{escape(found.gallery)} {_BADGES.get(found.gallery, REAL)}</p>{query}</div>"
        f'<div class="strip">{"".join(strip)}</div></div>'
    )
