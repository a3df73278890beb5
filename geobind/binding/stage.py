"""A stage: which towers learn, to which others they are pulled, on which pairs and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geobind.binding.losses import CONTRASTIVE, LossName, Positives
from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError
from geobind.towers.base import Tower

Temperature = Annotated[float, Field(ge=0.01, le=1)]


class Link(BaseModel):
    """Two modalities that a stage pulls together, and the loss that does it.

    >>> Link("satellite", "image", loss="infonce")    # satellite queries, image keys: eq. 1 of the paper

    `temperature` is the initial one, learned unless `learn_temperature` is false, and stays within
    `temperature_range`; the triplet losses have a `margin` instead. Each query is compared with the
    gallery's values in the batch and with `extra_negatives` others, of a gallery that is frozen: random
    training rows where its targets are cached, else those of the last steps.
    """

    model_config = ConfigDict(extra="forbid")

    query: str
    gallery: str
    loss: LossName = "symmetric"
    temperature: Temperature = 0.07
    learn_temperature: bool = True
    temperature_range: tuple[Temperature, Temperature] = (0.01, 1.0)
    margin: float = Field(1.0, gt=0)
    extra_negatives: int = Field(0, ge=0)
    weight: float = Field(1.0, gt=0)

    def __init__(self, query: str, gallery: str, **options: Any) -> None:
        super().__init__(query=query, gallery=gallery, **options)

    @model_validator(mode="after")
    def _check(self) -> Link:
        low, high = self.temperature_range
        if not low <= self.temperature <= high:
            raise ValueError(f"the temperature {self.temperature} is not within its range {low} to {high}")
        if self.extra_negatives and self.loss not in CONTRASTIVE:
            raise ValueError(f"extra_negatives belong to {' and '.join(CONTRASTIVE)}, not to {self.loss}")
        return self

    @property
    def pair(self) -> tuple[str, str]:
        return self.query, self.gallery


# Keys of a stage with one learner, one frozen target and one link.
SHORT_FORM = (
    "learner",
    "target",
    *(key for key in Link.model_fields if key not in ("query", "gallery", "weight")),
)


class Stage(BaseModel):
    """One step of the framework: learners move, everything else is frozen.

    >>> Stage(learner=MyTower(), target="satellite", pairs=Pairs.from_table("pairs.parquet"))
    >>> Stage(learners=["satellite", "audio", "text"], pairs=pairs, links=[
    ...     Link("satellite", "audio"), Link("satellite", "text"), Link("audio", "text")])

    The short form has one learner, one frozen target and the options of their link. A learner is a modality of
    the space or a tower that the stage adds to it. Training options have the paper's values (section
    3.1) where it gives them; `lr` is 5e-5 for pretrained learners and 1e-3 for those from scratch unless set.
    `decay` says which weights decay, `positives` what other rows of a row's place are; `validation` is the share of the training
    places held out to choose the best epoch, unless the pairs have a split "val".
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: str = ""
    pairs: Any
    learners: list[Any] = []
    links: list[Link] = []

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(256, ge=2)
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    lr: float | None = Field(None, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(1e-6, gt=0)
    weight_decay: float = Field(0.2, ge=0)
    decay: Literal["matrices", "all"] = "matrices"
    schedule: Literal["one_cycle", "cosine_restarts", "constant"] = "one_cycle"
    restart_steps: Annotated[int, Field(ge=1)] | None = None
    clip_norm: float | None = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    shard: bool = False

    positives: Positives = "joint"
    rows_per_place: Annotated[int, Field(ge=1)] | None = None
    cache_targets: bool = True
    split: str | None = "train"
    validation: float = Field(0.1, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _expand_short_form(cls, data: Any) -> Any:
        """`learner`, `target` and the keys of their link become `learners` and one link."""
        data = dict(data)
        short = {key: data.pop(key) for key in SHORT_FORM if key in data}
        if not short:
            return data
        if "learner" not in short or "target" not in short:
            raise ValueError(
                "the short form needs both `learner` and `target` (or write `learners` and `links`)"
            )
        if "learners" in data or "links" in data:
            raise ValueError("write either `learner` and `target`, or `learners` and `links`, not both")
        learner, target = short.pop("learner"), short.pop("target")
        data["learners"] = [learner]
        data["links"] = [{"query": _modality(learner), "gallery": target, **short}]
        return data

    @model_validator(mode="after")
    def _check(self) -> Stage:
        moving = set(self.moving)
        if not moving:
            raise ValueError("a stage needs a learner")
        if not self.links:
            raise ValueError("a stage needs a link: which modalities are pulled together?")
        for link in self.links:
            if link.query == link.gallery:
                raise ValueError(f"a link joins two modalities, this one joins {link.query!r} to itself")
            if not moving & set(link.pair):
                raise ValueError(
                    f"the link {link.query} - {link.gallery} has no learner, so nothing would move"
                )
            if link.extra_negatives and link.gallery in moving:
                raise ValueError(
                    f"extra_negatives are of a frozen gallery, but {link.gallery!r} learns: make it the query, or freeze it"
                )
        unlinked = moving - {modality for link in self.links for modality in link.pair}
        if unlinked:
            raise ValueError(f"the learner {sorted(unlinked)[0]!r} is in no link, so nothing would move it")
        if self.schedule == "cosine_restarts" and self.restart_steps is None:
            raise ValueError("cosine_restarts needs restart_steps (the paper's code: 3000)")
        if self.shard and (self.compile or self.precision == "fp16"):
            raise ValueError("shard goes with precision bf16 or fp32, and without compile")
        if not self.name:
            self.name = "+".join(self.moving)
        return self

    @property
    def moving(self) -> list[str]:
        """Modalities of the learners."""
        return [_modality(learner) for learner in self.learners]

    @property
    def frozen(self) -> list[str]:
        """Modalities that the links name and that do not move."""
        linked = {modality for link in self.links for modality in link.pair}
        return sorted(linked - set(self.moving))

    @property
    def modalities(self) -> list[str]:
        return [*self.moving, *self.frozen]

    def require_pairs(self) -> Pairs:
        """The stage's rows. Raises GeoBindError where a recipe's name was never resolved."""
        if not isinstance(self.pairs, Pairs):
            raise GeoBindError(f"stage {self.name!r}: pairs is {self.pairs!r}; give a Pairs")
        return self.pairs


def _modality(learner: Any) -> str:
    return learner.modality if isinstance(learner, Tower) else str(learner)
