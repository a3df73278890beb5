"""What an import may be told beside the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Activation = Literal["gelu", "quick_gelu"]


@dataclass(frozen=True)
class ImportOptions:
    """See `import_checkpoint`, whose keywords these are."""

    tokenizer: str | Path | None = None
    activation: Activation | None = None
    modality: str = "satellite"
    target: str | Path | None = None
