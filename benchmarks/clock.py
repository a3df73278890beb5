"""The time of the steps between a loop's batches, and how much of it the loop waited for them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any


class Clock:
    """Counts from the batch `warm` on: by then kernels are chosen, and what workers had ready at the start is used up."""

    def __init__(self, warm: int) -> None:
        self.warm, self.steps = warm, 0
        self.began = self.ended = self.waited = 0.0

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; each is asked for when the step before has ended, on the device too."""
        source = iter(batches)
        for number in range(1 << 62):
            asked = time.monotonic()
            if number == self.warm:
                self.began, self.waited = asked, 0.0
            batch = next(source, None)
            if batch is None:
                self.ended, self.steps = asked, number - self.warm
                return
            self.waited += time.monotonic() - asked
            yield batch

    @property
    def seconds(self) -> float:
        return self.ended - self.began
