"""The commands of this part: what they write, what they print, and one line for a mistake.

* `import` and both `export`s do what the functions do, with the words of the documentation.
* `push --dry-run` writes the card and uploads nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from geobind import GeoBind, GeoBindError
from geobind.cli import app
from tests.interop import published
from tests.interop.test_importing import SMALL
from tests.spaces import vector_space


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    save_file(published.open_clip_state(**SMALL), folder / "clip.safetensors")
    tokenizer = published.save_wide_clip_tokenizer(folder / "tokenizer")
    output = run(
        "import", folder / "clip.safetensors", "--as", "open_clip", "--tokenizer", tokenizer, "--activation", "gelu",
        "--out", folder / "space",
    )  # fmt: skip
    assert "Space of satellite, text (32 numbers)" in output
    return folder / "space"


def test_import_and_the_exports(imported, tmp_path):
    assert GeoBind.from_pretrained(imported).modalities == ["satellite", "text"]
    assert (
        "no pairs to judge"
        in run("export", imported, "--to", "onnx", "--int8", "--out", tmp_path / "onnx").lower()
    )
    assert set(json.loads((tmp_path / "onnx" / "onnx.json").read_text())["towers"]) == {"satellite", "text"}
    assert "SentenceTransformer(" in run(
        "export", imported, "--to", "sentence-transformers", "--out", tmp_path / "st"
    )
    assert (tmp_path / "st" / "modules.json").exists()
    with pytest.raises(GeoBindError, match="is there already"):
        run("export", imported, "--to", "onnx", "--out", tmp_path / "onnx")


def test_push_dry_run_writes_the_card_alone(tmp_path):
    vector_space("satellite", "text").save_pretrained(tmp_path / "space")
    output = run("push", tmp_path / "space", "me/space", "--licence", "mit", "--dry-run")
    assert "nothing was uploaded" in output
    assert "license: mit" in (tmp_path / "space" / "README.md").read_text()
