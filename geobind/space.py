"""GeoBind: the joint embedding space, its towers by modality and what makes their scores comparable."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn import functional as F
from torch.utils.data import DataLoader

from geobind.console import progress_bar
from geobind.errors import GeoBindError, GeoBindWarning, MediaError, did_you_mean
from geobind.storage import read_json, recover_folder, replace_folder, write_text, writing
from geobind.towers.base import Row, Tower, fingerprint, load_tower
from geobind.towers.rows import CollateReadable, ProcessedRows, conditioned_rows, warn_unconditioned

FORMAT = 1


class GeoBind:
    """One embedding space for several modalities.

    >>> space = GeoBind.from_pretrained("runs/geobind")
    >>> tiles = space.embed("satellite", ["tile_01.jpg", "tile_02.tif"])   # (2, dim) float32, unit length
    >>> space.similarity(space.embed("text", ["a harbour"]), tiles)        # (1, 2) cosine

    `dim` is the size of every embedding; `towers` may be added later with `add`.
    """

    def __init__(self, dim: int, towers: Iterable[Tower] = ()) -> None:
        self.dim = dim
        self.recipe: dict[str, Any] | None = None
        self.temperatures: dict[tuple[str, str], float] = {}
        self.calibration: dict[tuple[str, str], list[float]] = {}  # see geobind.retrieval.scores
        self.centres: dict[str, list[float]] = {}  # see geobind.retrieval.query
        self._towers: dict[str, Tower] = {}
        self._folders: dict[str, Path] = {}
        self._records: dict[str, dict[str, Any]] = {}
        for tower in towers:
            self.add(tower)

    def __repr__(self) -> str:
        return f"GeoBind(dim={self.dim}, modalities={', '.join(self.modalities)})"

    # --- towers ----------------------------------------------------------------------------------------

    @property
    def modalities(self) -> list[str]:
        return sorted({*self._towers, *self._folders})

    def add(self, tower: Tower) -> None:
        """Put a tower into the space, in place of an older one of its modality.

        Raises GeoBindError where its dimension is not the space's.
        """
        if tower.dim != self.dim:
            raise GeoBindError(
                f"the {tower.modality} tower gives {tower.dim} numbers, the space has {self.dim}: "
                f"a learner can get a head (build_tower(..., head='linear')), a frozen target must match"
            )
        self._towers[tower.modality] = tower.eval()
        self._folders.pop(tower.modality, None)
        self._records[tower.modality] = {"chain": [tower.origin] if tower.origin else []}
        self._forget(tower.modality)

    def tower(self, modality: str) -> Tower:
        """The tower of a modality, read from its folder at the first call."""
        if modality not in self._towers:
            if modality not in self._folders:
                raise GeoBindError(
                    f"the space has no tower for {modality!r}{did_you_mean(modality, self.modalities)}"
                )
            self._towers[modality] = load_tower(self._folders[modality])
        return self._towers[modality]

    def folder(self, modality: str) -> Path | None:
        """The folder from which a tower was or will be read; None for one that was built here."""
        if modality not in self._folders:
            self.tower(modality)
        return self._folders.get(modality)

    def fingerprint(self, modality: str) -> str:
        """Digest of what decides the modality's embeddings; galleries and caches are kept under it."""
        if modality in self._towers or modality not in self._folders:
            return fingerprint(self.tower(modality))
        return str(self._records[modality]["fingerprint"])

    def chain(self, modality: str) -> tuple[str, ...]:
        """Fingerprints (and origins) of the towers to which this one was bound, directly or through others."""
        if modality not in self._records:
            self.tower(modality)
        return tuple(self._records[modality]["chain"])

    def comparable(self, a: str, b: str) -> bool:
        """Whether the chains of two modalities meet, so that their vectors may be compared."""
        return a == b or not {self.fingerprint(a), *self.chain(a)}.isdisjoint(
            {self.fingerprint(b), *self.chain(b)}
        )

    def trained(self, a: str, b: str) -> bool:
        """Whether some stage has pulled the two modalities together (False: an emergent pair)."""
        return _pair(a, b) in self.temperatures

    def record_binding(
        self, learners: Collection[str], temperatures: Mapping[tuple[str, str], float]
    ) -> None:
        """Note, at the end of a stage, which towers moved and to what each link bound them."""
        links = [_pair(*link) for link in temperatures]
        prints = {modality: self.fingerprint(modality) for modality in {m for link in links for m in link}}
        for learner in learners:
            chain: set[str] = set()
            for other in {m for link in links if learner in link for m in link} - {learner}:
                chain.add(prints[other])
                if other not in learners:
                    chain.update(self.chain(other))
            self._records[learner] = {"chain": sorted(chain)}
            self.tower(learner).origin = None  # it has moved away from there
            self._forget(learner)
        self.temperatures.update({_pair(*link): float(value) for link, value in temperatures.items()})

    def _forget(self, modality: str) -> None:
        """Drop what was measured with a tower that is no longer the same."""
        self.calibration = {pair: q for pair, q in self.calibration.items() if modality not in pair}
        self.centres.pop(modality, None)

    # --- use -------------------------------------------------------------------------------------------

    def embed(
        self,
        modality: str,
        values: Sequence[Any] | np.ndarray,
        *,
        latitude: ArrayLike | None = None,
        longitude: ArrayLike | None = None,
        datetime: Any = None,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        on_error: Literal["raise", "skip"] = "raise",
        workers: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """Embeddings of raw values, in their order: (n, dim) float32, unit length.

        >>> space.embed("location", [(21.3, -157.8)]).shape
        (1, 512)

        `values` are what the modality's processor takes: paths, bytes, arrays, sentences, (lat, lon).
        `latitude`, `longitude` (degrees) and `datetime` (ISO 8601 or datetime, UTC), one for all or one
        each, are for towers conditioned on place and time; without them they embed these as unknown.
        `dtype` is the precision of the computation; `device` is the GPU where there is one.
        `on_error="skip"` leaves a row of NaN for what cannot be read and warns with the list.
        Raises GeoBindError for an unknown modality, MediaError naming the first unreadable value.
        """
        if isinstance(values, (str, bytes, Path)):
            raise GeoBindError(
                f"embed takes a list of values, got one {type(values).__name__}: write [{values!r:.40}]"
            )
        rows = conditioned_rows(
            modality, values, self.tower(modality).processor,
            latitude=latitude, longitude=longitude, datetime=datetime,
        )  # fmt: skip
        return self.embed_rows(
            modality, rows, batch_size=batch_size, device=device, dtype=dtype, on_error=on_error,
            workers=workers, progress=progress,
        )  # fmt: skip

    def embed_rows(
        self,
        modality: str,
        rows: Sequence[Row],
        *,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        on_error: Literal["raise", "skip"] = "raise",
        workers: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """`embed` for rows (mappings that hold what the processor reads), such as those of `Pairs`."""
        out = np.full((len(rows), self.dim), np.nan, dtype=np.float32)
        failed: list[str] = []
        for positions, vectors, errors in self.embed_batches(
            modality, rows, batch_size=batch_size, device=device, dtype=dtype, on_error=on_error,
            workers=workers, progress=progress,
        ):  # fmt: skip
            out[positions] = vectors
            failed += errors
        if failed:
            warn_unreadable(failed, f"{len(rows)} {modality} values", "are rows of NaN")
        return out

    def embed_batches(
        self,
        modality: str,
        rows: Sequence[Row],
        *,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        on_error: Literal["raise", "skip"] = "raise",
        workers: int = 0,
        progress: bool = False,
    ) -> Generator[tuple[list[int], np.ndarray, list[str]], None, None]:
        """`embed_rows` as it goes, for more rows than fit in memory: of each batch the positions of the
        rows that could be read, their embeddings (n, dim), and a message for each of the others."""
        if on_error not in ("raise", "skip"):
            raise GeoBindError(f"on_error is {on_error!r}; give 'raise' or 'skip'")
        tower = self.tower(modality)
        place = _move(tower, device)
        warn_unconditioned(modality, tower.processor, rows)
        loader = DataLoader(
            ProcessedRows(rows, tower.processor), batch_size=batch_size, num_workers=workers, collate_fn=CollateReadable(tower.processor),
            persistent_workers=False, multiprocessing_context="spawn" if workers else None,
        )  # fmt: skip
        precision = getattr(torch, dtype)
        was_training = tower.training
        tower.eval()
        try:
            with progress_bar(disable=not progress) as bar:
                task = bar.add_task(f"embedding {modality}", total=len(rows), note="")
                began, done = time.monotonic(), 0
                for positions, batch, errors in loader:
                    if errors and on_error == "raise":
                        raise MediaError(errors[0])
                    vectors = np.zeros((0, self.dim), np.float32)
                    if batch is not None:
                        # Not around the yield: the caller's code is not ours to run in inference mode.
                        with torch.inference_mode():
                            there = {key: value.to(place) for key, value in batch.items()}
                            inputs = tower.processor.finish(there)
                            with torch.autocast(place.type, precision, enabled=precision != torch.float32):
                                output = tower(**inputs)
                            vectors = F.normalize(output.float(), dim=-1).cpu().numpy()
                        wrong = np.flatnonzero(~np.isfinite(vectors).all(1))
                        if len(wrong):
                            raise GeoBindError(
                                f"the {modality} tower gives NaN for row {positions[wrong[0]]}: "
                                f"its weights are broken, or dtype={dtype} is too narrow for it"
                            )
                    yield positions, vectors, errors
                    done += len(positions) + len(errors)
                    bar.update(
                        task, completed=done, note=f"{done / (time.monotonic() - began + 1e-9):,.0f}/s"
                    )
        finally:
            tower.train(was_training)

    @staticmethod
    def similarity(a: np.ndarray | torch.Tensor, b: np.ndarray | torch.Tensor) -> np.ndarray:
        """Cosine of every embedding of `a` with every one of `b`: (len(a), len(b)) float32."""
        x, y = (F.normalize(torch.atleast_2d(torch.as_tensor(v)).float(), dim=-1) for v in (a, b))
        return (x @ y.T).numpy()

    # --- files -----------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `space.json` and one sub-folder a tower; towers already there unchanged are left alone.

        A tower's folder is in the layout of the library it came from, so `transformers` opens it.
        """
        folder = Path(folder)
        with writing(folder):
            self._save(folder)

    def _save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        written = read_json(folder / "space.json").get("towers", {})
        towers: dict[str, Any] = {}
        for modality in self.modalities:
            digest = self.fingerprint(modality)
            target = folder / modality
            if written.get(modality, {}).get("fingerprint") != digest or not (target / "tower.json").exists():
                replace_folder(target, partial(self._write_tower, modality))
            towers[modality] = {"fingerprint": digest, "chain": list(self.chain(modality))}
        content = {
            "format": FORMAT,
            "dim": self.dim,
            "towers": towers,
            "links": [
                {"between": list(pair), "temperature": t} for pair, t in sorted(self.temperatures.items())
            ],
            "calibration": [
                {"between": list(pair), "quantiles": q} for pair, q in sorted(self.calibration.items())
            ],
            "centres": dict(sorted(self.centres.items())),
            "recipe": self.recipe,
        }
        write_text(folder / "space.json", json.dumps(content, indent=2) + "\n")

    def _write_tower(self, modality: str, folder: Path) -> None:
        if modality in self._towers:
            self._towers[modality].save(folder)
        else:
            shutil.copytree(self._folders[modality], folder, dirs_exist_ok=True)

    @classmethod
    def from_pretrained(cls, folder: str | Path, modalities: Collection[str] | None = None) -> GeoBind:
        """A saved space, from a folder or a Hub id; each tower is read when it is first used.

        `modalities` limits the space to some towers. Raises GeoBindError where there is no space.
        """
        root = _resolve(folder, modalities)
        content = read_json(root / "space.json")
        if content.get("format") != FORMAT:
            raise GeoBindError(
                f"{root} was written in format {content.get('format')}, this version reads {FORMAT}: update geobind"
            )
        space = cls(content["dim"])
        space.recipe = content["recipe"]
        space.temperatures = {_pair(*link["between"]): link["temperature"] for link in content["links"]}
        space.calibration = {_pair(*c["between"]): c["quantiles"] for c in content.get("calibration", ())}
        space.centres = dict(content.get("centres", {}))
        for modality in content["towers"] if modalities is None else modalities:
            if modality not in content["towers"]:
                raise GeoBindError(
                    f"{root} has no tower for {modality!r}{did_you_mean(modality, content['towers'])}"
                )
            recover_folder(root / modality)
            space._folders[modality] = root / modality
            space._records[modality] = dict(content["towers"][modality])
        return space


def best_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def _move(tower: Tower, device: str | torch.device | None) -> torch.device:
    """Put a tower on a device. Raises GeoBindError for one that is not there."""
    try:
        place = torch.device(device if device is not None else best_device())
        tower.to(place)
    except (RuntimeError, AssertionError) as error:  # an assertion where torch was built without CUDA
        raise GeoBindError(
            f"device {str(device)!r} cannot be used ({str(error).splitlines()[0]}): give cpu, cuda, cuda:1 or mps"
        ) from None
    return place


def warn_unreadable(messages: Sequence[str], of: str, result: str) -> None:
    """Warn that values could not be read: how many of which, what became of them, and the first reasons."""
    warnings.warn(
        f"{len(messages)} of {of} could not be read and {result}: {'; '.join(messages[:3])}"
        + ("; ..." if len(messages) > 3 else ""),
        GeoBindWarning,
        stacklevel=3,
    )


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a <= b else (b, a)


def _resolve(folder: str | Path, modalities: Collection[str] | None) -> Path:
    """The local folder of a space; a Hub id is downloaded (weights are safetensors, nothing is executed)."""
    root = Path(folder)
    if (root / "space.json").exists():
        return root
    name = str(folder)
    if root.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise GeoBindError(
            f"{folder} holds no space (no space.json): give a folder that save_pretrained or `geobind bind` wrote"
        )
    from huggingface_hub import snapshot_download

    wanted = ["space.json", *(["*"] if modalities is None else [f"{m}/*" for m in modalities])]
    try:
        return Path(
            snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*.bin", "*.pt", "*.py", "*.pkl"])
        )
    except Exception as error:  # the Hub client raises many kinds; the remedy is one
        raise GeoBindError(
            f"{name} is neither a folder with a space.json nor a Hub id that can be reached ({type(error).__name__}): "
            f"check the path, or the network"
        ) from None
