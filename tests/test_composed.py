"""benchmarks/composed.py combines vectors as a query of the values does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from geobind import Query, Term
from geobind.retrieval.query import centre
from tests.toy import toy_space

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "composed.py"


def test_each_way_is_that_of_a_query():
    spec = importlib.util.spec_from_file_location("composed", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    space = toy_space()
    texts, places = ["a bay", "a cliff", "dunes"], [(1.0, 2.0), (-40.0, 90.0), (60.0, -7.0)]
    one, two = space.embed("text", texts), space.embed("location", places)
    space.centres.update(text=centre(one).tolist(), location=centre(two).tolist())
    tiles = np.random.default_rng(0).normal(size=(30, space.dim)).astype(np.float32)
    tiles /= np.linalg.norm(tiles, axis=1, keepdims=True)
    for way in script.WAYS[2:]:
        found = script.scores(way, one, two, space, ("text", "location"), tiles)
        for row, text, place in zip(found, texts, places, strict=True):
            terms = [Term("text", text), Term("location", place)]
            query = Query(terms, way if way in ("product", "minimum") else "sum")
            centres = {} if way == "sum, not centred" else None
            assert row == pytest.approx(query.scores(space, tiles, centres=centres), abs=1e-5)
