"""The report is one well-formed file that loads nothing, says what is simulated, and escapes what it is given."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from geobind.binding.report import BindReport
from geobind.demo.elements import bar, curve, picture, player
from geobind.demo.maps import ClassMap, Panel
from geobind.demo.page import SWAP, Neighbours, Place, Results, page, write_page
from geobind.demo.run import RECIPE
from geobind.errors import GeoBindError, MediaError
from geobind.retrieval.report import Report
from geobind.towers.base import check_options, tower_class

NASTY = """<script>alert("1")</script> & 'co'"""
VOID = {"meta", "img", "br", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Tags that open and close, attributes by tag, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def row(query: str, gallery: str, *, trained: bool = False, protocol: str = "partner", **extra) -> dict:
    names = {
        "partner": ("recall@1", "recall@10", "median_rank", "mrr"),
        "group": ("map", "precision@10"),
    }[protocol]
    metrics = dict.fromkeys(names, 0.625) | ({"median_rank": 7.0} if protocol == "partner" else {})
    return {
        "pairs": "earth", "protocol": protocol, "query": query, "gallery": gallery, "split": "test",
        "trained": trained, "unreadable": 0, "queries": 1234, "gallery_size": 999, "shared_with_train": {},
        **metrics, "low": dict.fromkeys(names, 0.5), "high": dict.fromkeys(names, 0.75),
        "chance": dict.fromkeys(names, 0.01), **extra,
    }  # fmt: skip


@pytest.fixture
def results(tmp_path) -> Results:
    maps, view, sound = tmp_path / "maps.png", tmp_path / "view.jpg", tmp_path / "sound.flac"
    for path in (maps, view):
        Image.new("RGB", (8, 8), "green").save(path)
    soundfile.write(sound, np.zeros(800, np.float32), 16_000)
    tile = np.zeros((8, 8, 3), np.uint8)
    whole = Place(
        -3.1, -60.0, NASTY, tile, view, sound, [NASTY, "dense jungle"], {"rain": NASTY}, {"cover": NASTY}
    )  # fmt: skip
    bare = Place(80.0, 170.0, satellite=tile)
    base = {
        "baseline_name": NASTY,
        "baseline": {"recall@1": 0.1, "recall@10": 0.125, "median_rank": 80.0, "mrr": 0.1},
    }
    report = Report([
        row("satellite", "image", trained=True, **base),
        row("text", "satellite", unreadable=3, shared_with_train={"text": 17}, **{**base, "baseline": None}),
        row("audio", "text", protocol="group"),
    ])  # fmt: skip
    return Results(
        seed=7,
        places={"test": 30, "train": 1200},
        maps=maps,
        panels=[
            Panel(NASTY, "text", np.zeros(1)),
            Panel("surf", "sound", np.zeros(1), (np.zeros(800, np.float32), 16_000)),
        ],
        classes=[ClassMap("ice", NASTY, 0.875, 0.75, 0.029), ClassMap("water", "sea", 0.5, np.nan, 0.7)],
        report=report,
        ceilings={("satellite", "image"): (0.8, 0.75), ("text", "satellite"): (0.0, 0.5)},
        stages=[
            BindReport("stand-in", 900, 90, losses=[4.0, 3.0], recalls=[0.1, 0.4], best_epoch=1,
                       temperatures={"image-text": 0.07}),
            BindReport(NASTY, 900, 0, losses=[2.0]),
        ],
        examples=[whole, bare],
        neighbours=[
            Neighbours("text", NASTY, "satellite", [(0.81, whole), (0.25, bare)]),
            Neighbours("satellite", whole, "image", [(0.5, whole)], right=0),
            Neighbours("audio", whole, "audio", [(0.5, bare), (0.4, whole)]),
            Neighbours("location", whole, "environment", [(0.5, whole)]),
        ],
        seconds={"make the Earth": 12.5, NASTY: None},
        recipe=f"dim: 64  # {NASTY}",
        machine="2 cores",
    )  # fmt: skip


def test_page_is_well_formed_and_fills_every_place(results):
    html = page(results)
    parsed = Page(html)
    assert not parsed.open
    assert not re.search(r"\$\w", html)
    ids = {attributes["id"] for _, attributes in parsed.found if "id" in attributes}
    links = {a["href"] for tag, a in parsed.found if tag == "a"}
    assert {link[1:] for link in links if link.startswith("#")} <= ids


def test_nothing_is_loaded_from_outside(results):
    html = page(results)
    parsed = Page(html)
    assert not {tag for tag, _ in parsed.found} & {"script", "link", "iframe", "object", "base"}
    sources = [a["src"] for _, a in parsed.found if "src" in a]
    assert len(sources) >= 8
    assert all(source.startswith("data:") for source in sources)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    outside = [a for _, a in parsed.found if any("http" in str(value) for value in a.values())]
    assert all(set(a) == {"href"} for a in outside)  # links that a reader may follow


def test_what_comes_from_outside_is_escaped(results):
    html = page(results)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 10
    assert not [a for _, a in Page(html).found if any(name.startswith("on") for name in a)]


def test_whatever_is_simulated_or_composed_says_so(results):
    html = page(results)
    assert "Ground-level views and sounds are rendered by a program" in Page(html).text
    # A badge stands in the same card, strip or list of sounds as every view, sound and caption.
    card, _, strips = html[html.index('id="places"') :].partition('id="neighbours"')
    assert card.count('<img class="view"') == 1
    assert card.count("<audio") == 1
    assert card.count("SIMULATED") >= 2
    assert card.count("COMPOSED") >= 1
    asked = strips.partition('id="real-weights"')[0].split('<div class="asked">')[1:]
    assert len(asked) == 4
    for block in asked:
        simulated = 'class="view"' in block or "<audio" in block
        assert ("SIMULATED" in block) == simulated
    sounds = html[html.index('<div class="sounds">') : html.index("Against the real")]
    assert sounds.count("SIMULATED") == sounds.count("<audio") == 1
    for start in ('id="training"', 'id="real-weights"', 'id="retrieval"'):
        assert "SIMULATED" in html[html.index(start) :].partition("<h2")[0]


def test_numbers_stand_in_the_page(results):
    text = Page(page(results)).text
    assert "0.625 [0.500, 0.750]" in text
    assert "3 unreadable" in text
    assert "17 text also in train" in text
    assert "0.800 (78\xa0%) 0.750 (83\xa0%)".replace("\xa0", " ") in text  # of the ceiling
    assert "12 % (5.0 times it)" in text  # of the baseline
    assert "Group protocol" in text
    assert "1,230 places (1,200 train, 30 test)" in text
    assert "12.5 s" in text
    assert "nan" not in text


def test_parts_may_be_missing(results):
    less = replace(
        results, panels=[], classes=[], ceilings={}, stages=[], examples=[], neighbours=[], report=Report([])
    )
    assert not Page(page(less)).open


def test_write(results, tmp_path):
    path = write_page(tmp_path, results)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == page(results)
    with pytest.raises(GeoBindError, match="cannot write"):
        write_page(tmp_path / "missing", results)


def test_media_keep_their_content(results, tmp_path):
    def content(html: str) -> bytes:
        return base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])

    place = results.examples[0]
    assert content(picture(place.image, "view")) == place.image.read_bytes()
    assert content(player(place.audio, "sound")) == place.audio.read_bytes()
    tile = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    (tmp_path / "tile.png").write_bytes(content(picture(tile, "tile")))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "tile.png")), tile)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(MediaError, match=r"notes\.txt"):
        picture(tmp_path / "notes.txt", "notes")


def test_curve_and_bar():
    drawn = curve([4.0, 2.0, 3.0], "loss", best=1, low=0)
    points = np.array([p.split(",") for p in re.search(r'points="([^"]+)"', drawn)[1].split()], float)
    assert (np.diff(points[:, 0]) > 0).all()
    assert (points[1:, 1] > points[0, 1]).all()  # lower values stand lower
    assert f'cx="{points[1, 0]:.1f}" cy="{points[1, 1]:.1f}"' in drawn
    assert "<polyline" in curve([1.0], "one epoch")
    assert "<polyline" in curve([2.0, 2.0], "flat")
    assert 'width:100.0%"' in bar(1.7)


def test_the_lines_for_the_real_weights_are_those_of_the_recipe_and_name_towers_that_exist():
    recipe = RECIPE.read_text(encoding="utf-8")
    lines = yaml.safe_load(SWAP)
    for modality, options in lines["towers"].items():
        kind = options.pop("tower")
        check_options(kind, tower_class(kind, modality), options)
        assert f"{modality}: {{tower: {kind}, weights: {options['weights']}}}" in recipe
    assert f"space of {lines['dim']}" in recipe
