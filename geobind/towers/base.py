"""What a tower and its processor are, and the one registry of towers.

A new tower is a class anywhere, under a decorator; no file of the package changes:

    @register("thermal")
    class Thermal(Tower):
        def __init__(self, modality: str, *, width: int = 64) -> None:
            super().__init__(modality, width=width, processor=ThermalProcessor())
            self.net = torch.nn.Linear(16, width)

        def encode(self, readings):
            return self.net(readings)

An installed package offers towers through the entry point group `geobind.towers` (name = kind).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError, create_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geobind.errors import GeoBindError, did_you_mean, first_problem
from geobind.towers.head import Head, HeadOptions, head_options

Row = Mapping[str, Any]
Batch = dict[str, Tensor]


class Processor:
    """Raw rows to tensors. Knows nothing of the GPU, holds no weights, runs in loader workers.

    `columns` names what it reads of a row. `rng` None means the fixed transform of evaluation; a
    generator means the augmented one of training, drawn from nothing else.
    """

    columns: tuple[str, ...]
    takes: Literal["file", "text", "vector", "location"] = "file"
    """What a value is, by which the command line reads its arguments (see `geobind.files`)."""

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        """One row, without a batch axis. Raises MediaError for a value it cannot read."""
        raise NotImplementedError

    def light(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        """What leaves a worker, by default the whole item: `finish` does the rest to the batch, on the device."""
        return self(row, rng=rng)

    def finish(self, batch: Batch) -> Batch:
        """A batch of light items as one of whole items: pixels are normalised, spectrograms made."""
        return batch

    def collate(self, items: Sequence[Batch]) -> Batch:
        """Items of several rows as one batch: stacked, unless the processor knows better."""
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}

    def settings(self) -> dict[str, Any]:
        """All that decides the fixed transform, as JSON: part of the fingerprint and of cache keys."""
        raise NotImplementedError


class Tower(nn.Module):
    """Encoder of one modality.

    A subclass implements `encode` (batch to (batch, width)) and geobind adds a `head` to the space's
    dimension where one is wanted; or it overrides `forward` and already has the space's `dim`.

    What a constructor was called with is kept in `options`, so that a saved tower can be built again:
    constructors take values that JSON can hold (or paths).
    """

    kind: ClassVar[str] = ""
    modality: str
    processor: Processor
    head: Head | None
    options: dict[str, Any]
    origin: str | None = None
    """The pretrained joint model in whose space an untrained tower lives ("clip:<digest>"), if any."""
    source: str | None
    """The Hub id from which the weights came, also through saved folders; None where they came from none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Tower:
        tower = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind_partial(tower, *args, **kwargs)
        except TypeError:  # the call itself will raise the better message
            return tower
        options = dict(list(bound.arguments.items())[1:])
        for parameter in inspect.signature(cls.__init__).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                options |= options.pop(parameter.name, {})
        object.__setattr__(tower, "options", options)
        return tower

    def __init__(
        self, modality: str | None = None, *, width: int | None = None, processor: Processor | None = None
    ) -> None:
        super().__init__()
        if modality is not None:
            self.modality = modality
        if processor is not None:
            self.processor = processor
        self._width = width
        self.head = None
        self.source = _source(self.options.get("weights"))

    @property
    def width(self) -> int:
        """Size of what `encode` gives."""
        if self._width is None:
            raise GeoBindError(
                f"tower {type(self).__name__} does not say its width: pass width= to Tower.__init__"
            )
        return self._width

    @property
    def dim(self) -> int:
        """Size of what `forward` gives: the space's dimension, once the tower is in a space."""
        return self.width if self.head is None else self.head.dim

    @dim.setter
    def dim(self, size: int) -> None:
        self._width = size

    @property
    def pretrained(self) -> bool:
        """Whether the encoder started from weights (and should learn gently)."""
        return self.options.get("weights") not in (None, "none")

    def encode(self, **batch: Tensor) -> Tensor:
        """(batch, width) float32."""
        raise NotImplementedError

    def forward(self, **batch: Tensor) -> Tensor:
        """(batch, dim) float32, not normalised."""
        features = self.encode(**batch)
        return features if self.head is None else self.head(features)

    def add_head(self, dim: int, options: HeadOptions) -> None:
        """Project to the space's dimension. Raises GeoBindError where `forward` would not use it."""
        if options.kind == "none":
            return
        if type(self).forward is not Tower.forward:
            raise GeoBindError(
                f"tower {type(self).__name__} overrides forward and gives {self.dim} numbers, the space has {dim}: "
                f"implement encode() instead, and a head is added"
            )
        self.head = Head(self.width, dim, options)

    @property
    def fitted(self) -> bool:
        """False until `fit` has seen training rows; towers without such a step are always fitted."""
        return True

    def fit(self, rows: Iterable[Row]) -> None:
        """Learn what is no weight from training rows (a vocabulary, a mean and deviation)."""

    def settings(self) -> dict[str, Any]:
        """What decides the tower's output beside its weights; part of the fingerprint."""
        return {key: value for key, value in self.options.items() if key not in ("weights", "modality")}

    def save(self, folder: Path) -> None:
        """Write `tower.json`, the weights and the head into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        if not self.kind:
            raise GeoBindError(
                f"tower {type(self).__name__} has no name to be saved under: put @geobind.register('...') on the class"
            )
        options = {key: value for key, value in self.options.items() if key not in ("weights", "modality")}
        spec = {
            "kind": self.kind,
            "modality": self.modality,
            "options": options,
            "source": self.source,
            "origin": self.origin,
            "head": None if self.head is None else {**self.head.options.model_dump(), "dim": self.head.dim},
        }
        try:
            text = json.dumps(spec, indent=2)
        except TypeError as error:
            raise GeoBindError(
                f"tower {type(self).__name__} cannot be saved: its constructor got a value that JSON cannot hold ({error})"
            ) from None
        (folder / "tower.json").write_text(text + "\n", encoding="utf-8")
        self.save_encoder(folder)
        if self.head is not None:
            save_file(_contiguous(self.head.state_dict()), folder / "head.safetensors")

    def encoder_state(self) -> dict[str, Tensor]:
        """The state without the head's."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith("head.")}

    def save_encoder(self, folder: Path) -> None:
        """Write everything but the head. Towers around a library's model use that library's layout."""
        save_file(_contiguous(self.encoder_state()), folder / "model.safetensors")

    def load_encoder(self, folder: Path) -> None:
        """Read what `save_encoder` wrote (towers built from `weights=folder` have done so already)."""
        own = self.encoder_state()
        if own:
            state = load_file(folder / "model.safetensors")
            check_state(own, state, folder / "model.safetensors")
            self.load_state_dict({**self.state_dict(), **state})


