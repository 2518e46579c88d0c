"""Callbacks that keep what a training has reached: checkpoints, the metrics table, the stop signals."""

from __future__ import annotations

import contextlib
import csv
import io
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch

from resurge.errors import TrainingDiverged, TrainingInterrupted, UserError
from resurge.files import atomic_write_text
from resurge.processes import is_child
from resurge.train.checkpoints import first_nonfinite, link_or_copy
from resurge.train.module import Training


class StopSignal:
    """Remembers Ctrl-C and SIGTERM until the training reaches a whole step; a second one stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __call__(self, number: int, frame: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Handle the signals inside the block; only the main thread may, elsewhere nothing is handled."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGTERM,) if is_child() else (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Recorder(L.Callback):
    """Writes `metrics.csv`, one row an epoch, and the same numbers for TensorBoard under `tb/`."""

    def __init__(self, out: Path, images_per_step: int, resumed_step: int | None = None) -> None:
        self.path = out / "metrics.csv"
        self.folder = out / "tb"
        self.images_per_step = images_per_step
        self.resumed_step = resumed_step
        self.rows: list[dict[str, Any]] = _rows_up_to(self.path, resumed_step) if resumed_step is not None else []
        self.row: dict[str, Any] = {}
        self._earlier = float(self.rows[-1]["seconds"]) if self.rows else 0.0
        self._started = self._epoch_started = time.perf_counter()
        self._epoch_step = resumed_step or 0
        self._trained = 0.0
        self._board: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.folder), purge_step=self.resumed_step)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        self._epoch_started = time.perf_counter()
        self._epoch_step = pl_module.position.step
        self._trained = 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trained = time.perf_counter() - self._epoch_started

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        train, evaluation = pl_module.take_train_means(), pl_module.evaluation
        if not trainer.is_global_zero:
            return
        position = pl_module.position
        self._trained = self._trained or time.perf_counter() - self._epoch_started
        images = (position.step - self._epoch_step) * self.images_per_step
        self.row = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            **{f"train_{name}": value for name, value in train.items()},
            **{f"val_{name}": evaluation.get(name) for name in ("loss", *pl_module.objective.figures)},
            "images_per_s": images / self._trained if self._trained else None,
            "seconds": self._earlier + time.perf_counter() - self._started,
        }
        self.rows.append(self.row)
        atomic_write_text(self.path, _to_csv(self.rows))
        if self._board is not None:
            for name, value in self.row.items():
                if name not in ("epoch", "step") and value is not None:
                    self._board.add_scalar(name, value, position.step)
            self._board.flush()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def _to_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    return text.getvalue()


def _rows_up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """Rows of epochs that the checkpoint at `step` has seen the end of; later ones will be written again."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) <= step and float(row["seconds"]) >= 0]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}. Move it away and resume again.") from None


class Keeper(L.Callback):
    """Saves `last.ckpt` every so many steps and at the end of an epoch, `best.ckpt` when the first figure improves.

    Also turns a stop signal into a checkpoint and :class:`TrainingInterrupted`, and stops early when asked to.
    """

    def __init__(self, folder: Path, every: int, patience: int, signals: StopSignal) -> None:
        self.last = folder / "last.ckpt"
        self.best = folder / "best.ckpt"
        self.every = every
        self.patience = patience
        self.signals = signals

    def save(self, trainer: L.Trainer, module: Training) -> None:
        """Write `last.ckpt`.

        Raises:
            TrainingDiverged: a weight is not finite any more; the file on disk stays.
            UserError: the file cannot be written; the file on disk stays.
        """
        bad = first_nonfinite(module.net.state_dict())
        if bad is not None:
            raise TrainingDiverged(
                f"after step {module.position.step} the weight {bad} is infinite or not a number. The last good "
                "checkpoint, if there was one, is kept. Try a lower lr, a longer warmup, or clip_norm=1.",
                bad.rpartition(".")[0],
            )
        trainer.save_checkpoint(self.last)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            # Lightning has put its own handler in front, which stops between two batches of an accumulated step
            signal.signal(signal.SIGTERM, self.signals)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Training)
        pl_module.advance()
        position = pl_module.position
        if not pl_module.at_step or position.batch == pl_module.span.batches or position.step >= pl_module.span.steps:
            return  # gradients are waiting for more batches, or the end of the epoch saves in a moment
        stop = self._stop_signal(trainer)
        if stop or (self.every and position.step % self.every == 0):
            self.save(trainer, pl_module)
        if stop:
            self._interrupt(pl_module, stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        module = pl_module
        improved = False
        if module.evaluation:
            # equal scores are common on small sets; the loss decides then, where there is one
            first = module.objective.figures[0]
            score, before = (
                (found.get(first, -1.0), -found.get("loss", 0.0)) for found in (module.evaluation, module.best)
            )
            improved = not module.best or score > before
            module.since_best = 0 if improved else module.since_best + 1
            if improved:
                module.best = dict(module.evaluation, epoch=module.position.epoch + 1)
        module.position.epoch += 1
        module.position.batch = 0
        self.save(trainer, module)
        if improved and trainer.is_global_zero:
            link_or_copy(self.last, self.best)
        if self.patience and module.since_best >= self.patience:
            trainer.should_stop = True
        stop = self._stop_signal(trainer)
        if stop and module.position.step < module.span.steps:
            self._interrupt(module, stop)

    def _stop_signal(self, trainer: L.Trainer) -> int:
        """The stop signal that a process of the training has received, the same in all of them; 0 for none."""
        received = self.signals.received or 0
        if trainer.world_size == 1:
            return received
        return int(
            trainer.strategy.reduce(torch.tensor(received, device=trainer.strategy.root_device), reduce_op="max")
        )

    def _interrupt(self, module: Training, number: int) -> None:
        position = module.position
        raise TrainingInterrupted(
            f"stopped after step {position.step} of {module.span.steps}; checkpoint written to {self.last}. "
            f"Go on with: resurge train --resume {self.last.parent.parent}",
            number,
        )
