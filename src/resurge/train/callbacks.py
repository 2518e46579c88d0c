"""Callbacks: the metrics table, and what a running training shows."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from resurge.errors import UserError
from resurge.files import atomic_write_text
from resurge.tasks.report import percent_text
from resurge.train.loop import Callback, Training

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Recorder(Callback):
    """Writes `metrics.csv`, one row per epoch, and the same numbers for TensorBoard under `tb/`.

    Args:
        out: the run directory.
        images_per_step: over all devices.
        resumed_step: the optimizer step of the checkpoint the training goes on from; rows after it are dropped.
    """

    def __init__(self, out: Path, images_per_step: int, resumed_step: int | None = None) -> None:
        self.path = out / "metrics.csv"
        self.folder = out / "tb"
        self.images_per_step = images_per_step
        self.resumed_step = resumed_step
        # those of the epochs before the checkpoint are text
        self.rows: list[Mapping[str, float | str | None]] = []
        if resumed_step is not None:
            self.rows += _rows_up_to(self.path, resumed_step)
        self.row: dict[str, float | None] = {}
        self._earlier = float(self.rows[-1]["seconds"] or 0) if self.rows else 0.0
        self._started = self._epoch_started = time.perf_counter()
        self._epoch_step = 0
        self._trained: float | None = None
        self._board: SummaryWriter | None = None

    def on_start(self, training: Training) -> None:
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder), purge_step=self.resumed_step)
        self._started = time.perf_counter()

    def on_epoch_start(self, training: Training) -> None:
        self._epoch_started = time.perf_counter()
        self._epoch_step = training.position.step
        self._trained = None

    def on_validation_start(self, training: Training) -> None:
        self._trained = time.perf_counter() - self._epoch_started

    def on_epoch_end(self, training: Training) -> None:
        position = training.position
        trained = self._trained or time.perf_counter() - self._epoch_started
        images = (position.step - self._epoch_step) * self.images_per_step
        self.row = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "lr": training.optimizer.param_groups[-1]["lr"],
            **{f"train_{name}": value for name, value in training.train_means.items()},
            **{f"val_{name}": training.evaluation.get(name) for name in ("loss", *training.objective.task.metrics)},
            "images_per_s": images / trained if trained else None,
            "seconds": self._earlier + time.perf_counter() - self._started,
        }
        self.rows.append(self.row)
        atomic_write_text(self.path, _to_csv(self.rows))
        if self._board is not None:
            for name, value in self.row.items():
                if name not in ("epoch", "step") and value is not None:
                    self._board.add_scalar(name, value, position.step)
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def _to_csv(rows: list[Mapping[str, float | str | None]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    return text.getvalue()


def _rows_up_to(path: Path, step: int) -> list[dict[str, str]]:
    """Rows of epochs that the checkpoint at `step` has seen the end of; later ones will be written again."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) <= step and float(row["seconds"]) >= 0]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}. Move it away and resume again.") from None


class Progress(Callback):
    """Epoch, step, loss, images per second and time left: a line that renews itself on a terminal, one line per epoch
    in a file.

    The time left counts the evaluations that are still to come, at the pace so far.
    """

    def __init__(self, recorder: Recorder, stream: TextIO | None = None) -> None:
        self.recorder = recorder
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.interval = 0.25 if self.live else 60.0
        self._shown = 0
        self._start = self._last = time.perf_counter()
        self._first_step = 0

    def on_start(self, training: Training) -> None:
        self._start = self._last = time.perf_counter()
        self._first_step = training.position.step

    def on_batch_end(self, training: Training) -> None:
        now = time.perf_counter()
        if now - self._last < self.interval:
            return
        self._last = now
        position, span = training.position, training.span
        images = (position.step - self._first_step) * self.recorder.images_per_step
        self._show(
            f"epoch {position.epoch + 1}/{span.epochs}  step {position.step}/{span.steps}  "
            f"{_metrics_text(training.running_means(), training.objective.task.train_metrics)}  "
            f"{images / (now - self._start):.0f} images/s  left {self._left(training)}",
            keep=not self.live,
        )

    def on_validation_start(self, training: Training) -> None:
        if self.live:
            self._show("evaluating ...", keep=False)

    def on_epoch_end(self, training: Training) -> None:
        row, objective = self.recorder.row, training.objective
        epoch = f"epoch {row['epoch']}/{training.span.epochs}"
        parts = [f"{epoch}  {_metrics_text(row, objective.task.train_metrics, 'train_')}"]
        if row[f"val_{objective.task.metrics[0]}"] is not None:
            parts.append(_metrics_text(row, objective.task.metrics, "val_", "val "))
        if row["images_per_s"]:
            parts.append(f"{row['images_per_s']:.0f} images/s")
        parts.append(f"{clock(row['seconds'] or 0)}, left {self._left(training)}")
        self._show("  ".join(parts), keep=True)

    def _left(self, training: Training) -> str:
        step = training.position.step
        done = step - self._first_step
        pace = (time.perf_counter() - self._start) / done if done else 0.0
        return clock(pace * (training.span.steps - step))

    def _show(self, text: str, keep: bool) -> None:
        if not self.live:
            print(text, file=self.stream, flush=True)
            return
        width = shutil.get_terminal_size().columns
        padding = " " * max(0, self._shown - len(text))
        self.stream.write("\r" + (text + padding if keep else (text + padding)[: width - 1]) + ("\n" if keep else ""))
        self.stream.flush()
        self._shown = 0 if keep else len(text)


def clock(seconds: float) -> str:
    """Seconds as 0:01:30."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _metrics_text(
    values: Mapping[str, float | None], metrics: tuple[str, ...], prefix: str = "", before: str = ""
) -> str:
    """ "loss 0.1234  top-1 97.22 %" of the values under these names; missing ones are left out."""
    loss = values.get(f"{prefix}loss")
    texts = [] if loss is None else [f"{before}loss {loss:.4f}"]
    texts += [percent_text({name: values.get(prefix + name)}, before) for name in metrics]
    return "  ".join(text for text in texts if text)
