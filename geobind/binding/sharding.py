"""Learners whose weights, gradients and optimiser state are divided among the processes (FSDP2).

The processes train a divided copy; the space keeps whole towers, brought up to date where they are
looked at: at the end of an epoch, for a checkpoint, at the end. So all that reads a tower or a
checkpoint sees what it would see of one process.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from geobind.binding.model import Binder


class Shards:
    """The divided copy of a binder: `model`, to be trained in its place. Its temperatures are the binder's own."""

    def __init__(self, binder: Binder, accelerator: Accelerator) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.binder = binder
        self.model: Binder = deepcopy(binder)
        self.model.log_scale = binder.log_scale
        # For what comes with it: the device and autocast, but no DDP.
        self.model = accelerator.prepare_model(self.model, evaluation_mode=True)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for tower in self.model.learners.values():
            lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
            blocks = [block for blocks in reversed(lists) for block in blocks]  # inner ones first
            for module in (*blocks, tower):
                if not isinstance(module, nn.ModuleList):
                    fully_shard(module, mesh=mesh, reshard_after_forward=True)

    @torch.no_grad()
    def pull(self) -> None:
        """The weights of all processes into the binder's whole towers."""
        for whole, divided in self._both():
            whole.copy_(gathered(divided))

    @torch.no_grad()
    def push(self) -> None:
        """The binder's weights to where their parts are; the inverse of `pull`."""
        for whole, divided in self._both():
            divided.copy_(like(divided, whole))

    def _both(self) -> list[tuple[Tensor, Tensor]]:
        sides = (self.binder.learners, self.model.learners)
        whole, divided = ([*side.parameters(), *side.buffers()] for side in sides)
        return list(zip(whole, divided, strict=True))


def gathered(state: Any) -> Any:
    """A tensor, or a state that holds some, with all parts of the divided ones. All processes must call it."""
    from torch.distributed.tensor import DTensor

    return tree_map_only(DTensor, lambda tensor: tensor.full_tensor(), state)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a whole state; an optimiser of divided weights takes its parts of it."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    parts = {
        number: {
            name: like(weights[number], value) if value.shape == weights[number].shape else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def like(divided: Tensor, whole: Tensor) -> Tensor:
    """A whole tensor, the same on all processes, divided as another of its shape is (or as it stands)."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(divided, DTensor):
        return whole
    return distribute_tensor(whole.to(divided.device), divided.device_mesh, divided.placements)
