"""Work divided over a Ray cluster: what a worker had in hand when it died, another one does again."""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from geobind.errors import GeoBindError, shorten

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_ATTEMPTS = 4
"""Workers that may die of a piece, or one after the other as they start."""


def divided(
    work: Callable[[Piece], Result],
    pieces: Iterable[Piece],
    *,
    workers: int = 0,
    device: str | None = None,
) -> Generator[tuple[Piece, Result], None, None]:
    """`(piece, work(piece))` of every piece, in any order, from the processes of a Ray cluster.

    >>> dict(divided(math.sqrt, [4, 9]))
    {9: 3.0, 4: 2.0}

    The cluster is the one that RAY_ADDRESS names (`auto`: the one that runs on this machine), else one of this
    machine's cores that is started here and ends with the work. Each process gets `work` once, so it may hold a tower, and has a GPU and
    1 + `workers` CPUs; no GPU where none is there or `device` is cpu. `pieces` are drawn as they are needed.
    A process that dies is replaced and its pieces are done again, so `work` must have no other effect than
    its result. Raises GeoBindError as `work` does, without Ray or a cluster, and where four processes
    in a row die of one piece.
    """
    pieces = iter(pieces)
    first = next(pieces, None)
    if first is None:
        return
    ray, started = _connect()
    try:
        yield from _Crew(ray, work, workers, device).run(itertools.chain([first], pieces))
    finally:
        if started:
            ray.shutdown()


class _Worker:
    """Runs within the cluster."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def ready(self) -> None:
        """Returns when the process has all that it needs."""

    def do(self, piece: Any) -> Any:
        return self.work(piece)


class _Crew:
    """The workers, and which piece each has in hand."""

    def __init__(self, ray: Any, work: Callable[[Any], Any], workers: int, device: str | None) -> None:
        self.ray = ray
        self.size, needs = _share(ray, 1 + workers, device)
        # Ray's own retries wait for the lost worker's place; a free worker is sooner at hand.
        self.kind = ray.remote(max_restarts=0, max_task_retries=0, **needs)(_Worker)
        self.work = ray.put(work)
        self.hired: list[Any] = []
        self.idle: list[Any] = []
        self.asked: dict[Any, tuple[Any, _Task | None]] = {}
        self.waiting: list[_Task] = []

    def run(self, pieces: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        failed_starts = 0
        try:
            for piece in itertools.islice(pieces, self.size):
                self.waiting.append(_Task(piece))
                self._hire()
            while self.waiting or any(task for _, task in self.asked.values()):
                (done,), _ = self.ray.wait(list(self.asked), num_returns=1)
                worker, task = self.asked.pop(done)
                try:
                    result = self.ray.get(done)
                except (self.ray.exceptions.RayActorError, self.ray.exceptions.ObjectLostError) as error:
                    deaths = failed_starts = failed_starts + 1
                    if task is not None:
                        self.waiting.append(_Task(task.piece, task.deaths + 1))
                        deaths, failed_starts = task.deaths + 1, 0
                    if deaths == _ATTEMPTS:
                        raise _died(error) from None
                    self.hired.remove(worker)
                    self.ray.kill(worker)
                    self._hire()
                    self._hand_out(pieces)
                    continue
                except self.ray.exceptions.RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, GeoBindError) else error) from None
                self.idle.append(worker)
                self._hand_out(pieces)  # before the result is dealt with: nobody waits for that
                if task is None:
                    failed_starts = 0
                else:
                    yield task.piece, result
        finally:
            for worker in self.hired:
                self.ray.kill(worker)

    def _hire(self) -> None:
        worker = self.kind.remote(self.work)
        self.hired.append(worker)
        self.asked[worker.ready.remote()] = worker, None

    def _hand_out(self, pieces: Iterator[Any]) -> None:
        while self.idle:
            if not self.waiting:
                self.waiting += [_Task(piece) for piece in itertools.islice(pieces, 1)]
            if not self.waiting:
                return
            worker, task = self.idle.pop(), self.waiting.pop()
            self.asked[worker.do.remote(task.piece)] = worker, task


@dataclass(frozen=True)
class _Task:
    piece: Any
    deaths: int = 0


def _connect() -> tuple[Any, bool]:
    """Ray, connected, and whether that was done here."""
    try:
        import ray
    except ImportError:
        raise GeoBindError('a cluster needs Ray: pip install "geobind[ray]"') from None
    if ray.is_initialized():
        return ray, False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no reports to Ray's makers
    address = os.environ.get("RAY_ADDRESS") or "local"
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise GeoBindError(
            f"the Ray cluster at {address} cannot be reached ({shorten(' '.join(str(error).split()), 160)}): "
            f"start one with `ray start --head`, and give its address in RAY_ADDRESS"
        ) from None
    return ray, True


def _share(ray: Any, cpus: int, device: str | None) -> tuple[int, dict[str, int]]:
    """How many workers the cluster holds, and what each is given."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu = device != "cpu" and any(node.get("GPU") for node in nodes)
    fits = [int(node.get("CPU", 0)) // cpus for node in nodes]
    if gpu:
        fits = [min(count, int(node.get("GPU", 0))) for count, node in zip(fits, nodes, strict=True)]
    if not sum(fits):
        raise GeoBindError(
            f"no node of the Ray cluster has {cpus} CPUs{' and a GPU' if gpu else ''} for a worker: "
            f"give fewer decoding processes with workers, or add nodes"
        )
    return sum(fits), {"num_cpus": cpus, "num_gpus": int(gpu)}


def _died(error: Exception) -> GeoBindError:
    reason = shorten(" ".join(str(error).split()), 300)
    return GeoBindError(
        f"{_ATTEMPTS} Ray workers died one after the other ({reason}): see that geobind is installed on every node, "
        f"and that memory suffices (a smaller batch size needs less)"
    )
