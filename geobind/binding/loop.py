"""The training loop: `bind(space, stage)`."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import Tensor
from torch.nn import functional as F

from geobind.binding import optim
from geobind.binding.cache import Targets
from geobind.binding.checkpoint import Checkpoints
from geobind.binding.gradient import backward
from geobind.binding.loader import StageBatch, StageLoader, default_workers
from geobind.binding.model import Binder, stage_loss
from geobind.binding.negatives import ExtraNegatives
from geobind.binding.prepare import cache_frozen, prepare
from geobind.binding.processes import any_process, gather, make_accelerator
from geobind.binding.report import BindReport
from geobind.binding.sharding import Shards, gathered, load_optimizer
from geobind.binding.stage import Stage
from geobind.binding.stopping import Termination
from geobind.binding.validation import Validation
from geobind.console import progress_bar
from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, GeoBindWarning, MediaError, Terminated, shorten
from geobind.space import GeoBind
from geobind.storage import write_text
from geobind.towers.base import Batch

CHECKPOINT_SECONDS = 300.0  # a killed job costs at most this
LOG_STEPS = 10


def bind(
    space: GeoBind,
    stage: Stage,
    *,
    out: str | Path | None = None,
    limit: int | None = None,
    strict: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> BindReport:
    """Train a stage's learners in place; everything else stays as it is.

    >>> report = bind(space, Stage(learner=tower, target="satellite", pairs=pairs))

    The space ends with the weights of the epoch that had the best validation recall (the last one
    where nothing is held out). With `out`, that folder holds checkpoints and a TensorBoard log, and a
    second call with the same stage resumes, to the same weights as a run that was never stopped.
    `limit` trains on the first rows only; `strict` stops at unreadable media instead of replacing it.
    Under `accelerate launch`, rows and negatives are shared by all processes.
    Raises GeoBindError for a stage that cannot run (see `prepare`) and for a loss that is not finite, and
    Terminated after SIGTERM, when the step is done and a checkpoint written.
    """
    accelerator = make_accelerator(optim.precision(stage))
    show = progress and accelerator.is_main_process
    with Termination() as termination:
        prepared = prepare(space, stage, limit=limit)
        decoding = workers or 0
        if workers is None and accelerator.device.type != "cpu":  # a CPU has no time to spare while it embeds
            decoding = default_workers(prepared.train, stage.frozen)
        caching: dict[str, Any] = {"strict": strict, "workers": decoding, "progress": show}
        targets, train = cache_frozen(space, stage, prepared.train, accelerator, **caching)
        validation = None
        if prepared.validation is not None:
            held_targets, held_out = cache_frozen(space, stage, prepared.validation, accelerator, **caching)
            validation = Validation(space, stage.links, held_out, held_targets)
        training = _Training(
            accelerator, space, stage, train, targets, validation, strict=strict, workers=workers
        )
        if out is not None:
            training.keep_in(Path(out))
        return training.run(show, termination)


def open_losses(path: Path, step: int) -> TextIO:
    """`losses.csv` (step,loss) to append to, cut to the lines up to a step: what came after is done again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() and step else []
    kept = [line for line in lines[1:] if line.count(",") == 1 and int(line.split(",")[0]) <= step]
    write_text(path, "\n".join(["step,loss", *kept]) + "\n")
    return open(path, "a", encoding="utf-8", buffering=1)


