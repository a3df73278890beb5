"""The `small` tower of text: a tokenizer trained on its captions, and the mean of word vectors refined."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from geobind.errors import GeoBindError, MediaError, shorten
from geobind.towers.base import Batch, Processor, Row, Tower, register

_PADDING = 0  # the tokenizer's numbers follow it, each plus one
_BYTES = 256


class SmallTextProcessor(Processor):
    """A sentence to its tokens, (length,) int64 from 1 on, the first `max_length` of them.

    Augmented: each token is left out with the probability `word_dropout`.
    """

    takes = "text"

    def __init__(self, modality: str, max_length: int, word_dropout: float) -> None:
        self.columns = (modality,)
        self.max_length = max_length
        self.word_dropout = word_dropout
        self.tokenizer: Tokenizer | None = None

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        if self.tokenizer is None:
            raise GeoBindError(
                f"the small {self.columns[0]} tower has no tokenizer before its first stage, which trains one "
                f"on the captions: bind it, call fit(rows), or load a saved space"
            )
        text = row[self.columns[0]]
        if not _readable(text):
            raise MediaError(
                f"{self.columns[0]}: {shorten(text)} is no sentence; give a string that is not empty"
            )
        tokens = 1 + np.array(self.tokenizer.encode(text).ids[: self.max_length], dtype=np.int64)
        if rng is not None:
            kept = rng.random(len(tokens)) >= self.word_dropout
            tokens = tokens[kept] if kept.any() else tokens
        return {"tokens": torch.from_numpy(tokens)}

    def collate(self, items: Sequence[Batch]) -> Batch:
        """(batch, longest) int64, padded with 0 at the end."""
        tokens = [item["tokens"] for item in items]
        return {"tokens": nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=_PADDING)}

    def settings(self) -> dict[str, Any]:
        digest = self.tokenizer and hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()[:16]
        return {"columns": list(self.columns), "max_length": self.max_length, "tokenizer": digest}


@register("small", modalities=("text",))
class SmallText(Tower):
    """Text from its captions alone: the mean of learned word vectors, and a perceptron beside it.

    Given the same time on a few thousand captions it does as well as a small transformer, and a batch
    costs less. `fit` trains the tokenizer (byte-level BPE of lower-case text, so any language is read)
    on the training captions; it is saved as `tokenizer.json`.

    Example (recipe): `text: {tower: small, vocab_size: 4096}`

    Parameters: `vocab_size` most tokens, 257 or more; `width` numbers it gives; `max_length` tokens read
    of a text; `dropout` share of features and `word_dropout` share of tokens left out in training.

    Raises GeoBindError where it embeds before `fit`.
    """

    processor: SmallTextProcessor

    def __init__(
        self,
        modality: str = "text",
        *,
        vocab_size: int = 4096,
        width: int = 256,
        max_length: int = 64,
        dropout: float = 0.1,
        word_dropout: float = 0.1,
    ) -> None:
        for name, value, least in (
            ("vocab_size", vocab_size, _BYTES + 1),
            ("width", width, 1),
            ("max_length", max_length, 1),
        ):
            if value < least:
                raise GeoBindError(f"tower 'small', option {name!r} = {value}: give {least} or more")
        for name, share in (("dropout", dropout), ("word_dropout", word_dropout)):
            if not 0 <= share < 1:
                raise GeoBindError(f"tower 'small', option {name!r} = {share:g}: give 0 or more, below 1")
        processor = SmallTextProcessor(modality, max_length, word_dropout)
        super().__init__(modality, width=width, processor=processor)
        self.vocab_size = vocab_size
        self.words = nn.Embedding(vocab_size, width, padding_idx=_PADDING)
        self.refine = nn.Sequential(
            nn.LayerNorm(width),
            nn.Dropout(dropout),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    @property
    def fitted(self) -> bool:
        return self.processor.tokenizer is not None

    def fit(self, rows: Iterable[Row]) -> None:
        """Train the tokenizer; the same texts give the same one, whatever their order."""
        texts = sorted(text for row in rows if _readable(text := row[self.modality]))
        if not texts:
            raise GeoBindError(f"the small {self.modality} tower found no words in its training rows")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size - 1,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        with _one_thread():
            tokenizer.train_from_iterator(texts, trainer)
        self.processor.tokenizer = tokenizer

    def encode(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        count = (tokens != _PADDING).sum(1, keepdim=True)
        mean = self.words(tokens).sum(1) / count  # padding is a vector of zeros
        return (mean + self.refine(mean)).float()

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        if self.processor.tokenizer is not None:
            self.processor.tokenizer.save(str(folder / "tokenizer.json"))

    def load_encoder(self, folder: Path) -> None:
        super().load_encoder(folder)
        path = folder / "tokenizer.json"
        if path.exists():
            self.processor.tokenizer = Tokenizer.from_file(str(path))


def _readable(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep `tokenizers` from starting threads: loader workers forked after them would warn, or hang."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
