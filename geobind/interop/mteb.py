"""A space as a model of mteb, which has third-party retrieval tasks between recordings and aerial images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from geobind.errors import GeoBindError
from geobind.space import GeoBind
from geobind.towers.base import Row

TASKS = ("SoundingEarthA2IRetrieval", "SoundingEarthI2ARetrieval")
_COLUMNS = ("audio", "image", "text")


class MtebEncoder:
    """A space as mteb calls its models; `picture` is the tower that the tasks' images go through.

    >>> import mteb                                                   # 2.26 or newer
    >>> encoder = MtebEncoder(space, name="me/geobind")
    >>> mteb.evaluate(encoder, mteb.get_tasks(tasks=list(TASKS)))     # downloads the tasks' data

    The tasks' items go to the space's processors as they are stored, undecoded sounds among them, so that
    neither torchcodec nor torchaudio is needed. Raises GeoBindError for items of a kind that the space
    has no tower for.
    """

    def __init__(
        self, space: GeoBind, *, name: str = "geobind/space", picture: str = "satellite", batch_size: int = 32
    ) -> None:
        self.space, self.name, self.batch_size = space, name, batch_size
        self.modalities = {"audio": "audio", "image": picture, "text": "text"}

    def encode(self, inputs: Any, **task: Any) -> np.ndarray:
        """(items, dim) float32 of unit length, of a loader over a `datasets.Dataset` as mteb makes them."""
        dataset = inputs.dataset
        column = next((name for name in _COLUMNS if name in dataset.column_names), None)
        if column is None or self.modalities[column] not in self.space.modalities:
            raise GeoBindError(
                f"mteb asks for {' or '.join(dataset.column_names)}, the space has {', '.join(self.space.modalities)}: "
                f"choose tasks between these, or the tower for images with `picture`"
            )
        if column == "audio":
            from datasets import Audio

            dataset = dataset.cast_column("audio", Audio(decode=False))
        rows = _Items(dataset, column, self.modalities[column])
        return self.space.embed_rows(self.modalities[column], rows, batch_size=self.batch_size)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of every pair: (len(embeddings1), len(embeddings2))."""
        return torch.from_numpy(self.space.similarity(embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of each with its counterpart: (len(embeddings1),)."""
        return F.cosine_similarity(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2), dim=-1)

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes beside the results; the revision is the towers' fingerprints."""
        from mteb.models import ModelMeta

        towers = [
            self.modalities[column] for column in _COLUMNS if self.modalities[column] in self.space.modalities
        ]
        return ModelMeta(
            loader=None, name=self.name, revision="-".join(map(self.space.fingerprint, towers)), release_date=None,
            languages=None, n_parameters=None, memory_usage_mb=None, max_tokens=None, embed_dim=self.space.dim,
            license=None, open_weights=None, public_training_code=None, public_training_data=None,
            framework=["PyTorch"], similarity_fn_name="cosine", use_instructions=False, training_datasets=None,
            modalities=[column for column in _COLUMNS if self.modalities[column] in towers],
        )  # fmt: skip


class _Items(Sequence[Row]):
    """Rows of a `datasets.Dataset`, read when they are embedded."""

    def __init__(self, dataset: Any, column: str, modality: str) -> None:
        self.dataset, self.column, self.modality = dataset, column, modality

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: Any) -> Any:
        value = self.dataset[row][self.column]
        if self.column == "audio":
            value = value["bytes"] or value["path"]
        return {self.modality: value}