def check_state(own: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Raise GeoBindError, one line, where the weights of a file differ from a tower's in a key or a shape."""
    expected, given = ({key: tuple(value.shape) for key, value in state.items()} for state in (own, found))
    odd = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
    if odd:
        raise GeoBindError(
            f"{path} is of another architecture: {odd[0]} has shape {given.get(odd[0])}, the tower takes "
            f"{expected.get(odd[0])} ({len(odd)} such keys): check the tower's options"
        )


def _source(weights: Any) -> str | None:
    """The Hub id behind a tower's `weights`: itself, or what the folder of a saved tower has recorded."""
    if not isinstance(weights, str | Path) or weights == "none":
        return None
    folder = Path(weights).expanduser()
    if (folder / "tower.json").exists():
        return read_spec(folder).get("source")
    return None if folder.exists() else str(weights)


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}


def fingerprint(tower: Tower) -> str:
    """Sixteen hexadecimal digits that change when the tower's output can: weights, settings, processor.

    >>> fingerprint(tower) == fingerprint(load_tower(folder))   # after tower.save(folder)
    True
    """
    digest = hashlib.sha256()
    head = None if tower.head is None else tower.head.options.model_dump()
    described = [tower.kind or type(tower).__name__, tower.settings(), tower.processor.settings(), head]
    digest.update(json.dumps(_plain(described), sort_keys=True, default=str).encode())
    for name, tensor in sorted(tower.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().data if array.numel() else b"")
    return digest.hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Whole numbers as floats: an option given as 1 comes back from a checked file as 1.0, and is the same."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


# --- the registry ------------------------------------------------------------------------------------------

_BUILT_IN = {
    kind: f"geobind.towers.{kind}"
    for kind in ("clip", "hf", "clap", "satmae", "location", "satclip", "vector", "small")
}
_REGISTRY: dict[str, dict[str | None, type[Tower]]] = {}


def register(kind: str, *, modalities: Sequence[str] | None = None) -> Callable[[type[Tower]], type[Tower]]:
    """Class decorator: recipes and saved spaces find the tower by this name.

    `modalities` limits the class to some modalities, so that one name can stand for a family
    (`clip` is a text encoder for `text` and an image encoder for everything else).
    """

    def decorate(cls: type[Tower]) -> type[Tower]:
        cls.kind = kind
        for modality in modalities or (None,):
            _REGISTRY.setdefault(kind, {})[modality] = cls
        return cls

    return decorate


