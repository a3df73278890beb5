"""Search gives what brute force gives, within what the filters keep; the index gives the recall that is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from geobind import Filter, GeoBindError, Query, Term, search
from geobind.gallery import index as index_module
from geobind.gallery.index import build_index, probes_for
from geobind.gallery.page import write_page
from geobind.gallery.schema import Origin, rows
from geobind.gallery.store import Gallery
from geobind.retrieval.query import percentile
from geobind.retrieval.scores import calibrate, score
from tests.gallery.conftest import DIM, ORIGIN, N

QUERY = np.random.default_rng(5).normal(size=DIM)
ISLANDS = {"type": "Polygon", "coordinates": [[[150, -60], [-150, -60], [-150, 60], [150, 60], [150, -60]]]}


def sources(results):
    return [hit.source for hit in results]


def test_exact_search_is_brute_force(gallery, known):
    for k in (1, 10, 100, N, N + 5):
        results = search(None, gallery, QUERY, k=k)
        assert sources(results) == known.best(QUERY, k=k)
    row = known.sources.index(results[0].source)
    assert results[0].score == pytest.approx(known.vectors[row] @ QUERY / np.linalg.norm(QUERY), abs=1e-6)
    assert (results[0].latitude, results[0].longitude) == (known.latitude[row], known.longitude[row])
    assert results.searched == N


@pytest.mark.parametrize(
    ("keep", "inside"),
    [
        (Filter(bbox=(-20, -10, 60, 50)), lambda t: (t.longitude >= -20) & (t.longitude <= 60) & (t.latitude >= -10) & (t.latitude <= 50)),
        (Filter(bbox=(150, -60, -150, 60)), lambda t: (np.abs(t.longitude) >= 150) & (np.abs(t.latitude) <= 60)),
        (Filter(polygon=ISLANDS), lambda t: (np.abs(t.longitude) >= 150) & (np.abs(t.latitude) <= 60)),
        (Filter(polygon=json.dumps(ISLANDS)), lambda t: (np.abs(t.longitude) >= 150) & (np.abs(t.latitude) <= 60)),
        (Filter(time=("2021", "2021")), lambda t: t.times.astype("datetime64[Y]") == np.datetime64("2021")),
        (Filter(time=("2021-03-04", None)), lambda t: t.times >= np.datetime64("2021-03-04")),
        (Filter(time=(None, "2020-02")), lambda t: t.times < np.datetime64("2020-03-01")),
        (Filter(where="source LIKE 'tile_1%'", bbox=(-90, -90, 90, 90)), lambda t: np.array([s.startswith("tile_1") for s in t.sources]) & (np.abs(t.longitude) <= 90)),
        (Filter(modality="satellite"), lambda t: np.ones(N, bool)),
    ],
)  # fmt: skip
def test_filters_keep_what_they_say_however_many_that_is(gallery, known, keep, inside):
    mask = inside(known) & True
    results = search(None, gallery, QUERY, filter=keep)
    assert results.searched == mask.sum()
    assert sources(results) == known.best(QUERY, mask)


def test_a_filter_that_keeps_nothing_gives_no_hits(gallery):
    for keep in (Filter(modality="audio"), Filter(bbox=(0, 89, 1, 90)), Filter(time=("1999", "2000"))):
        results = search(None, gallery, QUERY, filter=keep)
        assert (len(results), results.searched) == (0, 0)
    assert json.loads(results.to_geojson())["features"] == []


def test_what_was_added_is_found_at_once(gallery, known):
    search(None, gallery, QUERY)
    gallery.add(rows(QUERY[None], origin=ORIGIN, sources=["new"], locations=[(1, 2)]))
    assert sources(search(None, gallery, QUERY, k=1)) == ["new"]


def test_both_kinds_of_and_are_of_the_percentiles_within_the_filter(gallery, known):
    other = np.random.default_rng(6).normal(size=DIM)
    mask = np.abs(known.longitude) <= 90
    shares = [percentile((known.vectors @ (v / np.linalg.norm(v)))[mask]) for v in (QUERY, other)]
    for combine, wanted in (("product", shares[0] * shares[1]), ("minimum", np.minimum(*shares))):
        query = Query([Term("vector", QUERY), Term("vector", other)], combine)
        results = search(None, gallery, query, filter=Filter(bbox=(-90, -90, 90, 90)), k=5)
        np.testing.assert_allclose([hit.score for hit in results], np.sort(wanted)[::-1][:5], atol=0.01)


def test_queries_of_every_modality_that_meets_the_gallery(space, tmp_path):
    gallery = Gallery(tmp_path / "gallery")
    files = []
    for name in "abcdefgh":
        (tmp_path / name).write_text(name * 30)
        files.append(str(tmp_path / name))
    gallery.add(
        rows(
            space.embed("satellite", [tmp_path / n for n in "abcdefgh"]),
            origin=Origin.of(space, "satellite"),
            sources=files,
        )
    )
    assert search(space, gallery, f"satellite:{files[3]}", k=1)[0].source == files[3]
    for query in ("ccc", "+text:ccc -location:1,2@0.3", " ".join(["word"] * 10_000)):
        vector = Query.parse(query).vector(space)
        assert sources(search(space, gallery, query)) == sources(search(None, gallery, vector))


def test_the_index_reaches_the_recall_it_is_asked_for(tmp_path, monkeypatch, run):
    monkeypatch.setattr(index_module, "SMALLEST", 1000)
    monkeypatch.setattr(index_module, "FEW", 100)
    monkeypatch.setattr("geobind.gallery.search.FEW", 100)
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(3000, 6)) @ rng.normal(size=(6, 32)) + 0.1 * rng.normal(size=(3000, 32))
    places = np.stack([rng.uniform(-80, 80, 3000), rng.uniform(-180, 180, 3000)], axis=1)
    gallery = Gallery(tmp_path / "g")
    gallery.add(rows(hidden, origin=ORIGIN, sources=[str(i) for i in range(3000)], locations=places))
    with pytest.raises(GeoBindError, match="has no index"):
        search(None, gallery, hidden[0], recall=0.9)
    status, out, _ = run("gallery", gallery.uri, "--index")
    assert status == 0
    assert "filters keep 100%" in out
    assert "filters keep 10%" in out
    assert probes_for(gallery, 0.9, 1.0) <= probes_for(gallery, 0.95, 1.0) <= 16
    assert probes_for(gallery, 0.9, 0.001) is None  # so few are compared one by one
    for keep in (None, Filter(bbox=(100, -90, -100, 90)), Filter(polygon=ISLANDS)):
        shares = []
        for query in hidden[:20] + rng.normal(size=(20, 32)):
            exact = set(sources(search(None, gallery, query, filter=keep)))
            shares.append(
                len(exact & set(sources(search(None, gallery, query, filter=keep, recall=0.95)))) / 10
            )
        assert np.mean(shares) >= 0.93
    gallery.add(rows(-hidden[:1], origin=ORIGIN, sources=["new"]))
    assert sources(search(None, gallery, -hidden[0], k=1, recall=0.9)) == ["new"]
    with pytest.raises(GeoBindError, match="give a share between"):
        search(None, gallery, hidden[0], recall=98)


def test_scores_of_the_results_are_those_of_all_rows(space, tmp_path, run):
    """Through the command line: logit and probability by the pair's temperature, percentile after calibrating."""
    words = [a + b for a in "abcdefgh" for b in "abcdefgh"]
    gallery = Gallery(tmp_path / "g", space=str(tmp_path / "space"))
    vectors = space.embed("text", words)
    gallery.add(rows(vectors, origin=Origin.of(space, "text"), sources=words))
    calibrate(space, {"location": space.embed("location", [(i, 2 * i) for i in range(40)]), "text": vectors})
    space.temperatures["location", "text"] = 0.1
    space.save_pretrained(tmp_path / "space")
    cosines = space.similarity(space.embed("location", [(3.0, 4.0)]), vectors)[0]
    order = np.argsort(-cosines)[:5]

    def scores(*options):
        status, out, error = run("search", gallery.uri, "location:3,4", "-k", 5, "--json", *options)
        return [hit["score"] for hit in json.loads(out)] if status == 0 else error

    np.testing.assert_allclose(scores(), cosines[order], atol=1e-6)
    for kind, tolerance in (("logit", 1e-5), ("percentile", 1e-6), ("probability", 1e-3)):
        wanted = score(space, ("location", "text"), cosines, kind)[order]
        np.testing.assert_allclose(scores("--score", kind), wanted, rtol=tolerance)
    few = np.flatnonzero([word < "b" for word in words])
    wanted = np.sort(score(space, ("location", "text"), cosines[few], "probability"))[::-1][:5]
    np.testing.assert_allclose(scores("--score", "probability", "--where", "source < 'b'"), wanted, rtol=1e-3)
    assert scores("--score", "probability", "--modality", "audio") == []
    assert "leave out recall" in scores("--score", "probability", "--recall", 0.9)
    del space.temperatures["location", "text"]
    space.calibration.clear()
    space.save_pretrained(tmp_path / "space")
    assert "never calibrated" in scores("--score", "percentile")
    assert "no stage has linked location and text" in scores("--score", "probability")
    status, _, error = run("search", gallery.uri, "+text:ab +text:ba", "--score", "logit")
    assert status == 1
    assert "one wanted value" in error


