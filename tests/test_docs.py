"""The documentation says what the code does.

* Every key of a recipe stands in a table of docs/recipes.md, no key that is none, with its default.
* Every option of every built-in tower stands in docs/towers.md.
* YAML in the documentation is a recipe that can be parsed; links between documents lead somewhere.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from geobind import GeoBindError, Link, Recipe, Stage
from geobind.binding.stage import SHORT_FORM
from geobind.recipe import EvaluationSpec, PairsSpec, TowerSpec
from geobind.towers.base import _BUILT_IN, tower_class
from geobind.towers.head import HeadOptions

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fields(model: type[BaseModel]) -> dict[str, object]:
    """Key to default of a model, `...` where the key must be given."""
    found = {}
    for name, field in model.model_fields.items():
        default = ... if field.is_required() else field.get_default(call_default_factory=True)
        found[name] = list(default) if isinstance(default, tuple) else default
    return found


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next one."""
    return re.split(r"^#+ ", text.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(title: str) -> dict[str, object]:
    """Key to default as a table of docs/recipes.md has them."""
    text = section((ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), title)
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| `([^`]*)` \|", text, flags=re.MULTILINE)
    return {key: ... if default == "-" else yaml.safe_load(default) for key, default in rows}


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("Top level", fields(Recipe)),
        ("Towers", fields(TowerSpec)),
        ("Head", fields(HeadOptions)),
        ("Pairs", fields(PairsSpec)),
        ("Stages", fields(Stage) | {key: fields(Link).get(key, ...) for key in SHORT_FORM}),
        ("Links", fields(Link)),
        ("Evaluations", fields(EvaluationSpec)),
    ],
)
def test_every_key_of_a_recipe_is_described_with_its_default(title, keys):
    described = {key: float(v) if v == "1e-6" else v for key, v in table(title).items()}
    assert described == keys


@pytest.mark.parametrize("kind", sorted(_BUILT_IN))
def test_every_option_of_a_tower_is_described(kind):
    text = section((ROOT / "docs" / "towers.md").read_text(encoding="utf-8"), f"`{kind}`")
    described = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    options = set()
    for modality in ("satellite", "image", "text", "audio", "location"):
        try:
            cls = tower_class(kind, modality)
        except GeoBindError:  # not of this modality
            continue
        options |= {*inspect.signature(cls.__init__).parameters} - {"self", "modality"}
    assert described == options


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_recipes_in_documents_can_be_parsed(path):
    for block in re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL):
        content = yaml.safe_load(block)
        Recipe.model_validate(content)
        if "towers" in content:  # a whole one: its names too
            Recipe.parse(content, path.name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target
