"""Learning a part of a model only: low-rank adapters, or its last blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geobind.errors import GeoBindError, first_problem

FOLDER = "adapters"
"""Sub-folder of a saved tower, in the layout of peft: `PeftModel.from_pretrained(model, folder)` opens it."""

_PREFIX = "base_model.model."  # peft's files name weights as its wrapper does


class AdapterOptions(BaseModel):
    """Low-rank adapters on every linear layer of a model's blocks, as a recipe writes them.

    >>> AdapterOptions(rank=8)

    A layer's weight W becomes W + alpha / rank B A, with A of shape (rank, inputs) and B of shape
    (outputs, rank), zero at first; `dropout` is of what A reads. Hu et al. 2022, "LoRA: Low-rank
    adaptation of large language models".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


def as_adapters(value: Mapping[str, Any]) -> AdapterOptions:
    """A tower's option `adapters`, checked. Raises GeoBindError naming the key."""
    try:
        return AdapterOptions.model_validate(dict(value))
    except ValidationError as error:
        problem = first_problem(error, lambda path: AdapterOptions.model_fields)
        raise GeoBindError(f"adapters: {problem}") from None


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Name and list of a model's blocks: of its outermost module lists, the one with the most parameters.

    Transformers have one list of layers; hierarchical models (Swin, CLAP's HTSAT, ConvNeXt) one of stages.
    """
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    if not found:
        raise GeoBindError(
            f"{type(model).__name__} has no list of blocks: leave `adapters` and `unfreeze` out"
        )
    return max(found.items(), key=lambda item: sum(p.numel() for p in item[1].parameters()))


def unfreeze_last(model: nn.Module, count: int) -> None:
    """Freeze a model but for its last `count` blocks and what comes after them (norms, pooler, projection).

    Batch normalisation before them stays as it is, wherever the model lists it.
    Raises GeoBindError where there are fewer blocks.
    """
    name, blocks = find_blocks(model)
    if not 0 <= count <= len(blocks):
        raise GeoBindError(
            f"unfreeze = {count}: {type(model).__name__} has {len(blocks)} blocks; give 0 to {len(blocks)}"
        )
    learning = {id(p) for block in list(blocks)[len(blocks) - count :] for p in block.parameters()}
    names = [key for key, _ in model.named_parameters()]
    after = max(number for number, key in enumerate(names) if key.startswith(f"{name}.")) + 1
    outside = {
        id(p) for module in model.modules() if isinstance(module, _BatchNorm) for p in module.parameters()
    }
    for number, parameter in enumerate(list(model.parameters())):
        learns = id(parameter) in learning or (number >= after and id(parameter) not in outside)
        parameter.requires_grad_(parameter.requires_grad and learns)


def add_adapters(model: nn.Module, options: AdapterOptions, saved: Path | None) -> None:
    """Put adapters into a model, with their weights from `saved` where it is a folder; only they learn.

    Raises GeoBindError where peft is not installed or the blocks have no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    except ImportError:
        raise GeoBindError('low-rank adapters need peft: pip install "geobind[adapters]"') from None
    name, blocks = find_blocks(model)
    targets = [f"{name}.{key}" for key, module in blocks.named_modules() if isinstance(module, nn.Linear)]
    if not targets:
        raise GeoBindError(
            f"the blocks of {type(model).__name__} have no linear layer to adapt: use `unfreeze`"
        )
    config = LoraConfig(
        r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets
    )
    inject_adapter_in_model(config, model)
    if saved is None:
        return
    state = {
        key.removeprefix(_PREFIX): value
        for key, value in load_file(saved / "adapter_model.safetensors").items()
    }
    expected = {key.replace(".default.", "."): tuple(value.shape) for key, value in _adapters(model).items()}
    if expected != {key: tuple(value.shape) for key, value in state.items()}:
        raise GeoBindError(f"{saved} holds adapters of another rank or model: set `adapters` as it was there")
    set_peft_model_state_dict(model, state)


def save_adapters(model: nn.Module, folder: Path) -> None:
    """Write a model's adapters in the layout of peft."""
    config: Any = model.peft_config["default"]  # type: ignore[index]
    config.save_pretrained(folder)
    state = {
        _PREFIX + key.replace(".default.", "."): value.detach().cpu().contiguous()
        for key, value in _adapters(model).items()
    }
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def without_adapters(model: nn.Module) -> dict[str, Tensor]:
    """A model's state as it was before adapters, by the library's own names."""
    return {
        key.replace(".base_layer.", "."): value
        for key, value in model.state_dict().items()
        if ".lora_" not in key
    }


def rest_frozen(model: nn.Module) -> None:
    """Keep what does not learn in evaluation mode: its dropout and its batch normalisation stand still."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _adapters(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if ".lora_" in key}