class _Training:
    """The moving parts of one stage on one process."""

    def __init__(
        self, accelerator: Accelerator, space: GeoBind, stage: Stage, pairs: Pairs, targets: dict[str, Targets],
        validation: Validation | None, *, strict: bool, workers: int | None,
    ) -> None:  # fmt: skip
        self.accelerator, self.space, self.stage = accelerator, space, stage
        self.pairs, self.targets, self.validation = pairs, targets, validation
        self.strict, self.workers = strict, workers
        processors = {modality: space.tower(modality).processor for modality in stage.modalities}
        self.uncached = [modality for modality in stage.frozen if modality not in targets]
        self.loader = StageLoader(
            pairs, stage, {m: processors[m] for m in stage.moving}, {m: processors[m] for m in self.uncached},
            workers=workers, rank=accelerator.process_index, processes=accelerator.num_processes,
        )  # fmt: skip
        self.steps = stage.epochs * len(self.loader)
        for modality in self.uncached:
            space.tower(modality).to(accelerator.device).eval()
        self.extra = ExtraNegatives(space, stage, pairs, targets)
        self.binder = Binder(
            space, stage.moving, stage.links, norms_learn=stage.micro_batch is None, compiled=stage.compile
        )
        lr = optim.learning_rate(space, stage)
        self.shards = (
            Shards(self.binder, accelerator) if stage.shard and accelerator.num_processes > 1 else None
        )
        optimizer = optim.optimizer(self.shards.model if self.shards else self.binder, stage, lr)
        self.scheduler = optim.schedule(optimizer, stage, lr, self.steps)
        if self.shards:
            self.model, self.optimizer = self.shards.model, accelerator.prepare(optimizer)
        else:
            self.model, self.optimizer = accelerator.prepare(self.binder, optimizer)
        self.report = BindReport(stage.name, len(pairs), len(validation.pairs) if validation else 0)
        self.signature = self._signature()
        self.best: dict[str, Tensor] | None = None
        self.checkpoints: Checkpoints | None = None
        self.log: Any = None
        self.losses: TextIO | None = None

    # --- the loop --------------------------------------------------------------------------------------

    def run(self, show: bool, termination: Termination) -> BindReport:
        report = self.report
        if report.step == 0:
            on_error = "raise" if self.strict else "skip"
            self.extra.fill(device=self.accelerator.device, on_error=on_error, workers=self.workers or 0)
        termination.stepping = True
        began, saved = time.monotonic() - report.seconds, time.monotonic()
        with progress_bar(disable=not show) as bar:
            task = bar.add_task(f"stage {self.stage.name}", total=self.steps, completed=report.step, note="")
            while report.step < self.steps:
                epoch, start = divmod(report.step, len(self.loader))
                self.model.train()
                batches = self.loader.epoch(epoch, start)
                while (batch := self.next_batch(batches)) is not None:
                    loss = self.train_step(batch)
                    report.seconds = time.monotonic() - began
                    bar.update(task, completed=report.step, note=self._note(loss))
                    late = time.monotonic() - saved > CHECKPOINT_SECONDS
                    stopping, due = any_process([termination.arrived, late], self.accelerator)
                    if report.step % len(self.loader) and (stopping or due):
                        self.pull()
                        self.save()
                        saved = time.monotonic()
                        self.stop_if(stopping)
                self.end_epoch(epoch)
                self.stop_if(stopping)
                saved = time.monotonic()
        return self.finish()

    def stop_if(self, stopping: bool) -> None:
        """Raise Terminated after a checkpoint; no process ends, and takes the others along, before it is written."""
        if stopping:
            self.accelerator.wait_for_everyone()
            where = f"stopped by SIGTERM at step {self.report.step:,} of {self.steps:,} of stage {self.stage.name!r}"
            raise Terminated(where + (f"; {self.checkpoints.folder} has it" if self.checkpoints else ""))

    def next_batch(self, batches: Iterator[StageBatch]) -> StageBatch | None:
        """The epoch's next batch. Each step ends with the loss on the host, so what this takes the device waits."""
        began = time.monotonic()
        batch = next(batches, None)
        self.report.waited += time.monotonic() - began
        return batch

    def train_step(self, batch: StageBatch) -> float:
        """One optimiser step on one batch of every process; the loss over all of them."""
        if self.strict and batch.unreadable:
            raise MediaError(batch.unreadable[0])
        accelerator, report = self.accelerator, self.report
        report.unreadable += batch.unreadable
        frozen = self.frozen_embeddings(batch)
        places = accelerator.gather(batch.places.to(accelerator.device))
        rows = batch.rows
        if accelerator.num_processes > 1:
            rows = accelerator.gather(torch.from_numpy(rows).to(accelerator.device)).cpu().numpy()
        extra = self.extra.keys(report.step, rows, accelerator.device)
        everyone: dict[str, Tensor] = {}

        def loss_of(moving: dict[str, Tensor], scales: Tensor) -> Tensor:
            for modality, vectors in (moving | frozen).items():
                everyone[modality] = gather(vectors, accelerator.num_processes)
            return stage_loss(everyone, scales, places, self.stage.links, self.stage.positives, extra)

        parts = [{modality: part[modality] for modality in self.stage.moving} for part in batch.parts]
        loss = backward(accelerator, self.model, parts, loss_of, self._seed, self._finish)
        value = float(loss)
        if not np.isfinite(value):
            self.refuse(value, rows)
        if self.stage.clip_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), self.stage.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if not accelerator.optimizer_step_was_skipped:  # fp16 overflow
            self.scheduler.step()
        self.binder.clamp()
        self.extra.push(everyone, places)

        report.step += 1
        report.step_losses.append(value)
        if self.losses:
            self.losses.write(f"{report.step},{value!r}\n")
        return value

    def refuse(self, value: float, rows: np.ndarray) -> None:
        """Stop before a loss that is not finite reaches the weights, with the keys of the batch of all processes."""
        batch = self.pairs.subset(rows)
        names = {modality: map(str, batch.keys(modality)) for modality in self.stage.modalities}
        keys = [dict(zip(names, row, strict=True)) for row in zip(*names.values(), strict=True)]
        named = f"rows such as {shorten(keys[0], 160)}"
        kept = ""
        if self.checkpoints is not None:
            written = self.checkpoints.folder / "bad_batch.json"
            if self.accelerator.is_main_process:
                write_text(written, json.dumps({"step": self.report.step + 1, "rows": keys}, indent=1) + "\n")
            named = f"{written} lists its {len(keys)} rows"
            step = self.checkpoints.step
            kept = (
                "; no checkpoint is written yet"
                if step is None
                else f"; the checkpoint of step {step:,} is good"
            )
        raise GeoBindError(
            f"stage {self.stage.name!r}: the loss is {value} at step {self.report.step + 1:,}; {named}: look at "
            f"them, or lower lr or precision{kept}"
        )

    def _seed(self, part: int) -> None:
        """Dropout is drawn from (seed, step, process, part): resuming needs no random state."""
        words = [self.stage.seed, self.report.step, self.accelerator.process_index, part]
        set_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def _finish(self, part: dict[str, Batch]) -> dict[str, Batch]:
        """Light items of the learners, on the device, as their towers take them."""
        return {m: self.space.tower(m).processor.finish(batch) for m, batch in part.items()}

    @torch.no_grad()
    def frozen_embeddings(self, batch: StageBatch) -> dict[str, Tensor]:
        """Unit embeddings of the frozen modalities: from the cache, or from their towers."""
        fixed = {
            m: torch.from_numpy(target[batch.rows]).to(self.accelerator.device)
            for m, target in self.targets.items()
        }
        for modality in self.uncached:
            tower, found = self.space.tower(modality), []
            for part in batch.parts:
                values = send_to_device(part[modality], self.accelerator.device, non_blocking=True)
                values = tower.processor.finish(values)
                with self.accelerator.autocast():
                    found.append(tower(**values).float())
            fixed[modality] = F.normalize(torch.cat(found), dim=-1)
        return fixed

    def end_epoch(self, epoch: int) -> None:
        """Mean loss, validation recall, the best learners, a checkpoint."""
        report = self.report
        report.losses.append(float(np.mean(report.step_losses)))
        report.step_losses = []
        self.pull()
        if self.validation is not None:
            report.recalls.append(self.validation.recall())
            if report.best_epoch is None or report.recalls[-1] >= report.recalls[report.best_epoch]:
                report.best_epoch = epoch
                self.best = {
                    key: value.detach().cpu().clone() for key, value in self.binder.state_dict().items()
                }
                if self.checkpoints and self.accelerator.is_main_process:
                    self.checkpoints.save_best(report.step, self.best)
            if self.log:
                self.log.add_scalar("validation_recall@10", report.recalls[-1], report.step)
        self.save()

    def finish(self) -> BindReport:
        """Put the best learners into the space and note what was bound to what."""
        if self.best is not None:
            self.binder.load_state_dict(self.best)
        temperatures = self.binder.temperatures()
        self.report.temperatures = {"-".join(pair): value for pair, value in temperatures.items()}
        for modality in self.stage.moving:
            self.space.tower(modality).eval()
        self.space.record_binding(self.stage.moving, temperatures)
        if self.log and self.losses:
            self.log.close()
            self.losses.close()
        self.accelerator.wait_for_everyone()
        return self.report

    # --- files -----------------------------------------------------------------------------------------

    def keep_in(self, folder: Path) -> None:
        """Write checkpoints and the log into a folder, and go on from what is there."""
        self.checkpoints = Checkpoints(folder)
        found = self.checkpoints.load()
        if found is not None:
            step, state = found
            if state["signature"] != self.signature:
                raise GeoBindError(
                    f"{folder} holds a checkpoint of another stage or of other pairs: choose another folder, or delete it"
                )
            self.binder.load_state_dict(state["binder"])
            if self.shards:
                self.shards.push()
            load_optimizer(self.optimizer, state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.extra.load(state["queues"])
            self.report = BindReport(**state["report"] | {"resumed_at": step})
            self.best = self.checkpoints.load_best(step) if self.report.best_epoch is not None else None
            before, now = state["processes"], self.accelerator.num_processes
            if before != now and self.accelerator.is_main_process:
                share = self.stage.batch_size // now
                warnings.warn(
                    f"stage {self.stage.name!r} goes on at step {step:,} with {now} processes instead of {before}: the "
                    f"batches and their order stay, each process takes {share} of the {self.stage.batch_size} rows",
                    GeoBindWarning,
                    stacklevel=3,
                )
        if self.accelerator.is_main_process:
            from tensorboardX import SummaryWriter

            self.log = SummaryWriter(str(folder / "log"), purge_step=self.report.step)
            self.losses = open_losses(folder / "losses.csv", self.report.step)

    def pull(self) -> None:
        """Bring the binder's towers up to date, where the processes train divided copies."""
        if self.shards:
            self.shards.pull()

    def save(self) -> None:
        """Write a checkpoint of the binder, which `pull` has brought up to date."""
        if self.checkpoints is None:
            return
        optimizer = gathered(self.optimizer.state_dict())
        if not self.accelerator.is_main_process:
            return
        for name, value in self.binder.named_parameters():
            if not value.isfinite().all():  # by an infinite gradient of a finite loss
                raise GeoBindError(
                    f"stage {self.stage.name!r}: {name} is not finite after step {self.report.step:,}, so no checkpoint is "
                    f"written: lower lr, set clip_norm, or train in fp32; {self.checkpoints.folder} keeps the last good one"
                )
        scaler = self.accelerator.scaler
        self.checkpoints.save(
            self.report.step,
            {
                "processes": self.accelerator.num_processes,
                "signature": self.signature,
                "binder": self.binder.state_dict(),
                "optimizer": optimizer,
                "scheduler": self.scheduler.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "queues": self.extra.state(),
                "report": asdict(self.report),
            },
        )

    def _signature(self) -> str:
        """Digest of what a checkpoint must agree on to be resumed."""
        content = self.stage.model_dump(mode="json", exclude={"pairs", "learners", "compile", "shard"})
        content["learners"] = self.stage.moving
        content["frozen"] = {modality: self.space.fingerprint(modality) for modality in self.stage.frozen}
        content["rows"] = [len(self.pairs), self.pairs.places.sum().item()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _note(self, loss: float) -> str:
        report = self.report
        rate = report.step * self.stage.batch_size / max(report.seconds, 1e-9)
        temperature = min(self.binder.temperatures().values())
        if self.log and report.step % LOG_STEPS == 0:
            self.log.add_scalar("loss", loss, report.step)
            self.log.add_scalar("temperature", temperature, report.step)
            self.log.add_scalar("learning_rate", self.scheduler.get_last_lr()[0], report.step)
            self.log.add_scalar("rows_per_second", rate, report.step)
            self.log.add_scalar("share_waiting_for_data", report.waiting, report.step)
        return f"loss {loss:.3f}  temperature {temperature:.3f}  {rate:,.0f} rows/s"
