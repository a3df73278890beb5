"""Optimiser, schedule and precision of a stage."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingWarmRestarts, LRScheduler, OneCycleLR

from geobind.binding.model import Binder
from geobind.binding.stage import Stage
from geobind.space import GeoBind

PRETRAINED_LR, SCRATCH_LR = 5e-5, 1e-3  # the paper's (section 3.1), and one that suits heads and small towers


def learning_rate(space: GeoBind, stage: Stage) -> float:
    """The stage's, or one that fits its learners: pretrained ones are moved gently."""
    if stage.lr is not None:
        return stage.lr
    return PRETRAINED_LR if any(space.tower(modality).pretrained for modality in stage.moving) else SCRATCH_LR


def optimizer(module: Binder, stage: Stage, lr: float) -> torch.optim.AdamW:
    """AdamW; biases, norms and temperatures (fewer than two axes) decay where the stage says so.

    Fused: one pass over the weights instead of ten. Not with float16, whose scaler must see a step fail.
    """
    parameters = [p for name, p in module.named_parameters() if p.requires_grad and name != "log_scale"]
    scales = [p for name, p in module.named_parameters() if p.requires_grad and name == "log_scale"]
    others = stage.weight_decay if stage.decay == "all" else 0.0
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": others},
        {"params": scales, "weight_decay": others},  # alone: whole where the weights are divided
    ]
    fused = precision(stage) != "fp16"
    return torch.optim.AdamW(groups, lr=lr, betas=stage.betas, eps=stage.eps, fused=fused)


def schedule(optimizer: torch.optim.Optimizer, stage: Stage, lr: float, steps: int) -> LRScheduler:
    """Learning rate by step: one cycle over the whole stage, cosine with warm restarts, or constant."""
    if stage.schedule == "one_cycle":
        return OneCycleLR(optimizer, max_lr=lr, total_steps=max(2, steps), cycle_momentum=False)
    if stage.schedule == "cosine_restarts" and stage.restart_steps is not None:
        return CosineAnnealingWarmRestarts(optimizer, T_0=stage.restart_steps)
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


def precision(stage: Stage) -> str:
    """Mixed precision as `accelerate` names it: bfloat16 where the device has it, else float16, none on the CPU."""
    if stage.precision != "auto":
        return "no" if stage.precision == "fp32" else stage.precision
    if not torch.cuda.is_available():
        return "no"
    if torch.cuda.is_bf16_supported():
        return "bf16"
    return "no" if stage.shard else "fp16"  # whose scaler takes whole gradients
