"""What is said of a space agrees with its towers, without reading their weights; tables fit 100 columns."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

import tests.toy  # noqa: F401  registers the tower "letters"
from geobind import GeoBind, GeoBindError, Stage, bind, build_tower
from geobind import describe as module
from geobind.console import add_row, size_text, table
from geobind.describe import DEPENDENCIES, EXTRAS, describe, doctor_tables, licence, space_tables
from geobind.towers.base import load_tower
from tests.spaces import DIM, vector_pairs, vector_space, vector_tower


def shown(tables, width=100) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    for one in tables:
        console.print(one)
    return console.export_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """satellite bound to text, audio to satellite; image in no stage."""
    space = vector_space("satellite", "text", "image")
    options = {"epochs": 1, "batch_size": 16, "validation": 0.0, "cache_targets": False}
    for learner, target in (("satellite", "text"), (vector_tower("audio"), "satellite")):
        name = learner if isinstance(learner, str) else learner.modality
        bind(
            space,
            Stage(learner=learner, target=target, pairs=vector_pairs(name, target), **options),
            progress=False,
        )
    path = tmp_path_factory.mktemp("space")
    space.save_pretrained(path)
    return path


def test_describing_reads_no_weights_and_agrees_with_the_towers(folder):
    space = GeoBind.from_pretrained(folder)
    content = describe(space)
    assert not space._towers
    assert json.loads(json.dumps(content)) == content
    for modality, told in content["towers"].items():
        tower = space.tower(modality)
        assert told["parameters"] == sum(
            t.numel() for t in tower.state_dict().values() if t.is_floating_point()
        )
        assert (told["kind"], told["width"]) == (tower.kind, tower.width)
        assert (told["head"] or {}).get("dim", DIM) == tower.dim
        assert told["fingerprint"] == space.fingerprint(modality)
    assert describe(space) == content  # now that the towers are read


def test_a_space_that_was_never_saved_is_described_alike(folder):
    saved = GeoBind.from_pretrained(folder)
    fresh = GeoBind(DIM, [saved.tower(modality) for modality in saved.modalities])
    parts = ("kind", "parameters", "width", "head", "fingerprint", "source")
    told, expected = describe(fresh)["towers"], describe(saved)["towers"]
    assert all(told[m][part] == expected[m][part] for m in expected for part in parts)


def test_pairs_are_trained_emergent_or_not_comparable(folder):
    content = describe(GeoBind.from_pretrained(folder))
    assert [link["between"] for link in content["links"]] == [["audio", "satellite"], ["satellite", "text"]]
    assert content["comparable"] == [
        {"between": ["audio", "satellite"], "trained": True},
        {"between": ["audio", "text"], "trained": False},
        {"between": ["satellite", "text"], "trained": True},
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_tables_name_everything_within_the_width(folder, width):
    space = GeoBind.from_pretrained(folder)
    text = shown(space_tables(describe(space)), width)
    assert max(map(len, text.splitlines())) <= width
    for modality in space.modalities:
        assert space.fingerprint(modality) in text
    assert "nothing yet" in text  # image
    assert text.count("emergent") == 1
    assert text.count("trained") == 2


def test_a_recipe_is_summarised(folder):
    space = GeoBind.from_pretrained(folder)
    assert describe(space)["recipe"] is None
    space.recipe = {
        "seed": 3,
        "stages": [
            {
                "name": "first",
                "learners": ["satellite"],
                "links": [{"query": "satellite", "gallery": "text", "loss": "symmetric"}],
                "pairs": "captions",
            }
        ],
        "evaluations": [{}, {}],
    }
    content = describe(space)
    assert content["recipe"] == {
        "seed": 3,
        "stages": [
            {
                "name": "first",
                "learners": ["satellite"],
                "links": [["satellite", "text"]],
                "pairs": "captions",
            }
        ],
        "evaluations": 2,
    }
    assert "satellite - text" in shown(space_tables(content))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("openai/clip-vit-base-patch32", "MIT"),
        ("laion/clap-htsat-fused", "Apache-2.0"),
        ("google/siglip-base-patch16-224", "Apache-2.0"),
        ("facebook/dinov2-base", "Apache-2.0"),
        ("facebook/dinov3-vits16-pretrain-lvd1689m", "DINOv3 License"),
        ("somebody/encoder", "see the model card"),
        (None, None),
    ],
)
def test_the_source_of_weights_survives_saving_and_names_the_licence(source, expected, tmp_path):
    tower = build_tower("letters", modality="satellite", dim=16, weights=source)
    tower.save(tmp_path / "one")
    again = load_tower(tmp_path / "one")
    again.save(tmp_path / "two")
    from_folder = build_tower("letters", modality="image", dim=16, weights=str(tmp_path / "two"))
    for found in (tower, again, from_folder):
        assert found.source == source
        told = describe(GeoBind(16, [found]))["towers"][found.modality]
        assert (told["source"], told["licence"]) == (source, expected)
    spec = json.loads((tmp_path / "two" / "tower.json").read_text())
    assert spec["source"] == source
    assert "weights" not in spec["options"]


def test_a_folder_without_a_record_is_no_source(tmp_path):
    assert build_tower("letters", modality="satellite", dim=16, weights=str(tmp_path)).source is None
    assert build_tower("letters", modality="satellite", dim=16, weights="none").source is None


def test_a_space_with_broken_weights_is_one_line(folder, tmp_path):
    space = GeoBind.from_pretrained(folder)
    space.save_pretrained(tmp_path)
    (tmp_path / "audio" / "head.safetensors").write_bytes(b"\x10")
    for use in (describe, lambda space: space.tower("audio")):
        with pytest.raises(
            GeoBindError, match=r"audio.* cannot be read \(.*\): copy or save the space again"
        ):
            use(GeoBind.from_pretrained(tmp_path))


# --- doctor ------------------------------------------------------------------------------------------------


def test_doctor_names_every_dependency_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return tuple(requirement.split(">=")[0].split("[")[0] for requirement in requirements)

    extras = {
        extra: names(rest) for extra, rest in project["optional-dependencies"].items() if extra != "dev"
    }
    assert names(project["dependencies"]) == DEPENDENCIES
    assert extras == EXTRAS
    text = shown(doctor_tables())
    assert all(name in text for name in ("python", "geobind", *DEPENDENCIES))
    assert max(map(len, text.splitlines())) <= 100


def test_doctor_names_the_pip_command_of_a_missing_extra(monkeypatch):
    monkeypatch.setattr(module, "EXTRAS", {"geo": ("no-such-package",)})
    assert 'no: pip install "geobind[geo]"' in shown(doctor_tables())


def test_doctor_warns_of_torchvision(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torchvision" else real(name)
    )
    assert "torchvision" not in shown(doctor_tables())
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name == "torchvision" else real(name)
    )
    assert "its wheels may break a CPU-only torch" in " ".join(shown(doctor_tables()).split())


def test_doctor_sizes_the_caches(tmp_path, monkeypatch):
    (tmp_path / "cache" / "targets").mkdir(parents=True)
    (tmp_path / "cache" / "targets" / "vectors").write_bytes(bytes(1_234_000))
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "cache" / "targets" / "vectors")
    (line,) = [line for line in shown(doctor_tables()).splitlines() if "frozen targets" in line]
    assert "1.2 MB" in line


def test_doctor_tells_the_licences_of_a_space():
    space = GeoBind(16, [build_tower("letters", modality="satellite", dim=16, weights="openai/clip-x")])
    (line,) = [line for line in shown(doctor_tables(space)).splitlines() if "openai/clip-x" in line]
    assert line.split() == ["satellite", "letters", "openai/clip-x", "MIT"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("License-Expression: MIT\nLicense: other", "MIT"),
        ("License: BSD-3-Clause", "BSD-3-Clause"),
        (f"License: {'words ' * 20}\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        (f"License: {'words ' * 20}", "words " * 6 + "w..."),
        ("Classifier: License :: OSI Approved :: Apache Software License", "Apache Software License"),
        ("Classifier: Typing :: Typed", ""),
    ],
)
def test_licences_are_short_whichever_field_holds_them(fields, expected, tmp_path, monkeypatch):
    info = tmp_path / "toy_licence-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: toy-licence\nVersion: 1.0\n{fields}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert licence("toy-licence") == expected


def test_the_licence_of_what_is_not_installed_is_unknown():
    assert licence("no-such-package") == ""


# --- the console -------------------------------------------------------------------------------------------


def test_cells_are_shown_as_they_are():
    made = table("Title [x]", "One [y]")
    add_row(made, "geobind[geo] [red]plain[/red]")
    assert all(part in shown([made]) for part in ("Title [x]", "geobind[geo] [red]plain[/red]"))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_400, "99.4 kB"), (99_600, "100 kB"),
     (999_600, "1.0 MB"), (27_300_000, "27.3 MB"), (1.34e9, "1.3 GB"), (5e15, "5,000 TB")],
)  # fmt: skip
def test_sizes_are_in_powers_of_1000(count, text):
    assert size_text(count) == text
