"""Towers by name: options are checked, files give back the same tower, fingerprints follow its output.

Pinned: whatever `save` writes `load_tower` reads bit-equal; the fingerprint changes when weights,
settings, processor or head do, and never else; every mistake in a recipe's line is one line that names it.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from geobind.errors import GeoBindError
from geobind.towers import base
from geobind.towers.base import (
    Processor,
    Tower,
    build_tower,
    fingerprint,
    load_tower,
    register,
    tower_class,
    tower_kinds,
)


class NumberProcessor(Processor):
    def __init__(self, modality: str, scale: float = 1.0) -> None:
        self.columns = (modality,)
        self.scale = scale

    def __call__(self, row, *, rng=None):
        return {"number": torch.tensor([float(row[self.columns[0]]) * self.scale])}

    def settings(self):
        return {"scale": self.scale}


class Number(Tower):
    def __init__(
        self, modality: str, *, width: int = 4, scale: float = 1.0, mode: Literal["a", "b"] = "a"
    ) -> None:
        super().__init__(modality, width=width, processor=NumberProcessor(modality, scale))
        self.net = torch.nn.Linear(1, width)

    def encode(self, number):
        return self.net(number)


@pytest.fixture
def number(monkeypatch: pytest.MonkeyPatch, own_registry: None) -> type[Number]:
    monkeypatch.setattr(Number, "kind", "")
    return register("number")(Number)


def embed(tower: Tower, values: list[float]) -> torch.Tensor:
    items = [tower.processor({tower.modality: value}) for value in values]
    with torch.no_grad():
        return tower.eval()(**tower.processor.collate(items))


# --- registry and options ----------------------------------------------------------------------------------


def test_a_registered_tower_is_built_with_a_head_to_the_spaces_dimension(number):
    tower = build_tower("number", modality="noise", dim=8, width=3)
    assert isinstance(tower, number)
    assert (tower.modality, tower.width, tower.dim) == ("noise", 3, 8)
    assert embed(tower, [1.0, 2.0]).shape == (2, 8)


def test_no_head_where_the_width_is_the_dimension(number):
    assert build_tower("number", modality="noise", dim=4).head is None


def test_all_built_in_towers_have_their_name():
    assert {"clip", "hf", "clap", "location", "vector", "small"} <= set(tower_kinds())
    for kind, modality in (("location", "location"), ("vector", "environment"), ("small", "satellite")):
        assert tower_class(kind, modality).kind == kind


def test_a_class_limited_to_modalities_leaves_the_others_to_the_family(number):
    @register("number", modalities=("text",))
    class NumberText(Number):
        pass

    assert tower_class("number", "text") is NumberText
    assert tower_class("number", "satellite") is number


def test_a_tower_for_other_modalities_is_refused(number):
    register("only_text", modalities=("text",))(type("OnlyText", (Number,), {}))
    with pytest.raises(GeoBindError, match=r"^tower 'only_text' encodes text, not 'audio'$"):
        build_tower("only_text", modality="audio", dim=4)


def test_an_installed_package_offers_towers(number, monkeypatch):
    class Point:
        name = "from_elsewhere"

        @staticmethod
        def load() -> type[Tower]:
            return type("Elsewhere", (Number,), {"__init__": Number.__init__})

    def points(group: str, name: str | None = None) -> list[type[Point]]:
        return [Point] if group == "geobind.towers" and name in (None, Point.name) else []

    monkeypatch.setattr(base, "entry_points", points)
    assert "from_elsewhere" in tower_kinds()
    assert build_tower("from_elsewhere", modality="noise", dim=4).kind == "from_elsewhere"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("numbre", {}, r"unknown tower 'numbre'; did you mean 'number'\?"),
        ("number", {"widht": 3}, r"tower 'number' has no option 'widht'; did you mean 'width'\?"),
        ("number", {"width": "many"}, r"tower 'number': width: .*integer.*, got 'many'"),
        ("number", {"mode": "c"}, r"tower 'number': mode: .*'a' or 'b', got 'c'"),
        ("vector", {}, r"tower 'vector': the key 'width' is missing"),
        ("number", {"head": "linaer"}, r"head: kind: .*, got 'linaer'"),
        (
            "number",
            {"head": {"kind": "mlp", "hiden": 3}},
            r"head: unknown key 'hiden'; did you mean 'hidden'\?",
        ),
        ("number", {"head": "none"}, r"tower 'number' of 'noise' gives 4 numbers, the space has 8"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_that_names_it(number, kind, options, message):
    with pytest.raises(GeoBindError, match=message) as caught:
        build_tower(kind, modality="noise", dim=8, **options)
    assert "\n" not in str(caught.value)


def test_a_tower_that_overrides_forward_gets_no_head(number):
    class Whole(Number):
        def forward(self, number):
            return self.net(number)

    register("whole")(Whole)
    assert build_tower("whole", modality="noise", dim=4).dim == 4
    with pytest.raises(GeoBindError, match=r"overrides forward and gives 4 numbers, the space has 8"):
        build_tower("whole", modality="noise", dim=8)


# --- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["auto", "linear", {"kind": "mlp", "hidden": 5, "dropout": 0.5}])
def test_a_saved_tower_comes_back_bit_equal(number, tmp_path, head):
    tower = build_tower("number", modality="noise", dim=8, head=head, scale=3, width=6)
    tower.save(tmp_path)
    loaded = load_tower(tmp_path)
    assert not loaded.training
    assert type(loaded) is number
    assert loaded.modality == "noise"
    assert torch.equal(embed(loaded, [1.0, -2.5]), embed(tower, [1.0, -2.5]))
    assert fingerprint(loaded) == fingerprint(tower)


def test_copies_and_pickles_keep_the_options(number, tmp_path):
    tower = build_tower("number", modality="noise", dim=4, scale=2.0)
    for twin in (copy.deepcopy(tower), pickle.loads(pickle.dumps(tower))):
        assert twin.options == tower.options
        assert fingerprint(twin) == fingerprint(tower)


def _save(folder: Path) -> Tower:
    tower = build_tower("number", modality="noise", dim=8)
    tower.save(folder)
    return tower


def test_a_folder_without_a_tower(number, tmp_path):
    with pytest.raises(GeoBindError, match=r"holds no tower \(no tower\.json\)"):
        load_tower(tmp_path)


def test_weights_of_another_architecture(number, tmp_path):
    _save(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "net.weight": torch.zeros(5, 1)}, tmp_path / "model.safetensors")
    with pytest.raises(GeoBindError, match=r"net\.weight has shape \(5, 1\), the tower takes \(4, 1\)"):
        load_tower(tmp_path)


def test_a_file_that_lacks_a_weight_is_refused(number, tmp_path):
    _save(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({"net.weight": state["net.weight"]}, tmp_path / "model.safetensors")
    with pytest.raises(GeoBindError, match=r"net\.bias has shape None"):
        load_tower(tmp_path)


def test_a_file_cut_off(number, tmp_path):
    _save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(GeoBindError) as caught:
        load_tower(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_without_a_name_cannot_be_saved(tmp_path):
    class Nameless(Number):
        kind = ""

    with pytest.raises(GeoBindError, match=r"register"):
        Nameless("noise").save(tmp_path)


def test_an_option_that_json_cannot_hold_cannot_be_saved(number, tmp_path):
    class Held(Number):
        def __init__(self, modality: str, *, thing: Any = None) -> None:
            super().__init__(modality)

    register("held")(Held)
    with pytest.raises(GeoBindError, match=r"a value that JSON cannot hold"):
        Held("noise", thing=object()).save(tmp_path)


# --- fingerprints ------------------------------------------------------------------------------------------


def build(seed: int = 0, **options: Any) -> Tower:
    torch.manual_seed(seed)
    return build_tower("number", modality="noise", dim=8, **options)


def test_the_fingerprint_is_of_the_tower_not_of_the_object(number):
    assert fingerprint(build()) == fingerprint(build())
    tower = build()
    before = fingerprint(tower)
    tower.eval()
    for parameter in tower.parameters():
        parameter.requires_grad_(False)
    embed(tower, [1.0])
    assert fingerprint(tower) == before


def test_an_option_given_as_1_is_1_0(number, tmp_path):
    torch.manual_seed(0)
    whole = Number("noise", scale=2)
    torch.manual_seed(0)
    assert fingerprint(Number("noise", scale=2.0)) == fingerprint(whole)
    whole.save(tmp_path)
    assert fingerprint(load_tower(tmp_path)) == fingerprint(whole)


def test_the_fingerprint_changes_with_what_the_output_depends_on(number):
    tower = build()
    changed = [build(seed=1), build(scale=2.0), build(head={"kind": "mlp", "hidden": 8})]
    nudged = build()
    with torch.no_grad():
        nudged.net.bias[0] = torch.nextafter(nudged.net.bias[0], torch.tensor(9.0))
    other_processor = build()
    other_processor.processor.scale = 0.5
    prints = [fingerprint(some) for some in (tower, *changed, nudged, other_processor)]
    assert len(set(prints)) == len(prints)