def tower_kinds() -> list[str]:
    """Names of all towers that can be built here: built in, registered, and of installed packages."""
    return sorted({*_BUILT_IN, *_REGISTRY, *(point.name for point in entry_points(group="geobind.towers"))})


def tower_class(kind: str, modality: str) -> type[Tower]:
    """The class that encodes `modality` under the name `kind`. Raises GeoBindError for an unknown name."""
    if kind in _BUILT_IN:  # also where one class of the family is registered already
        importlib.import_module(_BUILT_IN[kind])
    elif kind not in _REGISTRY:
        for point in entry_points(group="geobind.towers", name=kind):
            _REGISTRY.setdefault(kind, {}).setdefault(None, point.load()).kind = kind
    classes = _REGISTRY.get(kind)
    if classes is None:
        raise GeoBindError(
            f"unknown tower {kind!r}{did_you_mean(kind, tower_kinds())} "
            f"(a tower of your own: import the module that registers it first)"
        )
    if modality in classes:
        return classes[modality]
    if None in classes:
        return classes[None]
    raise GeoBindError(f"tower {kind!r} encodes {', '.join(map(str, sorted(classes)))}, not {modality!r}")  # type: ignore[type-var]


def check_options(kind: str, cls: type[Tower], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a recipe against the constructor's signature. Raises GeoBindError naming the key."""
    fields: dict[str, Any] = {}
    hints = inspect.get_annotations(cls.__init__, eval_str=True)
    for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        if name == "modality" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), Field(default))
    for key in options:
        if key not in fields:
            raise GeoBindError(f"tower {kind!r} has no option {key!r}{did_you_mean(key, [*fields, 'head'])}")
    model = create_model(cls.__name__, __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
    try:
        checked = model(**options)
    except ValidationError as error:
        raise GeoBindError(f"tower {kind!r}: {first_problem(error, lambda path: fields)}") from None
    return {key: getattr(checked, key) for key in options}


def build_tower(
    kind: str, *, modality: str, dim: int, head: str | Mapping[str, Any] = "auto", **options: Any
) -> Tower:
    """A tower from a recipe's lines, projected to the space's dimension.

    `head` "auto" adds a linear one where the encoder's width is not `dim`.

    >>> build_tower("vector", modality="environment", dim=512, width=19, head={"kind": "mlp", "hidden": 256})
    """
    cls = tower_class(kind, modality)
    checked = check_options(kind, cls, options)
    takes_modality = "modality" in inspect.signature(cls.__init__).parameters
    tower = cls(modality, **checked) if takes_modality else cls(**checked)
    if tower.modality != modality:
        raise GeoBindError(f"tower {kind!r} encodes {tower.modality!r}, the recipe gives it {modality!r}")
    tower.add_head(dim, head_options(head, tower.dim, dim))
    if tower.dim != dim:
        raise GeoBindError(
            f"tower {kind!r} of {modality!r} gives {tower.dim} numbers, the space has {dim}: "
            f"give it a head (head: linear), or make the space's dim {tower.dim}"
        )
    return tower


def read_spec(folder: Path) -> dict[str, Any]:
    """What `Tower.save` wrote beside the weights: kind, modality, options, source, origin, head.

    Raises GeoBindError for a folder that holds no tower.
    """
    path = folder / "tower.json"
    if not path.exists():
        raise GeoBindError(
            f"{folder} holds no tower (no tower.json): give a folder written by save_pretrained"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def load_tower(folder: Path) -> Tower:
    """Read a tower that `Tower.save` wrote. Raises GeoBindError for a folder that holds none."""
    spec = read_spec(folder)
    cls = tower_class(spec["kind"], spec["modality"])
    parameters = inspect.signature(cls.__init__).parameters
    options = dict(spec["options"])
    if "weights" in parameters:
        options["weights"] = str(folder)
    options = check_options(spec["kind"], cls, options)
    tower = cls(spec["modality"], **options) if "modality" in parameters else cls(**options)
    try:
        if spec["head"] is not None:
            head = dict(spec["head"])
            tower.add_head(head.pop("dim"), HeadOptions.model_validate(head))
            assert tower.head is not None
            tower.head.load_state_dict(load_file(folder / "head.safetensors"))
        tower.load_encoder(folder)
    except (OSError, SafetensorError, RuntimeError) as error:  # missing, cut off, of other shapes
        reason = " ".join(str(error).split())
        raise GeoBindError(
            f"{folder}: the weights cannot be read ({reason}): copy or save the space again"
        ) from None
    tower.origin = spec["origin"]
    return tower.eval()
