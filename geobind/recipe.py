"""The recipe: a YAML file of towers, pairs, stages and evaluations, as validated types."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from geobind.binding.loop import bind
from geobind.binding.plan import StagePlan, plan_stage
from geobind.binding.processes import main_process_first
from geobind.binding.report import BindReport
from geobind.binding.stage import SHORT_FORM, Link, Stage
from geobind.data.pack import Packing
from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, did_you_mean, first_problem, shorten
from geobind.media.images import ImageTransform
from geobind.retrieval.baseline import with_stand_ins
from geobind.retrieval.items import Evaluation, Protocol
from geobind.space import GeoBind
from geobind.storage import write_text
from geobind.towers.base import Tower, build_tower
from geobind.towers.clap import AudioProcessor


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TowerSpec(BaseModel):
    """`tower` names the kind; the other keys are that kind's options."""

    model_config = ConfigDict(extra="allow")

    tower: str
    head: str | dict[str, Any] = "auto"


class PairsSpec(_Strict):
    """A table, a folder or shards; the keys are the arguments of `Pairs.from_table`, `from_folder`, `from_shards`."""

    table: str | None = None
    folder: str | None = None
    shards: str | list[str] | None = None
    root: str | None = None
    columns: dict[str, str | list[str]] | None = None
    features: dict[str, str] | None = None
    split: str | None = None
    place: str | None = None
    group: str | None = None
    only: dict[str, str] | None = None
    splits: str | None = None
    prompts: dict[str, list[str]] | None = None
    verbatim: list[str] = ["text"]

    def open(self, name: str, data: str | None = None) -> Pairs:
        """The pairs, with relative paths under the folder `data`."""
        here = self.model_copy(update={} if data is None else self._under(data))
        sources = here.model_dump(include={"table", "folder", "shards"}, exclude_none=True)
        if len(sources) != 1:
            raise GeoBindError(f"pairs.{name}: give one of `table`, `folder` and `shards`")
        options = here.model_dump(exclude_none=True, exclude_unset=True, exclude={*sources, "splits"})
        for key in {"root", "only", "prompts"} & options.keys() if here.table is None else ():
            raise GeoBindError(f"pairs.{name}: {key!r} belongs to a table, not to a {min(sources)}")
        if here.table is not None:
            pairs = Pairs.from_table(here.table, name=name, **options)
        elif here.folder is not None:
            pairs = Pairs.from_folder(here.folder, name=name, **options)
        else:
            pairs = Pairs.from_shards(here.shards or [], name=name, **options)
        return pairs if here.splits is None else pairs.with_splits(here.splits)

    def _under(self, data: str) -> dict[str, Any]:
        """Every path that is given, where it lies; URLs and absolute paths stay."""

        def moved(value: Any) -> Any:
            if isinstance(value, str):
                return value if "://" in value else str(Path(data) / value)
            if isinstance(value, list):
                return [moved(item) for item in value]
            return {key: moved(item) for key, item in value.items()}

        given = self.model_dump(
            include={"table", "folder", "shards", "root", "features", "splits"}, exclude_none=True
        )
        return {key: moved(value) for key, value in given.items()}


class EvaluationSpec(_Strict):
    """Two modalities and the pairs (one name, or one for each modality) on which to compare them."""

    between: tuple[str, str]
    pairs: str | tuple[str, str]
    split: str | None = "test"
    protocol: Protocol = "partner"
    sample: Annotated[int, Field(ge=2)] | None = None


