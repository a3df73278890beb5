"""`evaluate` measures what docs/evaluation.md says, on the items that it says.

* counts and ranks of a hand-made set, with a caption of two places and several sounds of one;
* everything equals a brute-force double loop on random sets, under both protocols;
* a value is embedded once, whatever the number of rows and evaluations that hold it;
* items that one space cannot read are left out for all spaces, and counted;
* the group protocol works across tables, and an item may have two groups;
* intervals contain the value, and the same call gives the same report;
* each mistake is one line that names what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, GeoBindWarning, MediaError
from geobind.retrieval.evaluation import evaluate
from geobind.retrieval.items import Evaluation
from geobind.retrieval.metrics import GROUP_METRICS, PARTNER_METRICS
from geobind.retrieval.report import Report
from geobind.space import GeoBind
from geobind.towers.base import Batch, Processor, Tower, build_tower

Known = Mapping[str, Sequence[float]]


class Lookup(Processor):
    """Names to vectors; a name it does not know cannot be read."""

    def __init__(self, modality: str, known: Known) -> None:
        self.columns = (modality,)
        self.known = known
        self.read: list[str] = []

    def __call__(self, row: Mapping[str, Any], *, rng: np.random.Generator | None = None) -> Batch:
        name = row[self.columns[0]]
        self.read.append(name)
        if name not in self.known:
            raise MediaError(f"{name} cannot be read")
        return {"vector": torch.tensor(self.known[name], dtype=torch.float32)}

    def settings(self) -> dict[str, Any]:
        return {"known": dict(self.known)}


class Named(Tower):
    def __init__(self, modality: str, known: Known) -> None:
        width = len(next(iter(known.values())))
        super().__init__(modality, width=width, processor=Lookup(modality, known))

    def encode(self, vector: Tensor) -> Tensor:  # type: ignore[override]
        return vector


def space_of(links: Iterable[tuple[str, str]] | None = None, **modalities: Known) -> GeoBind:
    """Everything bound to `satellite`, unless the links are given."""
    towers = [Named(modality, known) for modality, known in modalities.items()]
    space = GeoBind(towers[0].dim, towers)
    others = [m for m in modalities if m != "satellite"]
    for one, two in [(m, "satellite") for m in others] if links is None else links:
        space.record_binding([one], {(one, two): 0.07})
    return space


def pairs_of(name: str = "pairs", *, split: str | list[str] | None = "test", **options: Any) -> Pairs:
    columns = {key: options.pop(key) for key in ("satellite", "text", "audio", "image") if key in options}
    rows = len(next(iter(columns.values())))
    splits = [split] * rows if isinstance(split, str) else split
    return Pairs.from_columns(columns, name=name, split=splits, verbatim=tuple(columns), **options)


def run(space: GeoBind, *evaluations: Evaluation, **options: Any) -> Report:
    return evaluate(space, evaluations, progress=False, device="cpu", **{"draws": 200, **options})


# Angles on a half circle: the nearer, the more alike.
def at(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


TILES = {"north": at(0), "east": at(40), "south": at(80), "west": at(120)}


def test_a_hand_made_set_has_the_ranks_that_one_counts() -> None:
    # "a port" describes north and west; south has two captions, one of which "a port" outdoes.
    captions = {"a port": at(10), "a farm": at(45), "a lake": at(30), "a road": at(95)}
    pairs = pairs_of(
        satellite=["north", "east", "south", "south", "west"],
        text=["a port", "a farm", "a lake", "a road", "a port"],
    )
    to_tiles, to_text = run(
        space_of(text=captions, satellite=TILES), Evaluation(("text", "satellite"), pairs)
    ).rows

    assert [to_tiles[key] for key in ("query", "gallery", "queries", "gallery_size")] == [
        "text",
        "satellite",
        5,
        4,
    ]
    # a port: north (rank 1) and so again for west; a farm: east 1; a lake: east, north, then south 3; a road 1
    assert to_tiles["recall@1"] == 4 / 5
    assert to_tiles["mrr"] == pytest.approx((1 + 1 + 1 + 1 / 3 + 1) / 5)
    assert to_tiles["median_rank"] == 1
    # Partners: north 1 of 4 ... but a port 2 of 4, in two of the five queries.
    assert to_tiles["chance"]["recall@1"] == pytest.approx((3 * 1 / 4 + 2 * 2 / 4) / 5)

    assert [to_text[key] for key in ("query", "gallery", "queries", "gallery_size")] == [
        "satellite",
        "text",
        4,
        4,
    ]
    # north: a port 1; east: a farm 1; south: a road 1; west: a road, a farm, a lake, then a port 4
    assert to_text["recall@1"] == 3 / 4
    assert to_text["mrr"] == pytest.approx((1 + 1 + 1 + 1 / 4) / 4)


def test_the_sounds_of_one_place_are_all_right_answers() -> None:
    sounds = {"surf": at(0), "gulls": at(0), "cars": at(5), "wind": at(85)}
    pairs = pairs_of(
        satellite=["north", "north", "east", "south"],
        audio=["surf", "gulls", "cars", "wind"],
        place=["shore", "shore", "town", "field"],
    )
    to_sounds, to_tiles = run(
        space_of(satellite=TILES, audio=sounds), Evaluation(("satellite", "audio"), pairs)
    ).rows
    assert (to_sounds["queries"], to_tiles["queries"]) == (3, 4)
    assert to_sounds["recall@1"] == 1  # surf and gulls tie for north, and are no competitors
    assert to_sounds["chance"]["recall@1"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)
    assert to_tiles["mrr"] == pytest.approx((1 + 1 + 1 / 2 + 1) / 4)  # cars find north before east


def random_pairs(seed: int) -> tuple[Pairs, dict[str, dict[str, list[float]]]]:
    """Few places, tiles, captions and groups, so that all of them repeat; some values are missing."""
    rng = np.random.default_rng(seed)
    rows = 40
    names = {"satellite": 12, "text": 15}
    columns = {m: [f"{m}{i}" for i in rng.integers(n, size=rows)] for m, n in names.items()}
    columns["text"][3] = columns["satellite"][5] = None
    pairs = pairs_of(
        place=[f"p{i}" for i in rng.integers(14, size=rows)],
        group=[None if i == 4 else f"g{i}" for i in rng.integers(5, size=rows)],
        split=["test" if i else "other" for i in rng.integers(5, size=rows)],
        **columns,
    )
    known = {m: {f"{m}{i}": rng.normal(size=3).tolist() for i in range(n)} for m, n in names.items()}
    known["text"]["text1"] = known["text"]["text0"]  # a tie
    return pairs, known


def by_hand(
    pairs: Pairs, known: dict[str, dict[str, list[float]]], query: str, gallery: str, protocol: str
) -> dict[str, Any]:
    """The protocols as docs/evaluation.md words them, by loops over rows."""
    rows = [
        (pairs[i], int(pairs.places[i]) if protocol == "partner" else pairs.groups[i])
        for i in range(len(pairs))
        if pairs.splits[i] == "test"
    ]
    rows = [(row, label) for row, label in rows if label is not None]
    items = sorted({row[gallery] for row, _ in rows if row[gallery] is not None})
    asked = {
        (row[query], label if protocol == "partner" else None)
        for row, label in rows
        if row[query] is not None
    }
    ranks, precisions, tops = [], [], []
    for name, place in asked:
        if protocol == "partner" and not any(row[gallery] for row, label in rows if label == place):
            continue
        labels = {label for row, label in rows if row[query] == name}
        partners = {row[gallery] for row, label in rows if label in labels} - {None}
        if not partners:
            continue
        unit = [
            np.array(v) / np.linalg.norm(v) for v in (known[query][name], *(known[gallery][i] for i in items))
        ]
        score = {
            item: float(np.float32(unit[0] @ vector)) for item, vector in zip(items, unit[1:], strict=True)
        }
        best = max(score[item] for item in partners)
        others = [score[item] for item in items if item not in partners]
        ranks.append(1 + sum(s > best for s in others) + sum(s == best for s in others) / 2)
        orders = [
            sorted(items, key=lambda item: (-score[item], sign * items.index(item))) for sign in (1, -1)
        ]
        found = [[item in partners for item in order] for order in orders]  # the one tie, both ways
        precisions.append(
            np.mean([[sum(f[: i + 1]) / (i + 1) for i, hit in enumerate(f) if hit] for f in found])
        )
        tops.append(np.mean([sum(f[:10]) / min(10, len(items)) for f in found]))
    base = {"queries": len(ranks), "gallery_size": len(items)}
    if protocol == "group":
        return base | {"map": np.mean(precisions), "precision@10": np.mean(tops)}
    recalls = {f"recall@{k}": np.mean([rank <= k for rank in ranks]) for k in (1, 5, 10, 50, 100)}
    ndcg = np.mean([1 / np.log2(1 + rank) if rank <= 10 else 0 for rank in ranks])
    mrr = np.mean([1 / rank for rank in ranks])
    return base | recalls | {"median_rank": np.median(ranks), "mrr": mrr, "ndcg@10": ndcg}


@pytest.mark.parametrize("protocol", ["partner", "group"])
@pytest.mark.parametrize("seed", range(4))
def test_everything_equals_a_double_loop(seed: int, protocol: Any) -> None:
    pairs, known = random_pairs(seed)
    report = run(space_of(**known), Evaluation(("text", "satellite"), pairs, protocol=protocol))
    for row in report.rows:
        expected = by_hand(pairs, known, row["query"], row["gallery"], protocol)
        assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def test_a_value_is_embedded_once() -> None:
    tiles, rows = list(TILES), 40
    pairs = pairs_of(
        satellite=[tiles[i % 4] for i in range(rows)],
        text=[f"t{i % 7}" for i in range(rows)],
        audio=[f"a{i % 3}" for i in range(rows)],
        group=[f"g{i % 4}" for i in range(rows)],
    )
    space = space_of(
        satellite=TILES,
        text={f"t{i}": at(9 * i) for i in range(7)},
        audio={f"a{i}": at(50 * i) for i in range(3)},
    )
    run(
        space,
        Evaluation(("text", "satellite"), pairs),
        Evaluation(("audio", "satellite"), pairs),
        Evaluation(("audio", "text"), pairs, split=None, protocol="group"),
    )
    for modality, count in (("satellite", 4), ("text", 7), ("audio", 3)):
        read = space.tower(modality).processor.read
        assert len(read) == len(set(read)) == count


def test_groups_link_two_tables_and_an_item_may_have_two() -> None:
    sounds = pairs_of(
        "sounds",
        satellite=["north", "east", "south"],
        audio=["surf", "surf", "cars"],
        group=["sea", "sea", "town"],
    )
    captions = pairs_of(
        "captions",
        satellite=["north", "east", "south", "west"],
        text=["blue water", "a town by the sea", "a town by the sea", "fields"],
        group=["sea", "sea", "town", None],
    )
    space = space_of(
        satellite=TILES,
        audio={"surf": at(0), "cars": at(70)},
        text={"blue water": at(80), "a town by the sea": at(40)},  # "fields" has no group: nobody reads it
    )
    there, back = run(space, Evaluation(("audio", "text"), (sounds, captions), protocol="group")).rows
    assert there["pairs"] == "sounds+captions"
    assert not there["trained"]
    assert [there[key] for key in ("queries", "gallery_size", "map")] == [2, 2, (1 + 1 / 2) / 2]
    # blue water: cars, then surf; a town by the sea is right with either
    assert [back[key] for key in ("queries", "gallery_size", "map")] == [2, 2, (1 / 2 + 1) / 2]
    assert back["precision@10"] == (1 / 2 + 1) / 2
    assert back["chance"]["precision@10"] == (1 / 2 + 1) / 2


def test_what_stands_in_train_too_is_counted() -> None:
    with pytest.warns(GeoBindWarning, match="both sides of a split"):
        pairs = pairs_of(
            satellite=["north", "east", "south", "west"],
            text=["a port", "a farm", "a port", "a lake"],
            split=["train", "train", "test", "test"],
        )
    captions = {"a port": at(0), "a farm": at(45), "a lake": at(90)}
    space = space_of(satellite=TILES, text=captions)
    evaluations = [Evaluation(("text", "satellite"), pairs, split=split) for split in ("test", "train", None)]
    rows = run(space, *evaluations).rows
    assert rows[0]["shared_with_train"] == rows[1]["shared_with_train"] == {"text": 1, "satellite": 0}
    assert [row["shared_with_train"] for row in rows[2:]] == [{}] * 4
    assert [row["queries"] for row in rows] == [2, 2, 2, 2, 4, 4]
    assert [row["split"] for row in rows] == ["test", "test", "train", "train", None, None]


def test_unreadable_items_are_left_out_for_every_space_and_counted() -> None:
    pairs = pairs_of(satellite=list(TILES), text=["a", "b", "c", "d"])
    captions = {name: at(40 * i) for i, name in enumerate("abcd")}
    space = space_of(satellite={k: v for k, v in TILES.items() if k != "east"}, text=captions)
    other = space_of(satellite=TILES, text={k: v for k, v in captions.items() if k != "d"})
    with pytest.warns(GeoBindWarning, match="cannot be read"):
        rows = run(space, Evaluation(("text", "satellite"), pairs), baseline=other).rows
    assert [row["unreadable"] for row in rows] == [2, 2]
    assert [row["gallery_size"] for row in rows] == [3, 3]  # tiles without east, captions without d
    assert [row["queries"] for row in rows] == [2, 2]  # a and c are left with a partner
    assert [row["recall@1"] for row in rows] == [1, 1]
    assert [row["baseline"]["recall@1"] for row in rows] == [1, 1]


def test_baseline_columns() -> None:
    pairs = pairs_of(
        satellite=list(TILES),
        text=["a", "b", "c", "d"],
        audio=["e", "f", "g", "h"],
        group=["x", "x", "y", "y"],
    )
    captions = {name: at(40 * i) for i, name in enumerate("abcd")}
    space = space_of(satellite=TILES, text=captions, audio={name: at(0) for name in "efgh"})
    reverse = space_of(satellite=TILES, text=dict(zip("dcba", captions.values(), strict=True)))
    evaluations = [
        Evaluation(("text", "satellite"), pairs),
        Evaluation(("audio", "satellite"), pairs, protocol="group"),
    ]
    with pytest.warns(GeoBindWarning, match="reverse has no tower for one of the two"):
        report = run(space, *evaluations, baseline=reverse, baseline_name="reverse")
    text, audio = report.rows[0], report.rows[2]
    assert text["recall@1"] == 1
    assert text["baseline"]["recall@1"] == 0
    assert tuple(text["baseline"]) == PARTNER_METRICS
    assert text["baseline_name"] == audio["baseline_name"] == "reverse"
    assert audio["baseline"] is None
    assert "baseline" not in run(space, *evaluations).rows[0]


def test_intervals_hold_the_value_and_repeat() -> None:
    pairs, known = random_pairs(9)
    evaluations = [Evaluation(("text", "satellite"), pairs, protocol=p) for p in ("partner", "group")]  # type: ignore[arg-type]
    space = space_of(**known)
    report = run(space, *evaluations, seed=3)
    for row, metrics in zip(report.rows, [PARTNER_METRICS] * 2 + [GROUP_METRICS] * 2, strict=True):
        for interval in ("low", "high", "chance"):
            assert tuple(row[interval]) == metrics
        assert all(row["low"][m] <= row[m] <= row["high"][m] for m in metrics)
        assert any(row["low"][m] < row["high"][m] for m in metrics)
    assert run(space, *evaluations, seed=3) == report
    assert run(space, *evaluations, seed=4) != report


def test_one_vector_for_everything_scores_as_chance() -> None:
    pairs, known = random_pairs(1)
    flat = {modality: {name: [1.0, 0.0, 0.0] for name in names} for modality, names in known.items()}
    for protocol in ("partner", "group"):
        for row in run(space_of(**flat), Evaluation(("text", "satellite"), pairs, protocol=protocol)).rows:  # type: ignore[arg-type]
            if protocol == "group":
                assert {m: row[m] for m in GROUP_METRICS} == pytest.approx(row["chance"])
            assert row["trained"] is True
            assert row.get("mrr", 0) <= row["chance"].get("mrr", 0)


def test_nothing_binds_the_two() -> None:
    pairs = pairs_of(satellite=list(TILES), text=["a", "b", "c", "d"])
    space = space_of([], satellite=TILES, text={name: at(0) for name in "abcd"})
    with pytest.warns(GeoBindWarning, match="nothing binds the two in this space"):
        assert not run(space, Evaluation(("text", "satellite"), pairs)).rows[0]["trained"]


# --- mistakes ----------------------------------------------------------------------------------------------

PAIRS = pairs_of("tiles", satellite=list(TILES), text=["a", "b", "c", "c"], group=["x", "x", "y", None])
SPACE = space_of(satellite=TILES, text={name: at(0) for name in "abc"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"between": ("text", "text")}, "between two different modalities, got"),
        ({"protocol": "partners"}, "no protocol 'partners'; did you mean 'partner'"),
        ({"between": ("audio", "satellite")}, "pairs 'tiles' have no modality 'audio'"),
        (
            {"pairs": (PAIRS, pairs_of("more", satellite=["north"]))},
            "one pairs set: name one, or use protocol: group",
        ),
        ({"pairs": (PAIRS,)}, "one pairs set, or one for each modality, got 1"),
    ],
)
def test_an_evaluation_that_makes_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GeoBindError, match=message) as raised:
        Evaluation(**{"between": ("text", "satellite"), "pairs": PAIRS, **options})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (Evaluation(("text", "satellite"), PAIRS, split="tests"), "no split 'tests'; did you mean 'test'"),
        (
            Evaluation(("text", "satellite"), pairs_of(satellite=["north"], text=["a"], split=None)),
            "no split 'test': name its split column, or set split: null",
        ),
        (
            Evaluation(("text", "satellite"), pairs_of(satellite=["north", "north"], text=["a", "b"])),
            r"evaluation of text and satellite on pairs \(test\): a gallery of 1 satellite, where at least 2",
        ),
        (
            Evaluation(
                ("text", "satellite"),
                pairs_of(satellite=["north", "east"], text=["a", "b"]),
                protocol="group",
            ),
            "no 'text' has a group; name the group column of pairs 'pairs'",
        ),
        (
            Evaluation(
                ("text", "satellite"),
                (PAIRS, pairs_of("other", satellite=["north", "east"], group=["z", "z"])),
                protocol="group",
            ),
            "tiles.other .* no group in common",
        ),
        (
            Evaluation(
                ("text", "satellite"),
                pairs_of(
                    satellite=["north", "east", None, None], text=[None, None, "a", "b"], place=list("1234")
                ),
            ),
            "no place has both",
        ),
        (
            Evaluation(("text", "satellite"), pairs_of(satellite=["north", "east"], text=[None, None])),
            "no row has 'text'",
        ),
        (
            Evaluation(("image", "satellite"), pairs_of(satellite=["north", "east"], image=["a", "b"])),
            "the space has no tower for 'image'",
        ),
    ],
)
def test_an_evaluation_that_cannot_be_run_stops_before_anything_is_embedded(
    evaluation: Evaluation, message: str
) -> None:
    read = SPACE.tower("satellite").processor.read
    read.clear()
    with pytest.raises(GeoBindError, match=message) as raised:
        run(SPACE, Evaluation(("text", "satellite"), PAIRS), evaluation)
    assert "\n" not in str(raised.value)
    assert not read


def test_counts_on_the_sample(sample: Path) -> None:
    """1,363 captions to a gallery of 600, and back to 1,262 distinct ones, 172 of them seen in training."""
    table = sample / "satellite_text.csv"
    features = {
        "satellite": sample / "features/satellite_efficientnet_lite0.npz",
        "text": sample / "features/text_minilm.npz",
    }
    with pytest.warns(GeoBindWarning, match="172 text"):
        pairs = Pairs.from_table(table, root=sample, features=features)
    torch.manual_seed(0)
    towers = [
        build_tower("vector", modality="satellite", dim=384, width=1280, standardize=False),
        build_tower("vector", modality="text", dim=384, width=384, standardize=False),
    ]
    space = GeoBind(384, towers)
    space.record_binding(["satellite"], {("satellite", "text"): 0.07})
    to_tiles, to_text = run(space, Evaluation(("text", "satellite"), pairs)).rows
    assert (to_tiles["queries"], to_tiles["gallery_size"]) == (1363, 600)
    assert (to_text["queries"], to_text["gallery_size"]) == (600, 1262)
    assert to_tiles["shared_with_train"] == {"text": 172, "satellite": 0}
    # Nothing was trained: the interval is about chance.
    assert (
        to_tiles["low"]["recall@100"] / 2
        < to_tiles["chance"]["recall@100"]
        < to_tiles["high"]["recall@100"] * 2
    )
