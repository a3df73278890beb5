"""Models of the transformers library: from a checkpoint or a bare configuration, never partly random."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from geobind.errors import GeoBindError, did_you_mean, shorten
from geobind.towers.adapters import (
    FOLDER,
    AdapterOptions,
    add_adapters,
    as_adapters,
    rest_frozen,
    save_adapters,
    unfreeze_last,
    without_adapters,
)  # fmt: skip
from geobind.towers.base import Tower
from geobind.towers.checkpoints import checkpoint, first_line, joint_origin, read_json

ConfigValue = dict[str, Any] | str | Path
"""A mapping as in a recipe, or the path of a `config.json`."""

# What transformers writes into a configuration beside the architecture.
_NOT_ARCHITECTURE = {"architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path"}


class PretrainedTower(Tower):
    """A tower around one model of transformers, saved as the library saves it.

    A saved tower is built again from its own folder: `weights` is that folder, and what said how to
    build it the first time (`config`, `tokenizer`) is in there.
    """

    model: Any
    adapters: AdapterOptions | None = None
    partly: bool = False
    """Whether a part of the model learns only."""

    def load_side(
        self, side: str, classes: Mapping[str, str], weights: str | Path | None, config: ConfigValue | None
    ) -> Path | None:
        """Build `self.model`, one side of a joint model, and say which folder it came from.

        `classes` are the names of its class in transformers by family ("clip"); the first is the default.
        """
        import transformers

        source, default = checkpoint(weights), next(iter(classes))
        self.family, own = side_config(load_config(source, config, default), side, classes, default)
        self.model = load_model(getattr(transformers, classes[self.family]), own, source)
        self.origin = joint_origin(default, source)
        self.forget("config", "tokenizer")
        return source

    def forget(self, *names: str) -> None:
        """Options that the saved folder makes superfluous."""
        self.options = {key: value for key, value in self.options.items() if key not in names}

    def learn_partly(
        self, adapters: Mapping[str, Any] | None, unfreeze: int | None, source: Path | None
    ) -> None:
        """The options `adapters` and `unfreeze`; adapters with a saved tower's weights where `source` is one."""
        saved = None if source is None or not (source / FOLDER).is_dir() else source / FOLDER
        if adapters is not None and unfreeze is not None:
            raise GeoBindError(
                "a tower has both `adapters` and `unfreeze`: adapters leave every block frozen, remove one"
            )
        if saved is not None and adapters is None:
            raise GeoBindError(
                f"weights {source} are of a tower with adapters: set `adapters` as it was there"
            )
        if adapters is not None:
            self.adapters = as_adapters(adapters)
            add_adapters(self.model, self.adapters, saved)
        elif unfreeze is not None:
            unfreeze_last(self.model, unfreeze)
        self.partly = adapters is not None or unfreeze is not None

    def train(self, mode: bool = True) -> PretrainedTower:
        super().train(mode)
        if mode and self.partly:
            rest_frozen(self.model)
        return self

    def settings(self) -> dict[str, Any]:
        settings = {"config": _plain(self.model.config.to_dict())}
        if self.adapters is not None:
            settings["adapters"] = {"rank": self.adapters.rank, "alpha": self.adapters.alpha}
        return settings

    def save_encoder(self, folder: Path) -> None:
        with quiet():
            if self.adapters is None:
                self.model.save_pretrained(folder)
            else:
                self.model.save_pretrained(folder, state_dict=without_adapters(self.model))
                save_adapters(self.model, folder / FOLDER)

    def load_encoder(self, folder: Path) -> None:
        """Nothing is left to read: the tower was built from `weights=folder`."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's reports of unused keys and its bars: what matters is raised instead."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_config(source: Path | None, config: ConfigValue | None, default: str | None) -> Any:
    """The configuration of a checkpoint, or a bare one from a mapping or the path of a `config.json`.

    `default` is the model_type of a mapping that names none. Raises GeoBindError for an unknown
    model_type, an unknown key, a value the library refuses, and for a checkpoint and `config` together.
    """
    from transformers import AutoConfig

    if source is not None:
        if config is not None:
            raise GeoBindError(
                "a tower has both `weights` and `config`: the weights bring theirs, remove one"
            )
        try:
            with quiet():
                return AutoConfig.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise GeoBindError(
                f"weights {source}: its config.json cannot be used ({first_line(error)})"
            ) from None
    values = read_json(config) if isinstance(config, str | Path) else dict(config or {})
    model_type = values.pop("model_type", default)
    if model_type is None:
        raise GeoBindError("config names no model_type: write one, such as {model_type: dinov2}")
    try:
        blank = AutoConfig.for_model(model_type)
    except ValueError:
        from transformers import CONFIG_MAPPING

        raise GeoBindError(
            f"config, model_type {model_type!r} is none of transformers{did_you_mean(model_type, CONFIG_MAPPING)}"
        ) from None
    if isinstance(config, Mapping):  # the library would take a misspelt key for one of the user's own
        _check_keys(values, blank)
    try:
        return AutoConfig.for_model(model_type, **values)
    except Exception as error:  # the library's validation raises kinds of its own
        raise GeoBindError(f"config of {model_type}: {first_line(error)}") from None


def side_config(config: Any, side: str, families: Collection[str], kind: str) -> tuple[str, Any]:
    """Family ("clip") and configuration of one side ("vision") of a joint model, or of that side alone."""
    if config.model_type in families:
        own = getattr(config, f"{side}_config")
        if hasattr(config, "projection_dim") and hasattr(own, "projection_dim"):
            own.projection_dim = config.projection_dim  # as the joint model reads it
        return config.model_type, own
    for family in families:
        if config.model_type == f"{family}_{side}_model":
            return family, config
    raise GeoBindError(
        f"tower {kind!r} takes a {side} model or a joint one of {', '.join(families)}, "
        f"this is {config.model_type!r}: give another checkpoint or config"
    )


def load_model(cls: Any, config: Any, source: Path | None, *, optional: str | None = None) -> Any:
    """A model of the transformers class `cls` in float32: random from a bare config, else all from the checkpoint.

    `optional` names a top-level module that a checkpoint may lack; where it does, it becomes None.
    Raises GeoBindError where the checkpoint lacks a weight or has one of another shape.
    """
    if source is None:
        try:
            return cls._from_config(config, dtype=torch.float32)
        except Exception as error:  # any architecture's own checks
            raise GeoBindError(f"config of {config.model_type}: {first_line(error)}") from None
    try:
        with quiet():
            model, info = cls.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,  # the library would keep a checkpoint's float16
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:  # missing files, shapes, broken safetensors: the remedy is one
        raise GeoBindError(
            f"weights {source} cannot be loaded as {config.model_type}: {first_line(error)}"
        ) from None
    state = model.state_dict()
    # Index buffers that old checkpoints lack are not random: their values follow from the architecture.
    missing = sorted(k for k in info["missing_keys"] if k not in state or state[k].is_floating_point())
    if optional and any(key.startswith(f"{optional}.") for key in missing):
        setattr(model, optional, None)
        missing = [key for key in missing if not key.startswith(f"{optional}.")]
    if missing:
        raise GeoBindError(
            f"weights {source} lack {len(missing)} of {len(state)} tensors of {type(model).__name__}, "
            f"which would be random: {shorten(', '.join(missing), 160)}; give a checkpoint of that model"
        )
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        # The library leaves views of the mapped file, at any address; the last bit of a product depends on it.
        tensor.data = tensor.data.clone()
    return model.train()  # from_pretrained gives evaluation mode; a fresh module is in training mode


def _check_keys(values: Mapping[str, Any], blank: Any, where: str = "config") -> None:
    known = {*blank.to_dict(), *blank.attribute_map}
    for key, value in values.items():
        if key not in known:
            raise GeoBindError(f"{where} has an unknown key {key!r}{did_you_mean(key, known)}")
        if isinstance(value, Mapping) and hasattr(getattr(blank, key), "to_dict"):
            _check_keys(value, getattr(blank, key), f"{where}.{key}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in sorted(value.items()) if key not in _NOT_ARCHITECTURE}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