class Recipe(_Strict):
    """What `geobind bind` runs and what a space remembers of how it was made.

    >>> recipe = Recipe.load("recipes/sample.yaml")
    >>> space = recipe.run("runs/sample")
    >>> Recipe.load("recipes/geobind.yaml", {"data": "/datasets", "stages.0.epochs": 3})

    Relative paths of pairs are relative to `data`, else to the working directory. A recipe of pairs and evaluations alone
    judges a space on other data (`geobind evaluate DIR --recipe`).
    """

    dim: int = Field(512, gt=0)
    seed: int = Field(0, ge=0)
    data: str | None = None
    start: str | None = None
    towers: dict[str, TowerSpec] = {}
    pairs: dict[str, PairsSpec] = {}
    stages: list[Stage] = []
    evaluations: list[EvaluationSpec] = []
    baseline: str | dict[str, str] | None = None

    _opened: dict[str, Pairs] = PrivateAttr(default_factory=dict)

    @field_validator("stages", mode="after")
    @classmethod
    def _distinct_names(cls, stages: list[Stage]) -> list[Stage]:
        names = [stage.name for stage in stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two stages are called {name!r}: give them a `name`")
        return stages

    @classmethod
    def load(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
        """Read and check a YAML file, with `changes` as in `parse`. Raises GeoBindError naming key and remedy."""
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise GeoBindError(f"recipe {path} cannot be read ({error.strerror}): check the path") from None
        except yaml.YAMLError as error:
            raise GeoBindError(f"recipe {path} is not valid YAML: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict):
            raise GeoBindError(
                f"recipe {path} holds {shorten(content)}; expected keys such as towers, pairs, stages"
            )
        return cls.parse(content, str(path), changes)

    @classmethod
    def parse(
        cls, content: Mapping[str, Any], name: str = "recipe", changes: Mapping[str, Any] | None = None
    ) -> Recipe:
        """Check a mapping, such as the recipe saved with a space.

        `changes` are values by their path in the recipe: {"towers.satellite.weights": "none",
        "stages.0.epochs": 3}. They are checked like the recipe's own.
        """
        try:
            recipe = cls.model_validate(_changed(content, changes or {}, name))
        except ValidationError as error:
            raise GeoBindError(f"{name}: {first_problem(error, _known_keys)}") from None
        for stage in recipe.stages:
            for modality in stage.modalities:
                if modality not in recipe.towers and recipe.start is None:
                    raise GeoBindError(
                        f"{name}: stage {stage.name!r} names the modality {modality!r}, which has no tower{did_you_mean(modality, recipe.towers)}"
                    )
            recipe._require_pairs(f"{name}: stage {stage.name!r}", stage.pairs)
        for evaluation in recipe.evaluations:
            for pairs in [evaluation.pairs] if isinstance(evaluation.pairs, str) else evaluation.pairs:
                recipe._require_pairs(f"{name}: evaluation {' - '.join(evaluation.between)}", pairs)
        return recipe

    def _require_pairs(self, where: str, name: Any) -> None:
        if name not in self.pairs:
            raise GeoBindError(
                f"{where} names the pairs {name!r}, which the recipe does not define{did_you_mean(str(name), self.pairs)}"
            )

    # --- building --------------------------------------------------------------------------------------

    def tower(self, modality: str) -> Tower:
        """A new tower; its random weights depend on the recipe's seed and the modality alone."""
        if modality not in self.towers:
            raise GeoBindError(
                f"the recipe has no tower for {modality!r}{did_you_mean(modality, self.towers)}"
            )
        spec = self.towers[modality]
        seeds = np.random.SeedSequence([self.seed, zlib.crc32(modality.encode())])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        options = dict(spec.model_extra or {})
        return build_tower(spec.tower, modality=modality, dim=self.dim, head=spec.head, **options)

    def open_pairs(self, name: str) -> Pairs:
        if name not in self._opened:
            self._opened[name] = self.pairs[name].open(name, self.data)
        return self._opened[name]

    def packing(self, name: str, sides: Mapping[str, int] | None = None) -> tuple[Packing, dict[str, float]]:
        """How `geobind data pack` writes some pairs: `sides` where given, else the least that enlarges no crop.

        Beside it, by modality, the share of the stages' crops that are enlarged at that size.
        """
        packing, enlarged = Packing(dict(sides or {}), {}), {}
        for modality in self.open_pairs(name).modalities:
            if modality not in self.towers:
                continue
            processor = self.tower(modality).processor
            if isinstance(processor, AudioProcessor):
                packing.rates[modality] = processor.log_mel.sample_rate
            transform = getattr(processor, "transform", None)
            if isinstance(transform, ImageTransform):
                learns = any(stage.pairs == name and modality in stage.moving for stage in self.stages)
                side = packing.sides.setdefault(modality, transform.least_side(learns=learns))
                enlarged[modality] = transform.enlarged(side, learns=learns)
        return packing, enlarged

    def open_evaluations(self) -> list[Evaluation]:
        """The evaluations with their pairs opened."""
        opened = []
        for spec in self.evaluations:
            one, two = (spec.pairs, spec.pairs) if isinstance(spec.pairs, str) else spec.pairs
            pairs = (self.open_pairs(one), self.open_pairs(two))
            opened.append(
                Evaluation(
                    between=spec.between,
                    pairs=pairs,
                    split=spec.split,
                    protocol=spec.protocol,
                    sample=spec.sample,
                )
            )
        return opened

    def open_baseline(self, space: GeoBind) -> GeoBind | None:
        """The space to compare with: a saved one, or `space` with one modality's tower in another's place."""
        if isinstance(self.baseline, dict):
            return with_stand_ins(space, self.baseline)
        return GeoBind.from_pretrained(self.baseline) if self.baseline else None

    # --- running ---------------------------------------------------------------------------------------

    def run(
        self, out: str | Path, *, limit: int | None = None, strict: bool = False, workers: int | None = None,
        progress: bool = True, report: Callable[[BindReport], None] = lambda result: None,
    ) -> GeoBind:  # fmt: skip
        """Train every stage in order into the folder `out`; finished stages of the same recipe are kept.

        `report` is called with a BindReport after each stage. Raises GeoBindError where the folder
        holds a space of another recipe.
        """
        out = Path(out)
        content = self.model_dump(mode="json", exclude_unset=True) | {"dim": self.dim, "seed": self.seed}
        space = self._start(out, content, limit)
        for number, stage in enumerate(self.stages, 1):
            folder = out / "stages" / f"{number}-{stage.name}"
            done = folder / "report.json"
            if done.exists():
                continue
            stage = self._open_stage(stage, space)
            result = bind(
                space, stage, out=folder, limit=limit, strict=strict, workers=workers, progress=progress
            )
            with main_process_first() as main:
                if main:
                    space.save_pretrained(out)
                    write_text(done, json.dumps(asdict(result), indent=2) + "\n")
                    report(result)
        missing = [modality for modality in self.towers if modality not in space.modalities]
        for modality in missing:
            space.add(self.tower(modality))
        with main_process_first() as main:
            if main and (missing or not self.stages):
                space.save_pretrained(out)
        return space

    def plan(self, *, limit: int | None = None) -> list[StagePlan]:
        """What `run` would do, stage by stage: towers are built; nothing is trained, embedded or written."""
        space = self._first_space()
        plans, moved = [], set[str]()
        for stage in self.stages:
            plans.append(plan_stage(space, self._open_stage(stage, space), limit=limit, moved=moved))
            space.record_binding(stage.moving, {link.pair: link.temperature for link in stage.links})
            moved.update(stage.moving)
        return plans

    def _open_stage(self, stage: Stage, space: GeoBind) -> Stage:
        """A stage with its pairs, and with the towers that it is the first to need in the space."""
        for modality in stage.modalities:
            if modality not in space.modalities:
                space.add(self.tower(modality))
        return stage.model_copy(
            update={"pairs": self.open_pairs(stage.pairs), "seed": stage.seed + self.seed}
        )

    def _start(self, out: Path, content: dict[str, Any], limit: int | None) -> GeoBind:
        """The space of an earlier run of this recipe in `out`, or a new one."""
        written = out / "recipe.json"
        text = json.dumps(content | ({"limit": limit} if limit else {}), indent=2) + "\n"
        with main_process_first() as main:
            if written.exists():
                if written.read_text(encoding="utf-8") != text:
                    raise GeoBindError(
                        f"{out} holds a run of another recipe: choose another --out, or delete that folder to start over"
                    )
            elif main:
                try:
                    out.mkdir(parents=True, exist_ok=True)
                    write_text(written, text)
                except OSError as error:
                    raise GeoBindError(
                        f"cannot write into {out} ({error.strerror}): choose another folder"
                    ) from None
        space = GeoBind.from_pretrained(out) if (out / "space.json").exists() else self._first_space()
        space.recipe = content
        return space

    def _first_space(self) -> GeoBind:
        """The space before the first stage: that of `start`, or an empty one."""
        if self.start is None:
            return GeoBind(self.dim)
        space = GeoBind.from_pretrained(self.start)
        if space.dim != self.dim:
            raise GeoBindError(
                f"the recipe's dim is {self.dim}, its start {self.start} has {space.dim}: set dim: {space.dim}"
            )
        for modality in {*space.modalities} & {*self.towers}:
            raise GeoBindError(
                f"the recipe and its start {self.start} both have a tower for {modality!r}: leave it out of towers"
            )
        return space


def _changed(content: Mapping[str, Any], changes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy with other values at some paths; keys that are not there are added, items of lists are not."""
    result: dict[str, Any] = deepcopy(dict(content))
    for path, value in changes.items():
        *parents, last = path.split(".")
        here: Any = result
        for part in parents:
            here = here.setdefault(part, {}) if isinstance(here, dict) else _item(here, part, path, name)
        if isinstance(here, dict):
            here[last] = value
        else:
            _item(here, last, path, name)
            here[int(last)] = value
    return result


def _item(here: Any, part: str, path: str, name: str) -> Any:
    if not isinstance(here, list):
        raise GeoBindError(f"{name}: there is nothing within {shorten(here)} for {path!r} to set")
    if not part.isdigit() or int(part) >= len(here):
        raise GeoBindError(f"{name}: {part!r} in {path!r} is none of the {len(here)} items: count from 0")
    return here[int(part)]


def _known_keys(path: list[str]) -> list[str]:
    """Keys that a recipe takes at a place, for the nearest to a misspelt one."""
    models: dict[str, type[BaseModel]] = {"pairs": PairsSpec, "stages": Stage, "evaluations": EvaluationSpec}
    if not path:
        return list(Recipe.model_fields)
    if path[0] == "stages":
        return [*Link.model_fields] if "links" in path else [*Stage.model_fields, *SHORT_FORM]
    return list(models[path[0]].model_fields)
