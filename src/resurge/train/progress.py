"""What a running training shows: one line that renews itself on a terminal, one line an epoch in a file."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any, TextIO

import lightning as L

from resurge.tasks.metric_names import percent_text
from resurge.train.keeper import Recorder
from resurge.train.module import Training


def clock(seconds: float) -> str:
    """Seconds as 0:01:30."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _told(values: dict[str, Any], figures: tuple[str, ...], prefix: str = "", before: str = "") -> str:
    """ "loss 0.1234  top-1 97.22 %" of the values under these names; what is not there is left out."""
    loss = values.get(f"{prefix}loss")
    told = [] if loss is None else [f"{before}loss {loss:.4f}"]
    told += [percent_text({name: values.get(prefix + name)}, before) for name in figures]
    return "  ".join(text for text in told if text)


class Progress(L.Callback):
    """Epoch, step, loss, images a second and time left.

    The time left counts the evaluations that are still to come, at the pace so far.
    """

    def __init__(self, recorder: Recorder, stream: TextIO | None = None, interval: float = 0.25) -> None:
        self.recorder = recorder
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.interval = interval if self.live else 60.0
        self._shown = 0
        self._start = self._last = time.perf_counter()
        self._first_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        self._start = self._last = time.perf_counter()
        self._first_step = pl_module.position.step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now - self._last < self.interval or not trainer.is_global_zero:
            return
        self._last = now
        assert isinstance(pl_module, Training)
        position, span = pl_module.position, pl_module.span
        done = position.step - self._first_step
        left = (now - self._start) / done * (span.steps - position.step) if done else 0.0
        means = pl_module.train_means()
        images = done * self.recorder.images_per_step
        self._show(
            f"epoch {position.epoch + 1}/{span.epochs}  step {position.step}/{span.steps}  "
            f"{_told(means, pl_module.objective.train_figures)}  "
            f"{images / (now - self._start):.0f} images/s  left {clock(left)}",
            keep=not self.live,
        )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.live and trainer.is_global_zero:
            self._show("evaluating ...", keep=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Training)
        row, span = self.recorder.row, pl_module.span
        objective = pl_module.objective
        text = f"epoch {row['epoch']}/{span.epochs}  {_told(row, objective.train_figures, 'train_')}"
        if row[f"val_{objective.figures[0]}"] is not None:
            text += f"  {_told(row, objective.figures, 'val_', 'val ')}"
        if row["images_per_s"]:
            text += f"  {row['images_per_s']:.0f} images/s"
        now = time.perf_counter()
        done = row["step"] - self._first_step
        left = (now - self._start) / done * (span.steps - row["step"]) if done else 0.0
        self._show(f"{text}  {clock(row['seconds'])}, left {clock(left)}", keep=True)

    def _show(self, text: str, keep: bool) -> None:
        if not self.live:
            print(text, file=self.stream, flush=True)
            return
        width = shutil.get_terminal_size().columns
        padding = " " * max(0, self._shown - len(text))
        self.stream.write("\r" + (text + padding if keep else (text + padding)[: width - 1]) + ("\n" if keep else ""))
        self.stream.flush()
        self._shown = 0 if keep else len(text)
