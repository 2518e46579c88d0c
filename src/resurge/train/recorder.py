"""The metrics table of a training, and what a running training shows."""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from resurge.errors import UserError
from resurge.files import atomic_write_text
from resurge.quantities import per_second
from resurge.runs import EVENTS
from resurge.tasks.report import percent_text
from resurge.untrusted import read_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from resurge.train.loop import Training


class Recorder:
    """Writes `metrics.csv`, one row per epoch, and the same numbers for TensorBoard under `tb/`; shows how far it is.

    On a terminal by a line that renews itself, in a file by a line per epoch.

    Called in the first process of a training only. The time left counts the evaluations that are still to come.

    Args:
        out: the run directory.
        images_per_step: over all devices.
        resumed_step: the optimizer step of the checkpoint the training goes on from; rows after it are dropped.
        stream: where progress is shown; None for nowhere.
    """

    def __init__(self, out: Path, images_per_step: int, resumed_step: int | None, stream: TextIO | None) -> None:
        self.out, self.images_per_step, self.resumed_step, self.stream = out, images_per_step, resumed_step, stream
        self.live = stream is not None and stream.isatty()
        # those of the epochs before the checkpoint are text
        self.rows: list[Mapping[str, float | str | None]] = []
        if resumed_step is not None:
            self.rows += _rows_up_to(self._table, resumed_step)
        self._earlier = float(self.rows[-1]["seconds"] or 0) if self.rows else 0.0
        self._started = self._epoch_started = self._last_shown = time.perf_counter()
        self._first_step = self._epoch_step = self._width = 0
        self._trained: float | None = None
        self._board: SummaryWriter | None = None

    @property
    def _table(self) -> Path:
        return self.out / "metrics.csv"

    def on_start(self, training: Training) -> None:
        """Before the first batch."""
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.out / "tb"), purge_step=self.resumed_step, filename_suffix=EVENTS)
        self._started = self._last_shown = time.perf_counter()
        self._first_step = training.position.step

    def on_epoch_start(self, training: Training) -> None:
        self._epoch_started = time.perf_counter()
        self._epoch_step = training.position.step
        self._trained = None

    def on_batch_end(self, training: Training) -> None:
        now = time.perf_counter()
        if self.stream is None or now - self._last_shown < (0.25 if self.live else 60.0):
            return
        self._last_shown = now
        position, span = training.position, training.job.span
        images = (position.step - self._first_step) * self.images_per_step
        self._show(
            f"epoch {position.epoch + 1}/{span.epochs}  step {position.step}/{span.steps}  "
            f"{_metrics_text(training.running_means(), training.objective.task.train_metrics)}  "
            f"{per_second(images / (now - self._started))} images/s  left {self._left(training)}",
            keep=not self.live,
        )

    def on_validation_start(self, training: Training) -> None:
        self._trained = time.perf_counter() - self._epoch_started
        if self.live:
            self._show("evaluating ...", keep=False)

    def on_epoch_end(self, training: Training) -> None:
        """After the validation, before the checkpoint."""
        position, objective = training.position, training.objective
        trained = self._trained or time.perf_counter() - self._epoch_started
        images = (position.step - self._epoch_step) * self.images_per_step
        row: dict[str, float | None] = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "lr": training.optimizer.param_groups[-1]["lr"],
            **{f"train_{name}": value for name, value in training.train_means.items()},
            **{f"val_{name}": training.evaluation.get(name) for name in ("loss", *objective.metrics)},
            "images_per_s": images / trained if trained else None,
            "seconds": self._earlier + time.perf_counter() - self._started,
        }
        self.rows.append(row)
        atomic_write_text(self._table, _to_csv(self.rows), mark=None)
        if self._board is not None:
            for name, value in row.items():
                if name not in ("epoch", "step") and value is not None:
                    self._board.add_scalar(name, value, position.step)
            self._board.flush()
        epoch = f"epoch {row['epoch']}/{training.job.span.epochs}"
        parts = [f"{epoch}  {_metrics_text(row, objective.task.train_metrics, 'train_')}"]
        if row[f"val_{objective.metrics[0]}"] is not None:
            parts.append(_metrics_text(row, objective.metrics, "val_", "val "))
        if row["images_per_s"]:
            parts.append(f"{per_second(row['images_per_s'])} images/s")
        parts.append(f"{clock(row['seconds'] or 0)}, left {self._left(training)}")
        self._show("  ".join(parts), keep=True)

    def close(self) -> None:
        """At the end, also after an error."""
        if self._board is not None:
            self._board.close()

    def _left(self, training: Training) -> str:
        step = training.position.step
        done = step - self._first_step
        pace = (time.perf_counter() - self._started) / done if done else 0.0
        return clock(pace * (training.job.span.steps - step))

    def _show(self, text: str, keep: bool) -> None:
        if self.stream is None:
            return
        if self.live:
            padded = "\r" + text + " " * max(0, self._width - len(text))
            self._width = 0 if keep else len(text)
            text = padded if keep else padded[: shutil.get_terminal_size().columns]
        print(text, file=self.stream, end="\n" if keep else "", flush=True)


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
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
        return [row for row in rows if int(row["step"]) <= step and float(row["seconds"]) >= 0]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}. Move it away and resume again.") from None


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
