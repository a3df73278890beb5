"""A space on the Hub: the model card that says what it is and how it was measured, and the upload."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from geobind import __version__
from geobind.binding.stage import Stage
from geobind.describe import describe
from geobind.errors import GeoBindError, shorten
from geobind.retrieval.report import Report
from geobind.space import GeoBind
from geobind.storage import read_json, write_text
from geobind.towers.checkpoints import first_line

_MARK = (
    "<!-- Written by geobind from space.json and metrics.json; remove this line to keep your own text. -->"
)
_FILES = ("space.json", "README.md", "recipe.json", "metrics.json", "metrics.md", "recall.png")


def model_card(folder: str | Path, *, licence: str = "other") -> str:
    """The Markdown of a saved space's README.md: towers, recipe, data, licences, metrics and their protocol.

    >>> write_card("runs/geobind", licence="cc-by-4.0").read_text().splitlines()[0]
    '---'

    Metrics are those of `geobind evaluate` (metrics.json), with intervals and chance; without them the
    card says so. Of data, names and columns are told and no paths. `licence` is an identifier of the Hub.
    """
    folder = Path(folder)
    space = GeoBind.from_pretrained(folder)
    content = describe(space)
    front = {
        "library_name": "geobind",
        "license": licence,
        "tags": ["remote-sensing", "multimodal", *space.modalities],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        _MARK,
        f"# {folder.resolve().name}",
        f"One embedding space of {space.dim} numbers for {_and(space.modalities)}, bound with geobind {__version__}.",
        "\n".join(_use(space)),
        "## Towers",
        "\n".join(_towers(content)),
        "## How it was bound",
        "\n".join(_binding(content, space.recipe)),
        "## Data",
        "\n".join(_data(space.recipe)),
        "## Licences",
        "\n".join(_licences(content, licence)),
        _metrics(folder),
    ]
    return "\n\n".join(parts).rstrip() + "\n"


def write_card(folder: str | Path, *, licence: str = "other") -> Path:
    """Write README.md into a saved space; one that geobind did not write is left alone."""
    path = Path(folder) / "README.md"
    if not path.exists() or _MARK in path.read_text(encoding="utf-8"):
        write_text(path, model_card(folder, licence=licence))
    return path


def push_to_hub(
    folder: str | Path, repo: str, *, private: bool = False, licence: str = "other", api: Any = None
) -> str:
    """Upload a saved space with its card to the Hub, where `GeoBind.from_pretrained(repo)` opens it.

    >>> push_to_hub("runs/geobind", "me/geobind", licence="cc-by-4.0")
    'https://huggingface.co/me/geobind'

    Only the space itself goes there: no checkpoints of training, no logs. `api` is a
    `huggingface_hub.HfApi`; by default the one of the logged-in user. Raises GeoBindError where the Hub
    cannot be reached or refuses.
    """
    folder = Path(folder)
    write_card(folder, licence=licence)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=upload_patterns(folder),
            commit_message=f"Space of {_and(GeoBind.from_pretrained(folder).modalities)}",
        )  # fmt: skip
    except Exception as error:  # the Hub client raises many kinds; the remedy is one
        raise GeoBindError(
            f"{repo} was not uploaded ({type(error).__name__}: {first_line(error)[:120]}): check the name and the "
            f"network, and log in with `hf auth login`"
        ) from None
    return str(url)


def upload_patterns(folder: str | Path) -> list[str]:
    """What of a saved space is uploaded: its own files, and the folders of its towers."""
    towers = read_json(Path(folder) / "space.json").get("towers", {})
    return [*_FILES, *(f"{modality}/*" for modality in towers)]


def _use(space: GeoBind) -> Iterator[str]:
    yield "```python"
    yield "from geobind import GeoBind"
    yield ""
    yield 'space = GeoBind.from_pretrained("OWNER/NAME")   # this repository'
    yield f'space.embed("{space.modalities[0]}", values)    # (n, {space.dim}) float32, unit length'
    yield "```"


def _towers(content: Mapping[str, Any]) -> Iterator[str]:
    yield "| modality | tower | parameters | weights it began with | fingerprint |"
    yield "|---|---|---:|---|---|"
    for modality, tower in content["towers"].items():
        source = tower["source"] or "none recorded"
        yield f"| {modality} | `{tower['kind']}` | {tower['parameters']:,} | {source} | `{tower['fingerprint']}` |"


def _binding(content: Mapping[str, Any], recipe: Mapping[str, Any] | None) -> Iterator[str]:
    for link in content["links"]:
        one, two = link["between"]
        yield f"- {one} and {two} were trained together, at temperature {link['temperature']:.4f} in the end."
    emergent = [pair["between"] for pair in content["comparable"] if not pair["trained"]]
    for one, two in emergent:
        yield f"- {one} and {two} can be compared and were never trained together (emergent)."
    if recipe is None:
        yield "- No recipe was saved with the space."
        return
    for number, saved in enumerate(recipe.get("stages", []), 1):
        stage = Stage.model_validate(saved)  # with its defaults
        links = ", ".join(f"{link.query} to {link.gallery} ({link.loss})" for link in stage.links)
        rate = "the towers' usual learning rates" if stage.lr is None else f"learning rate {stage.lr:g}"
        yield (
            f"- Stage {number}, `{stage.name}`: learns {_and(list(map(str, stage.learners)))}; {links}; pairs `{stage.pairs}`, "
            f"{stage.epochs} epochs, batches of {stage.batch_size}, {rate}."
        )
    yield f"- Seed {recipe.get('seed')}. The whole recipe is in `space.json`."


def _data(recipe: Mapping[str, Any] | None) -> Iterator[str]:
    pairs = (recipe or {}).get("pairs") or {}
    if not pairs:
        yield "Not recorded."
    for name, spec in pairs.items():
        place = Path(str(spec.get("table") or spec.get("folder") or "?")).name
        features = ", ".join(sorted(spec.get("features") or {}))
        yield f"- `{name}`: {place}" + (f"; precomputed features of {features}" if features else "")


def _licences(content: Mapping[str, Any], licence: str) -> Iterator[str]:
    yield f"- This space: {licence}{' (its owner has not chosen one)' if licence == 'other' else ''}."
    for modality, tower in content["towers"].items():
        if tower["source"]:
            yield f"- The {modality} tower began with {tower['source']}: {tower['licence']}."
    yield "- Data keep their own licences, which may limit what the weights can be used for."


def _metrics(folder: Path) -> str:
    path = folder / "metrics.json"
    if not path.exists():
        return "## Metrics\n\nNot measured yet: `geobind evaluate` writes them."
    try:
        text = Report(json.loads(path.read_text(encoding="utf-8"))).to_markdown()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GeoBindError(
            f"{path} cannot be read ({shorten(str(error))}): run geobind evaluate again"
        ) from None
    return text.replace("\n## ", "\n### ").replace("# Retrieval", "## Metrics", 1)


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
