"""One process or several (`accelerate launch`, `torchrun`), on the CPU or on GPUs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor

# Without this, several processes on a machine without a GPU would not notice each other.
_ON_CPU = not torch.accelerator.is_available()


def make_accelerator(precision: str) -> Accelerator:
    """The accelerator of a stage, at its mixed precision ("no", "bf16", "fp16")."""
    AcceleratorState._reset_state()  # it would refuse another precision than the stage's before
    # A tower may leave a weight unused: a norm behind the pooling, a branch for long sounds. Where none does, a
    # step costs one more walk through its graph, of which torch warns.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return Accelerator(mixed_precision=precision, cpu=_ON_CPU, kwargs_handlers=[unused])


def is_main_process() -> bool:
    """Whether this is the process that writes and prints."""
    return bool(PartialState(cpu=_ON_CPU).is_main_process)


@contextmanager
def main_process_first() -> Iterator[bool]:
    """The main process goes through the block, then the others; the value says which one this is."""
    state = PartialState(cpu=_ON_CPU)
    with state.main_process_first():
        yield state.is_main_process


def gather(tensor: Tensor, processes: int) -> Tensor:
    """Rows of all processes, with gradient to each one's own: negatives come from the global batch."""
    if processes == 1:
        return tensor
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(tensor))


def any_process(says: list[bool], accelerator: Accelerator) -> list[bool]:
    """Of each statement whether it is so on any process, so that all of them do the same."""
    if accelerator.num_processes == 1:
        return says
    return accelerator.gather(torch.tensor([says], device=accelerator.device)).any(0).tolist()
