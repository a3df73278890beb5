"""Text for the models of transformers: its tokenizers, refused where they are empty, and the processor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import pad

from geobind.errors import GeoBindError, MediaError, shorten
from geobind.towers.base import Batch, Processor, Row
from geobind.towers.pretrained import quiet


class TextProcessor(Processor):
    """A sentence to token ids; a batch is padded to its longest, or always to `max_length`.

    {"input_ids": (batch, length) int64, "attention_mask": the same, 1 for tokens and 0 for padding}
    """

    columns = ("text",)
    takes = "text"

    def __init__(self, tokenizer: Any, *, max_length: int, fixed_length: bool = False) -> None:
        self.max_length = max_length
        self.fixed_length = fixed_length
        self.pad, self.left = int(tokenizer.pad_token_id), tokenizer.padding_side == "left"
        # The compiled tokenizer alone, where there is one: workers need not import transformers.
        self.tokenizer = tokenizer
        if tokenizer.is_fast:
            self.tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            self.tokenizer.no_padding()
            self.tokenizer.enable_truncation(max_length)

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        text = row["text"]
        if not isinstance(text, str) or not text.strip():
            raise MediaError(f"text: {shorten(text)} is no sentence; give a string that is not empty")
        if isinstance(self.tokenizer, Tokenizer):
            ids = self.tokenizer.encode(text).ids
        else:
            ids = self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]
        return {"input_ids": torch.tensor(ids)}

    def collate(self, items: Sequence[Batch]) -> Batch:
        rows = [item["input_ids"] for item in items]
        length = self.max_length if self.fixed_length else max(map(len, rows))

        def stack(rows: list[Tensor], value: int) -> Tensor:
            gaps = [length - len(row) for row in rows]
            sides = [(gap, 0) if self.left else (0, gap) for gap in gaps]
            return torch.stack([pad(row, side, value=value) for row, side in zip(rows, sides, strict=True)])

        return {"input_ids": stack(rows, self.pad), "attention_mask": stack([*map(torch.ones_like, rows)], 0)}

    def settings(self) -> dict[str, Any]:
        if isinstance(self.tokenizer, Tokenizer):
            content = self.tokenizer.to_str()
        else:
            content = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        return {
            "columns": list(self.columns),
            "tokenizer": hashlib.sha256(content.encode()).hexdigest()[:16],
            "max_length": self.max_length,
            "fixed_length": self.fixed_length,
            "padding": [self.pad, self.left],
        }


def load_tokenizer(source: Path | None, tokenizer: str | Path | None, vocab_size: int) -> Any:
    """The tokenizer in the folder `tokenizer`, else the checkpoint's.

    Raises GeoBindError where there is none (the library would build an empty one without a word) and
    where it gives ids that the model has no embedding for.
    """
    folder = source if tokenizer is None else Path(tokenizer).expanduser()
    if folder is None:
        raise GeoBindError(
            "a text tower from a bare config knows no words: give `tokenizer` (a folder that save_pretrained wrote), "
            "or `weights` that bring one"
        )
    if not folder.is_dir():
        raise GeoBindError(f"tokenizer {folder} is no folder: give one with the files of a tokenizer")
    from transformers import AutoTokenizer

    try:
        with quiet():
            loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each family raises its own kinds, ImportError for sentencepiece among them
        reason = " ".join(str(error).split())[:200]
        raise GeoBindError(f"tokenizer {folder} cannot be read ({reason}): check its files") from None
    if len(loaded) <= len(set(loaded.all_special_ids)):
        raise GeoBindError(
            f"{folder} holds no tokenizer (no tokenizer.json or vocabulary): copy its files there, or give `tokenizer`"
        )
    if len(loaded) > vocab_size:
        raise GeoBindError(
            f"tokenizer {folder} has {len(loaded)} tokens, the model embeds {vocab_size}: they do not belong together"
        )
    if loaded.pad_token_id is None:
        raise GeoBindError(f"tokenizer {folder} has no padding token: set pad_token and save it again")
    return loaded


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """In the library's layout."""
    with quiet():
        tokenizer.save_pretrained(folder)
