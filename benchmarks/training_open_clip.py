"""Stage 1 through open_clip's own training loop: called by training.py with the Python of another environment.

    python benchmarks/training_open_clip.py FOLDER BATCH STEPS WARM WORKERS DEVICE

Two ViT-B/32 vision towers with random weights, that of the photos frozen; open_clip's transforms (crops of 8 to
100 %), its loss and its `train_one_epoch`, unchanged; AdamW as its `main` makes it. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import torch


def mend_torchvision() -> None:
    """torchvision's wheel of the registry wants CUDA; beside a CPU torch its operators are missing, of which it wants two."""
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        mend_torchvision.kept = library  # type: ignore[attr-defined]


mend_torchvision()

import open_clip  # noqa: E402
from clock import Clock  # noqa: E402
from open_clip_train.train import train_one_epoch  # noqa: E402
from PIL import Image  # noqa: E402


class Pairs(torch.utils.data.Dataset):
    def __init__(self, folder: Path) -> None:
        self.names = sorted(path.name for path in (folder / "satellite").iterdir())
        self.folder = folder
        crops = {"scale": (0.08, 1.0)}
        self.learning = open_clip.image_transform(224, is_train=True, aug_cfg=crops)
        self.fixed = open_clip.image_transform(224, is_train=False, resize_mode="squash")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        tile, photo = (Image.open(self.folder / part / self.names[row]) for part in ("satellite", "image"))
        return self.learning(tile), self.fixed(photo)


class TwoTowers(torch.nn.Module):
    """What open_clip's loop calls: features of both sides, with gradient for the first."""

    def __init__(self) -> None:
        super().__init__()
        self.learner, self.frozen = (open_clip.create_model("ViT-B-32").visual for _ in range(2))
        self.frozen.requires_grad_(False)
        self.logit_scale = torch.nn.Parameter(torch.ones([]) * 2.66)

    def forward(self, images: torch.Tensor, photos: torch.Tensor) -> dict[str, torch.Tensor]:
        normal = torch.nn.functional.normalize
        with torch.no_grad():
            target = normal(self.frozen(photos), dim=-1)
        return {
            "image_features": normal(self.learner(images), dim=-1),
            "text_features": target,
            "logit_scale": self.logit_scale.exp(),
        }


class Timed:
    """A loader whose iteration is timed; `once` gives the first batch in every step."""

    def __init__(self, loader: torch.utils.data.DataLoader, clock: Clock, once: bool) -> None:
        self.loader, self.clock, self.once = loader, clock, once
        self.num_batches, self.num_samples = len(loader), len(loader.dataset)

    def __iter__(self):
        batches = self.loader
        if self.once:
            batches = repeat(next(iter(self.loader)), self.num_batches)
        return self.clock.over(batches)


def main() -> None:
    folder, device = Path(sys.argv[1]), sys.argv[6]
    batch, steps, warm, workers = map(int, sys.argv[2:6])
    torch.manual_seed(0)
    model = TwoTowers().to(device)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=5e-5, betas=(0.9, 0.98)
    )
    arguments = Namespace(
        device=device, precision="fp32" if device == "cpu" else "amp_bf16", distill=False, accum_freq=1, skip_scheduler=True,
        horovod=False, grad_clip_norm=None, log_every_n_steps=1, batch_size=batch, world_size=1, rank=0,
        local_rank=0, distributed=False, wandb=False,
    )  # fmt: skip

    def run(once: bool, count: int, warm: int) -> Clock:
        clock = Clock(warm)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(Pairs(folder), range(batch * count)), batch, shuffle=True,
            num_workers=0 if once else workers, pin_memory=device != "cpu", drop_last=True,
        )  # fmt: skip
        data = {"train": SimpleNamespace(dataloader=Timed(loader, clock, once), set_epoch=lambda epoch: None)}
        train_one_epoch(model, data, open_clip.ClipLoss(), 0, optimizer, None, None, None, arguments)
        return clock

    compute = run(True, min(steps, 20) + 2, 2)
    clock = run(False, steps + warm, warm)
    print(
        json.dumps(
            {
                "compute": batch * compute.steps / compute.seconds, "end": batch * clock.steps / clock.seconds,
                "waiting": clock.waited / clock.seconds,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
