"""SIGTERM, by which a cluster takes its machine back: the step ends, a checkpoint is written, the run says so."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from geobind.errors import Terminated


class Termination:
    """Within this block SIGTERM raises `Terminated`: at once, or, where `stepping` is set, sets `arrived`.

    >>> with Termination() as termination:
    ...     termination.stepping = True      # from here on no step is cut in two
    ...     stop = termination.arrived

    Signals reach the main thread alone; in others the block does nothing.
    """

    def __init__(self) -> None:
        self.stepping = False
        self.arrived = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._arrive)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        self.arrived = True
        if not self.stepping:
            raise Terminated("stopped by SIGTERM before the first step: what is cached is kept")
