"""Gradients of a contrastive loss: of one forward pass, or of several where a batch does not fit into memory.

A contrastive loss needs the embeddings of the whole batch at once, but not the activations behind
them. So the parts of a batch are embedded without a graph, the loss is taken over all of them, and
each part is embedded once more to carry its share of the gradient to the weights (Gao et al. 2021,
"Scaling deep contrastive learning batch size under memory limited setup", arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from geobind.towers.base import Batch

Part = dict[str, Batch]
Loss = Callable[[dict[str, Tensor], Tensor], Tensor]


def backward(
    accelerator: Accelerator, model: nn.Module, parts: Sequence[Part], loss: Loss, seed: Callable[[int], None],
    finish: Callable[[Part], Part] = lambda part: part,
) -> Tensor:  # fmt: skip
    """Add the gradients of `loss(embeddings, scales)` to the weights; the loss, without a graph.

    `model` is a `Binder`, prepared by the accelerator; `loss` sees the embeddings of all parts, in
    their order, each (batch, dim). Parts go to the device one at a time, where `finish` makes of each what the
    model takes. `seed(number)` is called before a part is embedded, each time, so that the second time
    draws the dropout of the first.
    """

    def embed(number: int) -> tuple[dict[str, Tensor], Tensor]:
        seed(number)
        return model(finish(send_to_device(parts[number], accelerator.device, non_blocking=True)))

    if len(parts) == 1:
        value = loss(*embed(0))
        accelerator.backward(value)
        return value.detach()
    with torch.no_grad():
        found = [embed(number) for number in range(len(parts))]
    sizes = [len(next(iter(embeddings.values()))) for embeddings, _ in found]
    whole = {m: torch.cat([part[m] for part, _ in found]).requires_grad_() for m in found[0][0]}
    scales = found[0][1].requires_grad_()
    value = loss(whole, scales)
    accelerator.backward(value)  # of float16, scaled; what follows carries that on
    gradients = {m: _gradient(vectors).split(sizes) for m, vectors in whole.items()}
    for number in range(len(parts)):
        last = number == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(model):  # processes exchange gradients once
            embeddings, own_scales = embed(number)
            outputs = {vectors: gradients[m][number] for m, vectors in embeddings.items()}
            # The scales are of no part, so that their gradient goes with one of them.
            outputs[own_scales] = _gradient(scales) if last else torch.zeros_like(scales)
            moving = {output: gradient for output, gradient in outputs.items() if output.requires_grad}
            torch.autograd.backward(list(moving), list(moving.values()))
    return value.detach()


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
