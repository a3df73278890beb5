"""Where a checkpoint is: always a local folder, a Hub id resolved to one, so that everything else reads files.

Weights are safetensors; no code of a checkpoint is run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from geobind.errors import GeoBindError

# What a tower needs of a Hub repository: no weights of other libraries, no second precision.
_FILES = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors"]


def checkpoint(weights: str | Path | None) -> Path | None:
    """The local folder of `weights`: a folder, a Hub id (downloaded or cached), or None for "none".

    Raises GeoBindError for what is neither, and for a folder without safetensors.
    """
    if weights is None or str(weights) == "none":
        return None
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        if folder.exists():
            raise GeoBindError(f"weights {weights} is a file: give the folder that holds config.json and it")
        folder = _hub_folder(str(weights))
    if not _weight_files(folder):
        raise GeoBindError(
            f"weights {weights} holds no model.safetensors, and pickled weights are not read; convert it once: "
            f"AutoModel.from_pretrained({str(weights)!r}, use_safetensors=False).save_pretrained(NEW_FOLDER)"
        )
    return folder


def joint_origin(family: str, source: Path | None) -> str | None:
    """Name of the space of a joint checkpoint ("clip:<digest>"), None where there is no joint one.

    The digest is of what its sides were trained to share, the temperatures, the projections and (SigLIP)
    the pooling heads: two towers have the same origin when both come from the same checkpoint.
    """
    if source is None:
        return None
    from safetensors import safe_open

    shared: dict[str, bytes] = {}
    for path in _weight_files(source):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118  not a mapping
                if key.startswith("logit_") or "_projection." in key or ".head." in key:
                    shared[key] = file.get_tensor(key).flatten().view(torch.uint8).numpy().tobytes()
    if not any(key.startswith("logit_") for key in shared):
        return None
    digest = hashlib.sha256()
    for key, data in sorted(shared.items()):
        digest.update(key.encode() + data)
    return f"{family}:{digest.hexdigest()[:16]}"


def preprocessor(source: Path | None) -> dict[str, Any]:
    """What `preprocessor_config.json` says, {} where there is none."""
    if source is None:
        return {}
    if (source / "preprocessor_config.json").exists():
        return read_json(source / "preprocessor_config.json")
    if not (source / "processor_config.json").exists():
        return {}
    whole = read_json(
        source / "processor_config.json"
    )  # transformers 5 saves a whole processor into one file
    return dict(whole.get("image_processor") or whole.get("feature_extractor") or {})


def _weight_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("model.safetensors"), *folder.glob("model-*.safetensors")])


def _hub_folder(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    def download(revision: str | None = None) -> Path:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=_FILES, ignore_patterns=["*/*"])
        )

    try:
        folder = download()
        if _weight_files(folder):
            return folder
        # Old repositories hold pytorch_model.bin, and a pull request by the Hub's own converter.
        cached = [f"refs/pr/{path.name}" for path in folder.parents[1].glob("refs/refs/pr/*")]
        revisions = cached or [
            str(request.git_reference)
            for request in HfApi().get_repo_discussions(
                name, author="SFconvertbot", discussion_type="pull_request", discussion_status="open"
            )
        ]
        return download(revisions[0]) if revisions else folder
    except Exception as error:  # the Hub client raises many kinds; the remedy is one
        raise GeoBindError(
            f"weights {name!r} is neither a folder nor a Hub id that is cached or can be reached "
            f"({type(error).__name__}): check the path or the network, or build from a `config`"
        ) from None


def read_json(path: str | Path) -> dict[str, Any]:
    """A file that holds a JSON object; of a folder, its config.json."""
    path = Path(path).expanduser()
    try:
        values = json.loads((path / "config.json" if path.is_dir() else path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GeoBindError(
            f"{path} is no JSON file that can be read ({first_line(error)}): check it"
        ) from None
    if not isinstance(values, dict):
        raise GeoBindError(f"{path} holds a {type(values).__name__}, a JSON object is expected: check it")
    return values


def first_line(error: BaseException) -> str:
    """The first sentence of a library's message, which can be pages long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
