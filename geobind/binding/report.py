"""What a stage did, for the console and `report.json`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class BindReport:
    """What a stage did: its rows, the loss and validation recall@10 of each epoch, what was unreadable."""

    stage: str
    rows: int
    validation_rows: int
    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """Of the seconds, those in which the device had nothing to do because no batch was ready."""
    losses: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    temperatures: dict[str, float] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    """Losses of the epoch under way, one a step."""
    resumed_at: int | None = None
    """The step of the checkpoint from which this run went on."""

    @property
    def waiting(self) -> float:
        """Share of the time in which the device waited for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """For the console: one line of figures, and one of what could not be read."""
        parts = [
            f"{self.rows:,} rows" + (f" ({self.validation_rows:,} held out)" if self.validation_rows else "")
        ]
        parts.append(f"{len(self.losses)} epochs")
        if self.best_epoch is not None:
            best = self.recalls[self.best_epoch]
            parts[-1] += f", the best {self.best_epoch + 1} with validation recall@10 {best:.3f}"
        if self.losses:
            parts.append(f"loss {self.losses[-1]:.3f}")
        if self.temperatures:
            parts.append(
                "temperature " + ", ".join(f"{pair} {t:.4f}" for pair, t in self.temperatures.items())
            )
        spent = f"{self.seconds:,.0f} s, {self.waiting:.0%} of them waiting for data"
        lines = [f"Stage {self.stage}: {'; '.join([*parts, spent])}"]
        if self.resumed_at is not None:
            lines[0] += f"; went on at step {self.resumed_at:,}"
        unreadable = list(dict.fromkeys(self.unreadable))  # a row comes again every epoch
        if unreadable:
            named = "; ".join(unreadable[:3]) + ("; ..." if len(unreadable) > 3 else "")
            lines.append(f"{len(unreadable)} unreadable rows were replaced by others: {named}")
        return "\n".join(lines)