def test_where_the_index_stays_below_the_recall_all_rows_are_compared(tmp_path, monkeypatch):
    """One bit and few candidates cannot tell noise apart: asked for 0.99, the search is exact."""
    monkeypatch.setattr(index_module, "SMALLEST", 1000)
    monkeypatch.setattr(index_module, "_BITS", 1)
    monkeypatch.setattr(index_module, "_CANDIDATES", 10)
    vectors = np.random.default_rng(0).normal(size=(2000, 64))
    gallery = Gallery(tmp_path / "g")
    gallery.add(rows(vectors, origin=ORIGIN, sources=[str(i) for i in range(2000)]))
    measured = build_index(gallery)
    assert max(row["recall"] for row in measured) < 0.99
    assert {row["share"] for row in measured} == {1.0}  # no row has a place
    for query in np.random.default_rng(1).normal(size=(5, 64)):
        assert sources(search(None, gallery, query, recall=0.99)) == sources(search(None, gallery, query))


# --- results -----------------------------------------------------------------------------------------------


def test_a_page_shows_pictures_sounds_and_names(tmp_path):
    import soundfile
    from PIL import Image

    Image.new("RGB", (50, 50), (200, 0, 0)).save(tmp_path / "<b>.png")
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    gallery = Gallery(tmp_path / "g")
    files = [str(tmp_path / "<b>.png"), str(tmp_path / "a.wav"), str(tmp_path / "gone.jpg")]
    gallery.add(rows(np.eye(3), origin=ORIGIN, sources=files, locations=[(1, 2), (3, 4), (np.nan, np.nan)]))
    write_page(search(None, gallery, np.ones(3)), tmp_path / "x.html", title="a <query>")
    page = (tmp_path / "x.html").read_text()
    assert (
        page.count("data:image/jpeg;base64,")
        == page.count("<audio controls")
        == page.count('class="none"')
        == 1
    )
    assert "a &lt;query&gt;" in page
    assert "<b>.png" not in page
    assert page.count("openstreetmap.org") == 2


