"""What a space holds and what is installed here: `geobind info` and `geobind doctor`."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from safetensors import SafetensorError, safe_open

from geobind import __version__
from geobind.console import add_row, size_text, table
from geobind.errors import GeoBindError
from geobind.space import GeoBind
from geobind.storage import cache_folder
from geobind.towers.base import read_spec

DEPENDENCIES = (
    "accelerate", "matplotlib", "numpy", "pillow", "pyarrow", "pydantic", "pyyaml", "rich", "safetensors", "simplejpeg",
    "soundfile", "soxr", "tensorboardX", "tokenizers", "torch", "transformers", "typer",
)  # fmt: skip
EXTRAS = {
    "adapters": ("peft",),
    "demo": ("basemap-data",),
    "gallery": ("lancedb", "shapely"),
    "geo": ("pyproj", "rasterio", "scipy", "shapely", "xarray"),
    "onnx": ("onnx", "onnxruntime"),
    "ray": ("ray",),
    "stac": ("pystac-client",),
    "tasks": ("scikit-learn",),
}  # fmt: skip

# Licences of published weights by the beginning of their Hub id, as their authors give them.
_WEIGHTS_LICENCES = {
    "openai/clip-": "MIT",
    "laion/clap-": "Apache-2.0",
    "google/siglip-": "Apache-2.0",
    "facebook/dinov2-": "Apache-2.0",
    "facebook/dinov3-": "DINOv3 License",
}


# --- a space -----------------------------------------------------------------------------------------------


def describe(space: GeoBind) -> dict[str, Any]:
    """What a space holds, as JSON; towers that were not read yet are described from their files' headers.

    >>> describe(space)["towers"]["satellite"]
    {'kind': 'clip', 'parameters': 87849216, 'width': 512, 'head': None, 'fingerprint': '5f0c...', 'chain': [...],
     'source': 'openai/clip-vit-base-patch32', 'licence': 'MIT'}

    `parameters` counts the floating-point numbers in the weights, buffers and head included. `links` are
    the trained pairs with their temperatures, `comparable` all pairs whose chains meet. `source` is the Hub
    id of the weights and None where none is recorded.
    """
    towers = {modality: _describe_tower(space, modality) for modality in space.modalities}
    return {
        "dim": space.dim,
        "towers": towers,
        "links": [
            {"between": list(pair), "temperature": t} for pair, t in sorted(space.temperatures.items())
        ],
        "comparable": [
            {"between": [a, b], "trained": space.trained(a, b)}
            for a, b in itertools.combinations(space.modalities, 2)
            if space.comparable(a, b)
        ],
        "recipe": None if space.recipe is None else _summarise(space.recipe),
    }


def _describe_tower(space: GeoBind, modality: str) -> dict[str, Any]:
    folder = space.folder(modality)
    if folder is not None:
        spec = read_spec(folder)
        shapes = _header_shapes(folder)
        kind, source, head = spec["kind"], spec.get("source"), spec["head"]
        width = space.dim if head is None else shapes["head.safetensors"]["0.weight"][1]
        parameters = sum(math.prod(shape) for file in shapes.values() for shape in file.values())
    else:
        tower = space.tower(modality)
        kind, source, width = tower.kind, tower.source, tower.width
        head = None if tower.head is None else {**tower.head.options.model_dump(), "dim": tower.head.dim}
        parameters = sum(t.numel() for t in tower.state_dict().values() if t.is_floating_point())
    return {
        "kind": kind,
        "parameters": parameters,
        "width": width,
        "head": head,
        "fingerprint": space.fingerprint(modality),
        "chain": list(space.chain(modality)),
        "source": source,
        "licence": _weights_licence(source),
    }


def _header_shapes(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Shapes of the floating-point tensors by file and name, without reading them."""
    shapes: dict[str, dict[str, list[int]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a mapping
                shapes[path.name] = {
                    name: part.get_shape()
                    for name, part in slices.items()
                    if part.get_dtype().startswith(("F", "BF"))
                }
        except (OSError, SafetensorError) as error:
            raise GeoBindError(f"{path} cannot be read ({error}): copy or save the space again") from None
    return shapes


def _weights_licence(source: str | None) -> str | None:
    if source is None:
        return None
    for beginning, licence in _WEIGHTS_LICENCES.items():
        if source.startswith(beginning):
            return licence
    return "see the model card"


def _summarise(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Stages with their learners, links and pairs, and how many evaluations."""
    return {
        "seed": recipe.get("seed"),
        "stages": [
            {
                "name": stage["name"],
                "learners": stage["learners"],
                "links": [[link["query"], link["gallery"]] for link in stage["links"]],
                "pairs": stage["pairs"],
            }
            for stage in recipe.get("stages", [])
        ],
        "evaluations": len(recipe.get("evaluations", [])),
    }


def space_tables(content: Mapping[str, Any]) -> list[Table]:
    """What `describe` gives as tables for a terminal of 100 columns (80 will do)."""
    towers = content["towers"]
    names = {tower["fingerprint"]: modality for modality, tower in towers.items()}
    shown = table(
        f"{len(towers)} towers to {content['dim']} numbers",
        "Modality", "Tower", "Parameters", "Head", "Fingerprint", "Bound to", right=("Parameters",),
    )  # fmt: skip
    for modality, tower in towers.items():
        add_row(
            shown,
            modality,
            tower["kind"],
            f"{tower['parameters']:,}",
            "none"
            if tower["head"] is None
            else f"{tower['head']['kind']}, {tower['width']} to {tower['head']['dim']}",
            tower["fingerprint"],
            # A tower that moved since has no name here: its old fingerprint stands for it.
            "\n".join(sorted(names.get(link, link) for link in tower["chain"])) or "nothing yet",
        )
    temperatures = {tuple(link["between"]): link["temperature"] for link in content["links"]}
    comparable = {tuple(pair["between"]) for pair in content["comparable"]}
    pairs = table(
        "Pairs of modalities", "Modalities", "Comparable", "How", "Temperature", right=("Temperature",)
    )
    for pair in itertools.combinations(towers, 2):
        how = "trained" if pair in temperatures else "emergent" if pair in comparable else ""
        temperature = f"{temperatures[pair]:.4f}" if pair in temperatures else ""
        add_row(pairs, ", ".join(pair), "yes" if pair in comparable else "no", how, temperature)
    tables = [shown]
    if len(towers) > 1:
        tables.append(pairs)
    if any(tower["source"] for tower in towers.values()):
        tables.append(_weights(towers))
    return tables + _recipe_tables(content["recipe"])


def _weights(towers: Mapping[str, Any]) -> Table:
    shown = table("Weights", "Modality", "Tower", "From", "Licence")
    for modality, tower in towers.items():
        add_row(shown, modality, tower["kind"], tower["source"] or "not recorded", tower["licence"] or "")
    return shown


def _recipe_tables(recipe: Mapping[str, Any] | None) -> list[Table]:
    if recipe is None or not recipe["stages"]:
        return []
    title = f"Recipe: seed {recipe['seed']}, {recipe['evaluations']} evaluations"
    shown = table(title, "Stage", "Learners", "Links", "Pairs")
    for stage in recipe["stages"]:
        links = "\n".join(" - ".join(link) for link in stage["links"])
        add_row(shown, stage["name"], "\n".join(stage["learners"]), links, stage["pairs"])
    return [shown]


# --- this machine ------------------------------------------------------------------------------------------


def doctor_tables(space: GeoBind | None = None) -> list[Table]:
    """Versions and licences, extras, devices and caches as tables; with a space, its weights' licences too."""
    tables = [_versions(), _extras(), _devices(), _caches()]
    if space is not None:
        tables.append(_weights(describe(space)["towers"]))
    return tables


def _versions() -> Table:
    shown = table("Versions", "Package", "Version", "Licence")
    add_row(shown, "python", platform.python_version(), "PSF-2.0")
    add_row(shown, "geobind", __version__, "Apache-2.0")
    for name in DEPENDENCIES:
        add_row(shown, name, _version(name) or "missing: pip install " + name, licence(name))
    if importlib.util.find_spec("torchvision") is not None:
        shown.caption = (
            "Warning: torchvision is installed. geobind does not use it, and its wheels may break a CPU-only torch "
            "(pip uninstall torchvision)."
        )
    return shown


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def licence(name: str) -> str:
    """Licence of an installed distribution in a few words, by its own metadata; "" where it says nothing."""
    try:
        content: Any = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    # The field License may hold the whole text: a classifier is shorter then.
    field = (content.get("License") or "").strip()
    classifiers = [c for c in content.get_all("Classifier") or [] if c.startswith("License ::")]
    text = content.get("License-Expression") or ("" if "\n" in field or len(field) > 60 else field)
    text = text or (classifiers[0].split(" :: ")[-1] if classifiers else field.partition("\n")[0])
    return text if len(text) <= 40 else text[:37] + "..."


def _extras() -> Table:
    shown = table("Extras", "Extra", "Packages", "Installed")
    for extra, names in EXTRAS.items():
        versions = [_version(name) for name in names]
        found = ", ".join(version or "" for version in versions)
        add_row(
            shown, extra, ", ".join(names), found if all(versions) else f'no: pip install "geobind[{extra}]"'
        )
    return shown


def _devices() -> Table:
    shown = table("Devices", "Device", "What", "Memory", right=("Memory",))
    add_row(shown, "cpu", f"{os.cpu_count()} cores, {platform.machine()}", _memory())
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        add_row(shown, f"cuda:{index}", properties.name, size_text(properties.total_memory))
    if torch.backends.mps.is_available():
        add_row(shown, "mps", "Apple GPU", "shared")
    if shown.row_count == 1:
        add_row(shown, "no accelerator", "neither CUDA nor MPS", "")
    return shown


def _memory() -> str:
    try:
        return size_text(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        return "unknown"


def _caches() -> Table:
    from huggingface_hub.constants import HF_HUB_CACHE

    shown = table("Caches", "Cache", "Size", "Folder", right=("Size",))
    for name, folder in (("frozen targets", cache_folder()), ("Hugging Face Hub", Path(HF_HUB_CACHE))):
        add_row(shown, name, size_text(_folder_size(folder)) if folder.exists() else "empty", str(folder))
    return shown


def _folder_size(folder: Path) -> int:
    """Bytes of the files below; the Hub's links to its own files count as links."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(folder) for name in names
    )
