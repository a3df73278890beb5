"""Does a second modality in a query find the place better than either alone? With and without centring.

    python benchmarks/composed.py runs/demo/space runs/sample

For each space, made by `geobind demo` or `geobind bind`: the places of its pairs (what shares a satellite image)
that have two more modalities are asked for by each alone and by both together, among all satellite images
of the split. Together is what `+text:... +audio:...` does: the sum of the two vectors, each less the centre of its
modality (of `calibrate`, from the split val, else train), or the sum as they are, or AND as product and
minimum of percentiles. Intervals (95 %) are over places, that of the gain by place against the better of the two.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind import GeoBind, Recipe, calibrate
from geobind.retrieval.bootstrap import bootstrap
from geobind.retrieval.query import VECTOR, Query, Term
from geobind.retrieval.ranks import Partners, score_ranks
from geobind.retrieval.scores import backgrounds

WAYS = ("first alone", "second alone", "sum", "sum, not centred", "product", "minimum")


def embedded(space: GeoBind, split: str) -> dict[str, dict[str, NDArray[np.float32]]]:
    """By modality, the vector of the first value of each satellite image."""
    assert space.recipe is not None
    recipe = Recipe.parse(space.recipe, "the saved recipe")
    tables = [recipe.open_pairs(name) for name in recipe.pairs]
    tables = [pairs for pairs in tables if "satellite" in pairs.modalities]
    calibrate(space, backgrounds(space, tables))
    found: dict[str, dict[str, tuple[Any, int]]] = {}
    for pairs in (pairs.split(split) for pairs in tables):
        places = pairs.keys("satellite")
        for modality in set(pairs.modalities) & set(space.modalities):
            for row, (place, key) in enumerate(zip(places, pairs.keys(modality), strict=True)):
                if place is not None and key is not None:
                    found.setdefault(modality, {}).setdefault(place, (pairs, row))
    vectors = {}
    for modality, rows in found.items():
        values = space.embed_rows(modality, [pairs[row] for pairs, row in rows.values()], batch_size=256)
        vectors[modality] = dict(zip(rows, values, strict=True))
    return vectors


def scores(
    way: str, one: NDArray[np.float32], two: NDArray[np.float32], space: GeoBind, names: tuple[str, str], tiles: NDArray[np.float32]
) -> NDArray[np.float32]:  # fmt: skip
    """(places, tiles): of the queries (places, dim) of both modalities, as `Query` combines them."""
    if way == "first alone":
        return one @ tiles.T
    if way == "second alone":
        return two @ tiles.T
    rows = []
    for vectors in zip(one, two, strict=True):
        if way == "sum":
            vectors = [v - np.asarray(space.centres[name]) for v, name in zip(vectors, names, strict=True)]
        terms = [Term(VECTOR, vector) for vector in vectors]
        rows.append(Query(terms, way if way in ("product", "minimum") else "sum").scores(space, tiles))
    return np.stack(rows)


def report(space: GeoBind, split: str) -> list[str]:
    """Rows of a Markdown table: recall@10 of each way, and the gain of the sum."""
    vectors = embedded(space, split)
    tiles = vectors.pop("satellite")
    gallery = np.stack(list(tiles.values()))
    lines = [
        f"| {len(tiles):,} tiles | places | "
        + " | ".join(WAYS)
        + " | sum less the better | ... not centred |",
        "|---" * (len(WAYS) + 4) + "|",
    ]
    for names in combinations(sorted(vectors), 2):
        places = [place for place in tiles if all(place in vectors[name] for name in names)]
        if len(places) < 20:
            continue
        one, two = (np.stack([vectors[name][place] for place in places]) for name in names)
        partners = Partners.from_labels(places, list(tiles))
        hits = {
            way: (score_ranks(scores(way, one, two, space, names, gallery), partners) <= 10).astype(float)
            for way in WAYS
        }
        better = max(WAYS[:2], key=lambda way: hits[way].mean())
        gains = {"gain": hits["sum"] - hits[better], "as is": hits["sum, not centred"] - hits[better]}
        between = bootstrap({**hits, **gains})
        cells = [_cell(hits[way], between[way]) for way in WAYS]
        cells += [_cell(gain, between[name], "+") for name, gain in gains.items()]
        lines.append(f"| {names[0]}, {names[1]} | {len(places)} | " + " | ".join(cells) + " |")
    return lines


def _cell(values: NDArray[np.float64], between: tuple[float, float], sign: str = "") -> str:
    low, high = between
    return f"{values.mean():{sign}.3f} ({low:{sign}.3f}, {high:{sign}.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spaces", nargs="+")
    parser.add_argument("--split", default="test")
    asked = parser.parse_args()
    for folder in asked.spaces:
        lines = report(GeoBind.from_pretrained(folder), asked.split)
        print("\n".join([f"\nRecall@10, {folder}, split {asked.split}\n", *lines]), flush=True)


if __name__ == "__main__":
    main()