def test_the_command_line_prints_what_the_function_gives(run, gallery, known, tmp_path):
    np.save(tmp_path / "q.npy", QUERY)
    status, out, _ = run(
        "search", gallery.uri, f"vector:{tmp_path}/q.npy", "-k", 3, "--bbox", "150,-60,-150,60", "--json"
    )
    mask = (np.abs(known.longitude) >= 150) & (np.abs(known.latitude) <= 60)
    assert status == 0
    assert [hit["source"] for hit in json.loads(out)] == known.best(QUERY, mask, k=3)
    status, out, _ = run("search", gallery.uri, f"-vector:{tmp_path}/q.npy", "-k", 2, "--geojson")
    assert [f["properties"]["source"] for f in json.loads(out)["features"]] == known.best(-QUERY, k=2)
    status, out, error = run("search", gallery.uri, f"vector:{tmp_path}/q.npy", "--modality", "audio")
    assert (status, out) == (0, "")
    assert "no row" in error
    status, out, error = run("search", gallery.uri, "a beach")
    assert status == 1
    assert error.startswith("geobind: ") and error.count("\n") == 1 and "--space" in error  # noqa: PT018


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bbox": (0, 50, 10, 40)}, "give west,south,east,north"),
        ({"bbox": (0, 0, 200, 10)}, "give west,south,east,north"),
        ({"polygon": '{"type": "Point", "coordinates": [1, 2]}'}, "give a Polygon"),
        ({"polygon": "absent.geojson"}, "cannot be read"),
        (
            {"polygon": {"type": "Polygon", "coordinates": [[[0, 70], [120, 70], [-120, 70], [0, 70]]]}},
            "around a pole",
        ),
        ({"time": ("soon", None)}, "give ISO 8601"),
        ({"where": "nothing = 3"}, "cannot be used"),
    ],
)
def test_filters_that_are_none_say_so(gallery, options, reason):
    with pytest.raises(GeoBindError, match=reason) as error:
        search(None, gallery, QUERY, filter=Filter(**options))
    assert "\n" not in str(error.value)


def test_queries_of_another_space_or_size_are_refused(gallery, space):
    with pytest.raises(GeoBindError, match="holds vectors of 12 numbers, these have 8"):
        search(space, gallery, "a port")
    with pytest.raises(GeoBindError, match=r"has shape \(3,\), the space \(12,\)"):
        search(None, gallery, np.ones(3))
    with pytest.raises(GeoBindError, match="zero, NaN or infinite"):
        search(None, gallery, np.full(DIM, np.nan))
    with pytest.raises(GeoBindError, match="needs a space"):
        search(None, gallery, "a port")
