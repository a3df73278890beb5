"""The projection that takes a learner's encoder to the dimension of the space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from geobind.errors import GeoBindError, first_problem


class HeadOptions(BaseModel):
    """`kind: none`, `linear` or `mlp` (Linear, GELU, dropout, Linear), as a recipe writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["none", "linear", "mlp"] = "mlp"
    hidden: int = Field(1024, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)


def head_options(head: str | Mapping[str, Any], width: int, dim: int) -> HeadOptions:
    """A recipe's `head` as checked options. Raises GeoBindError naming the key."""
    if head == "auto":
        return HeadOptions.model_validate({"kind": "none" if width == dim else "linear"})
    try:
        return HeadOptions.model_validate({"kind": head} if isinstance(head, str) else dict(head))
    except ValidationError as error:
        problem = first_problem(error, lambda path: HeadOptions.model_fields)
        raise GeoBindError(f"head: {problem}") from None


class Head(nn.Sequential):
    """Encoder output (batch, width) to the space (batch, dim)."""

    def __init__(self, width: int, dim: int, options: HeadOptions) -> None:
        if options.kind == "linear":
            layers: list[nn.Module] = [nn.Linear(width, dim)]
        else:
            layers = [
                nn.Linear(width, options.hidden),
                nn.GELU(),
                nn.Dropout(options.dropout),
                nn.Linear(options.hidden, dim),
            ]
        super().__init__(*layers)
        self.dim = dim
        self.options = options

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features)
