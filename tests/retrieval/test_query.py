"""A query is its terms: what is written parses to them, their weighted centred sum is the vector, AND is a t-norm."""

from __future__ import annotations

import numpy as np
import pytest

from geobind import GeoBindError
from geobind.retrieval.query import Query, Term, centre, percentile
from tests.toy import DIM, toy_space


@pytest.fixture(scope="module")
def space():
    return toy_space()


@pytest.fixture(scope="module")
def gallery(space):
    return space.embed("text", [f"{'abc'[i % 3] * i} {'k' * (i % 7)}" for i in range(40)])


# --- what is written ---------------------------------------------------------------------------------------


def test_the_written_form_is_the_python_form():
    written = (
        '+text:"a \\"big\\" beach" +audio:my/surf.ogg -text:crowds@2 +location:21.3,-157.8@0.5 image:a@b.jpg'
    )
    with pytest.raises(GeoBindError, match=r"weight 'b\.jpg' of image"):
        Query.parse(written)
    assert Query.parse(written.replace("a@b.jpg", '"a@b.jpg"')).terms == [
        Term("text", 'a "big" beach'),
        Term("audio", "my/surf.ogg"),
        Term("text", "crowds", -2),
        Term("location", "21.3,-157.8", 0.5),
        Term("image", "a@b.jpg"),
    ]


@pytest.mark.parametrize("text", ["a beach", "a beach, at 3:15", "C: the drive", " ratio 3:1 "])
def test_what_does_not_begin_like_a_term_is_one_text(text):
    assert Query.parse(text).terms == [Term("text", text.strip())]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the query is empty"),
        ("text:a beach", "'beach' is no term; put values with spaces in quotes"),
        ('text:"a beach', "is no term"),
        ("+text:a +audio:", "'\\+audio:' is no term"),
        ('text:""', "is no term"),
        ('+text:"a', "is no term"),
        ('+text:"', "is no term"),
        ("text:a@0", "weight '0' of text is no number above 0"),
        ("text:a@-1", "weight '-1' of text"),
        ("text:a@nan", "weight 'nan' of text"),
    ],
)
def test_a_query_that_is_none_says_what_is_wrong(text, reason):
    with pytest.raises(GeoBindError, match=reason) as error:
        Query.parse(text)
    assert "\n" not in str(error.value)


# --- one vector --------------------------------------------------------------------------------------------


def test_one_term_is_its_embedding(space):
    vector = Query.parse("bed").vector(space)
    np.testing.assert_allclose(vector, space.embed("text", ["bed"])[0], atol=1e-6)
    assert vector.dtype == np.float32


def test_the_vector_is_the_weighted_sum_of_centred_unit_vectors(space, tmp_path):
    np.save(tmp_path / "e.npy", np.arange(5.0))
    centres = {"text": centre(space.embed("text", ["bad", "gap"])), "location": np.full(DIM, 0.1)}
    query = Query.parse(f"+text:bed -text:cake@0.5 +location:-33.9,18.4@2 +environment:{tmp_path}/e.npy")
    total = np.zeros(DIM)
    for modality, value, weight in (
        ("text", "bed", 1),
        ("text", "cake", -0.5),
        ("location", (-33.9, 18.4), 2),
        ("environment", np.arange(5.0), 1),
    ):
        part = space.embed(modality, [value])[0] - np.asarray(centres.get(modality, 0))
        total += weight * part / np.linalg.norm(part)
    vector = query.vector(space, centres=centres)
    np.testing.assert_allclose(vector, total / np.linalg.norm(total), atol=1e-6)
    assert not np.allclose(vector, query.vector(space))


def test_centring_makes_what_all_values_share_say_nothing(space):
    """Where the offset of a modality is large, it outvotes the content of a query of several values."""
    rng = np.random.default_rng(0)
    content = rng.normal(size=(200, DIM))
    offset = np.zeros(DIM)
    offset[0] = 30
    queries = content + offset
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    tiles = content / np.linalg.norm(content, axis=1, keepdims=True)
    found = {}
    for name, centres in (("plain", None), ("centred", {"vector": centre(queries)})):
        asked = [Query([Term("vector", q), Term("vector", q, 0.5)]) for q in queries]
        scores = np.stack([query.scores(space, tiles, centres=centres) for query in asked])
        found[name] = (scores.argmax(1) == np.arange(200)).mean()
    assert found["centred"] > 0.8 > 0.2 > found["plain"]


