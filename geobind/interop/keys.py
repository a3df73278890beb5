"""Key maps: what a published key is called in transformers, and nothing left over on either side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from geobind.errors import GeoBindError
from geobind.interop.reading import State

# Index buffers that follow from the architecture; files of some versions hold them and others do not.
_INDICES = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
_LISTED = 12


@dataclass(frozen=True)
class Rule:
    """One published key and where it goes: one key, or three for a fused query-key-value weight.

    >>> Rule("visual.proj", ("visual_projection.weight",), transposed=True)
    """

    published: str
    ours: tuple[str, ...]
    transposed: bool = False


def renamed(pairs: Iterable[tuple[str, str]], *, suffixes: Sequence[str] = ("weight", "bias")) -> list[Rule]:
    """Rules for modules: (published, ours) without the names of their parameters."""
    return [Rule(f"{a}.{suffix}", (f"{b}.{suffix}",)) for a, b in pairs for suffix in suffixes]


def under(prefix: str, cls: Any, config: Any) -> list[Rule]:
    """Rules for a model of transformers kept whole under a prefix; the model is never given memory."""
    with torch.device("meta"):
        keys = list(cls._from_config(config).state_dict())
    return [Rule(f"{prefix}{key}", (key,)) for key in keys]


def timm_blocks(prefix: str, depth: int) -> list[Rule]:
    """Rules for the blocks of timm's ViT, to those of transformers: the query, key and value are one there."""
    rules = []
    for n in range(max(1, depth)):
        a, b = f"{prefix}blocks.{n}", f"vit.encoder.layer.{n}"
        for kind in ("weight", "bias"):
            qkv = tuple(f"{b}.attention.attention.{part}.{kind}" for part in ("query", "key", "value"))
            rules.append(Rule(f"{a}.attn.qkv.{kind}", qkv))
        rules += renamed(
            [
                (f"{a}.norm1", f"{b}.layernorm_before"),
                (f"{a}.attn.proj", f"{b}.attention.output.dense"),
                (f"{a}.norm2", f"{b}.layernorm_after"),
                (f"{a}.mlp.fc1", f"{b}.intermediate.dense"),
                (f"{a}.mlp.fc2", f"{b}.output.dense"),
            ]
        )
    return rules


def convert(
    state: State, parts: Mapping[str, Sequence[Rule]], *, name: str, ignored: Collection[str] = ()
) -> dict[str, State]:
    """The weights of each part under their new keys, in float32.

    `ignored` are keys that hold nothing of the model. Raises GeoBindError listing the keys that are
    missing and those that are unexpected; `name` is the checkpoint's in the message.
    """
    published = {rule.published for rules in parts.values() for rule in rules}
    missing = sorted(key for key in published - state.keys() if not key.endswith(_INDICES))
    unexpected = sorted(
        key for key in state.keys() - published if not key.endswith(_INDICES) and key not in ignored
    )
    if missing or unexpected:
        faults = [f"lacks {_list(missing)}"] if missing else []
        faults += [f"has unexpected {_list(unexpected)}"] if unexpected else []
        raise GeoBindError(
            f"{name} {' and '.join(faults)}: it is of another architecture or version, and no part of it was taken"
        )
    return {part: _renamed(state, rules) for part, rules in parts.items()}


def _renamed(state: State, rules: Sequence[Rule]) -> State:
    out: State = {}
    for rule in rules:
        if rule.published not in state:  # an index
            continue
        value = state[rule.published]
        value = value.float() if value.is_floating_point() else value
        value = value.T if rule.transposed else value
        out |= {
            key: part.contiguous().clone()
            for key, part in zip(
                rule.ours, value.chunk(len(rule.ours)) if value.ndim else (value,), strict=True
            )
        }
    return out


def layers(state: State, prefix: str) -> int:
    """How many numbered layers there are under a prefix such as `visual.transformer.resblocks.`"""
    found = {key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)}
    return len(found)


def _list(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{len(keys)} keys ({', '.join(keys[:_LISTED])}{more})"
