"""Place and time of a picture as numbers: what a conditioned tower reads of a row beside its picture."""

from __future__ import annotations

import calendar
import math
from datetime import datetime
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geobind.data.table import moment
from geobind.errors import GeoBindError, MediaError, first_problem
from geobind.towers.base import Batch, Row
from geobind.towers.location import read_position

COLUMNS = ("latitude", "longitude", "datetime")


class Condition(BaseModel):
    """What a tower is told of place and time, as a recipe writes it: `condition: sphere` for short.

    >>> Condition(encoding="sat2cap", dropout=0.3)

    `encoding`: how position and time become numbers (see `encode_place`, `encode_time`); `dropout`: the
    chance that a training sample is told nothing, so that the tower stays good without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoding: Literal["sat2cap", "sphere"] = "sphere"
    dropout: float = Field(0.3, ge=0, lt=1)


ConditionValue = Literal["sat2cap", "sphere"] | dict[str, Any]
"""An encoding, or the fields of `Condition`, as a recipe gives them."""


def as_condition(value: ConditionValue | None) -> Condition | None:
    """A tower's option `condition`, checked. Raises GeoBindError naming the key."""
    if value is None:
        return None
    try:
        return Condition.model_validate({"encoding": value} if isinstance(value, str) else value)
    except ValidationError as error:
        problem = first_problem(error, lambda path: Condition.model_fields)
        raise GeoBindError(
            f"condition: {problem}; give sat2cap, sphere or {{encoding: ..., dropout: 0.3}}"
        ) from None


def encode_place(encoding: str, latitude: float, longitude: float) -> list[float]:
    """Degrees WGS84 to numbers.

    "sat2cap", 4: sine and cosine of pi latitude / 90 and of pi longitude / 180, as Sat2Cap has it, where
    both poles are one. "sphere", 3: the point on the unit sphere, (cos a cos b, cos a sin b, sin a) of
    latitude a and longitude b: each place has its own, a pole whatever its longitude.
    """
    if encoding == "sat2cap":
        return _circles(latitude / 180, longitude / 360)
    a, b = math.radians(latitude), math.radians(longitude)
    return [math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)]


def encode_time(encoding: str, time: datetime) -> list[float]:
    """A time in UTC to numbers.

    "sat2cap", 8: sine and cosine of 2 pi times (year - 2015) / 15, month / 12, day / 31 and hour / 23,
    as Sat2Cap has it, where 2000 is 2015 and hour 0 is hour 23. "sphere", 5: sine and cosine of 2 pi
    times the share of the year gone by and of the day gone by, and the years since 2015 over 15 as they
    are: seasons and days close, years do not.
    """
    if encoding == "sat2cap":
        return _circles((time.year - 2015) / 15, time.month / 12, time.day / 31, time.hour / 23)
    day = (time.hour + (time.minute + time.second / 60) / 60) / 24
    year = (time.timetuple().tm_yday - 1 + day) / (365 + calendar.isleap(time.year))
    return [*_circles(year, day), (time.year + year - 2015) / 15]


def _circles(*turns: float) -> list[float]:
    return [wave(2 * math.pi * turn) for turn in turns for wave in (math.sin, math.cos)]


NUMBERS = {"sat2cap": (4, 8), "sphere": (3, 5)}
"""How many numbers each encoding makes of a place and of a time."""


class PlaceTime:
    """`latitude`, `longitude` and `datetime` of a row to numbers, and which of the two are known.

    {"place_time": (place + time,) float32, "known": (2,) bool}; what is missing is zeros and not known.

    While learning (`rng`) a part of the samples forgets: with "sat2cap" all of it, as published; with
    "sphere" place and time each for itself, so that either may be asked for alone later.
    """

    def __init__(self, condition: Condition) -> None:
        self.encoding, self.dropout = condition.encoding, condition.dropout

    def __call__(self, row: Row, rng: np.random.Generator | None) -> Batch:
        place, time = self._place(row), self._time(row)
        known = [place is not None, time is not None]
        if rng is not None:
            kept = rng.random(2) >= self.dropout
            if self.encoding == "sat2cap":
                kept[1] = kept[0]
            known = [has and bool(keeps) for has, keeps in zip(known, kept, strict=True)]
        places, times = NUMBERS[self.encoding]
        numbers = (place or [0.0] * places) + (time or [0.0] * times)
        return {"place_time": torch.tensor(numbers, dtype=torch.float32), "known": torch.tensor(known)}

    def _place(self, row: Row) -> list[float] | None:
        axes = [row.get(name) for name in COLUMNS[:2]]
        given = [axis is not None and axis == axis for axis in axes]  # NaN is missing, too
        if not any(given):
            return None
        if not all(given):
            raise MediaError(f"latitude {axes[0]}, longitude {axes[1]}: a position needs both, or neither")
        return encode_place(self.encoding, *read_position(axes, "latitude, longitude"))

    def _time(self, row: Row) -> list[float] | None:
        time = moment(row.get("datetime"))
        return None if time is None else encode_time(self.encoding, time)