def test_a_single_value_is_not_centred_so_that_its_cosines_are_those_of_similarity(space):
    centres = {"text": centre(space.embed("text", ["bad", "gap"]))}
    np.testing.assert_allclose(
        Query.parse("-text:bed").vector(space, centres=centres), -space.embed("text", ["bed"])[0], atol=1e-6
    )


def test_templates_are_averaged(space):
    query = Query.parse("bed", templates=("a {}", "the {} map"))
    mean = space.embed("text", ["a bed", "the bed map"]).mean(0)
    np.testing.assert_allclose(query.vector(space), mean / np.linalg.norm(mean), atol=1e-6)


def test_braces_in_a_text_are_text(space):
    np.testing.assert_allclose(
        Query.parse("be {0} d").vector(space), space.embed("text", ["be {0} d"])[0], atol=1e-6
    )


# --- AND ---------------------------------------------------------------------------------------------------


def test_percentile_counts_what_is_below_and_half_of_ties():
    scores = np.random.default_rng(0).integers(0, 20, 100) / 7
    below = (scores[:, None] > scores).mean(1) + (scores[:, None] == scores).mean(1) / 2
    np.testing.assert_allclose(percentile(scores), below, rtol=1e-6)


def test_product_and_minimum_are_of_the_terms_percentiles(space, gallery):
    terms = [Term("text", "bed", 2.0), Term("location", (10, 20)), Term("text", "kkk", -1.0)]
    shares = []
    for term in terms:
        cosine = space.similarity(space.embed(term.modality, [term.value]), gallery)[0]
        shares.append(percentile(cosine) if term.weight > 0 else 1 - percentile(cosine))
    product = Query(terms, "product").scores(space, gallery)
    np.testing.assert_allclose(product, shares[0] ** 2 * shares[1] * shares[2], atol=1e-5)
    minimum = Query(terms, "minimum").scores(space, gallery)
    np.testing.assert_allclose(minimum, np.min(shares, axis=0), atol=1e-5)


@pytest.mark.parametrize("combine", ["sum", "product", "minimum"])
def test_every_combination_of_one_term_ranks_as_the_cosine_does(space, gallery, combine):
    cosine = space.similarity(space.embed("location", [(10, 20)]), gallery)[0]
    scores = Query([Term("location", (10, 20))], combine).scores(space, gallery)
    np.testing.assert_array_equal(np.argsort(-scores, kind="stable"), np.argsort(-cosine, kind="stable"))


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ([Term("smell", "x")], "no tower for 'smell'"),
        ([Term("text", "a"), Term("text", "a", -1)], "cancels out"),
        ([Term("vector", np.ones(DIM + 1))], rf"has shape \({DIM + 1},\), the space \({DIM},\)"),
        ([Term("vector", np.full(DIM, np.nan))], "zero, NaN or infinite"),
        ([Term("vector", np.zeros(DIM))], "zero, NaN or infinite"),
        ([Term("vector", "absent.npy")], "holds no numbers"),
        ([Term("location", "north")], "holds no numbers"),
        ([Term("location", "95,0")], "latitude 95 is outside"),
    ],
)
def test_a_term_that_cannot_be_used_says_why(space, terms, reason):
    with pytest.raises(GeoBindError, match=reason) as error:
        Query(terms).vector(space)
    assert "\n" not in str(error.value)


def test_a_query_of_no_single_vector_and_odd_options_are_refused(space):
    with pytest.raises(GeoBindError, match="combined by product is no single vector"):
        Query.parse("bed", combine="product").vector(space)
    with pytest.raises(GeoBindError, match="did you mean 'product'"):
        Query.parse("bed", combine="produkt")
    with pytest.raises(GeoBindError, match=r"needs a \{\}"):
        Query.parse("bed", templates=("a photo",))
    with pytest.raises(GeoBindError, match="weight 0 of"):
        Term("text", "a", 0)
