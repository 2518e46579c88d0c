"""The training loop: epochs of batches, optimizer steps, validation, checkpoints.

Everything random in a step is seeded from (seed, epoch, batch, rank) right before it, and the learning rate is a pure
function of the step. A checkpoint therefore holds no random state and no scheduler; weights, optimizer, moving average
and the position are enough to go on as if nothing had happened.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn

from resurge.data.seeding import mix
from resurge.data.splits import DataBundle
from resurge.errors import TrainingDiverged, TrainingInterrupted
from resurge.files import Json
from resurge.processes import StopSignal
from resurge.recipe import Recipe
from resurge.runs import BEST, LAST
from resurge.tasks.evaluation import Batch
from resurge.tasks.objective import Objective, Sums
from resurge.train.checkpoint import CHECKPOINT_FORMAT, Checkpoint, link_or_copy, write_checkpoint
from resurge.train.diagnose import explain_divergence, first_nonfinite
from resurge.train.loaders import Loaders
from resurge.train.optim import Ema, Length, build_optimizer, lr_factor
from resurge.train.recorder import Recorder


@dataclass
class Position:
    """What comes next: batch `batch` of epoch `epoch`, after `step` optimizer steps. All count from 0."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Job:
    """Everything of a training that is known before it starts.

    frozen: the parts of the network that are not trained. about: the network as `model.json` describes it.
    computed_by: what else the last bits depend on.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    bundle: DataBundle[Any]
    objective: Objective
    net: nn.Module
    frozen: list[nn.Module]
    span: Length
    about: Json
    computed_by: dict[str, str]


class LossModule(nn.Module):
    """A network with its losses as one forward pass, which is what DistributedDataParallel and autocast wrap."""

    def __init__(self, net: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.net, self.objective = net, objective

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Sums]:
        return self.objective.losses(self.net, batch)


class Training:
    """A network with its optimizer, its moving average and its position in the training.

    Args:
        job: the network, which is moved to the device, and how to train it.
        fabric: runs the devices, their precision and their processes; launched.
        loaders: the images.
        recorder: what is called in the first process.
        signals: the stop signals received.

    Attributes:
        position: what comes next.
        train_means: means over the images of the latest epoch, over all devices: `loss`, its terms, training metrics.
        evaluation: metrics and `count` of the latest epoch's validation; empty when there was none.
        best: the same of the best one, and its `epoch`.
    """

    def __init__(self, job: Job, fabric: Fabric, loaders: Loaders, recorder: Recorder, signals: StopSignal) -> None:
        self.job, self.net, self.objective, self.recipe = job, job.net, job.objective, job.recipe
        self.fabric, self.loaders, self.signals = fabric, loaders, signals
        self.recorder = recorder if fabric.is_global_zero else None
        self.position = Position()
        self.train_means: dict[str, float] = {}
        self.evaluation: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.since_best = 0
        # sums over the images of an epoch, by name; double, so that the order of summation does not show
        self.totals: dict[str, Tensor] = {}
        optimizer = build_optimizer(job.net, job.recipe)
        self.module, self.optimizer = fabric.setup(LossModule(job.net, job.objective), optimizer)
        self.ema = Ema(job.net, job.recipe.optimization.ema) if job.recipe.optimization.ema else None
        self.kept = job.net if self.ema is None else self.ema.model  # what is validated and kept
        if self.ema is not None and job.recipe.machine.compile:
            for part in job.objective.parts_to_compile(self.kept):
                part.compile()

    # ------------------------------------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Train until the last step, or until early stopping.

        Raises:
            TrainingInterrupted: a stop signal arrived; a checkpoint was written.
            TrainingDiverged: the loss or a weight is not finite any more.
            UserError: a checkpoint cannot be written.
        """
        if self.recorder is not None:
            self.recorder.on_start(self)
        patience = self.recipe.optimization.early_stop
        while not self._is_done() and not (patience and self.since_best >= patience):
            self._train_epoch()
            due = (self.position.epoch + 1) % self.recipe.machine.eval_every == 0 or self._is_done()
            self.evaluation = self._validate() if due else {}
            self._end_epoch()

    def _train_epoch(self) -> None:
        if self.recorder is not None:
            self.recorder.on_epoch_start(self)
        self.net.train()
        for part in self.job.frozen:
            part.eval()
        every = self.recipe.machine.checkpoint_every
        for batch in self.loaders.epoch(self.position.epoch, self.position.batch):
            whole = self._train_batch(self.fabric.to_device(batch))
            if self.recorder is not None:
                self.recorder.on_batch_end(self)
            if self.position.batch == self.job.span.batches or self._is_done():
                break  # what follows the epoch saves a checkpoint too
            if whole:
                stop = self._stop_signal()
                if stop or (every and self.position.step % every == 0):
                    self._save()
                if stop:
                    self._interrupt(stop)

    def _train_batch(self, batch: Batch) -> bool:
        """Learn from a batch; whether it completed an optimizer step. An epoch's last step may have fewer batches."""
        setting, position = self.recipe.optimization, self.position
        rate = self.recipe.peak_lr() * lr_factor(setting, self.job.span, position.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        whole = (position.batch + 1) % setting.accumulate == 0 or position.batch + 1 == self.job.span.batches
        with self.fabric.no_backward_sync(self.module, enabled=not whole):
            self.fabric.backward(self._loss(batch) / setting.accumulate)
        position.batch += 1
        if whole:
            if norm := setting.clip_norm:
                self.fabric.clip_gradients(self.module, self.optimizer, max_norm=norm, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad()
            position.step += 1
            if self.ema is not None:
                self.ema.update(self.net)
        return whole

    def _loss(self, batch: Batch) -> Tensor:
        """The mean loss of a batch, a scalar.

        Raises:
            TrainingDiverged: it is not finite.
        """
        position = self.position
        torch.manual_seed(mix(self.recipe.seed, position.epoch, position.batch, self.fabric.global_rank))
        batch = self.objective.augment_batch(self._laid_out(batch))
        state = torch.get_rng_state()
        terms, sums = self.module(batch)
        loss = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        if not torch.isfinite(loss):
            self._diverge(batch, terms, state)
        count = len(batch[0])
        weighted = {name: value.detach() * count for name, value in terms.items() if len(terms) > 1}
        counted = {"loss": loss.detach() * count, **sums, **weighted, "count": loss.new_tensor(count)}
        for name, value in counted.items():
            value = value.detach().double()
            self.totals[name] = self.totals[name] + value if name in self.totals else value
        return loss

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """The metrics of the moving average, or of the network where there is none."""
        if self.recorder is not None:
            self.recorder.on_validation_start(self)
        if self.fabric.world_size > 1:
            for buffer in self.kept.buffers():  # each process has running statistics of its own
                distributed.broadcast(buffer, 0)
        self.kept.eval()
        self.objective.scores.reset(self.fabric.device)
        for batch in self.loaders.val:
            with self.fabric.autocast():
                batch = self._laid_out(self.fabric.to_device(batch))
                self.objective.scores.update(self.kept, batch, self.loaders.val_split)
        return self.objective.validated(self._reduced, _gather)

    def _end_epoch(self) -> None:
        position = self.position
        self.train_means = _means({name: float(self._reduced(value)) for name, value in self.totals.items()})
        self.totals = {}
        if self.recorder is not None:
            self.recorder.on_epoch_end(self)
        improved = bool(self.evaluation) and self._improved()
        if self.evaluation:
            self.since_best = 0 if improved else self.since_best + 1
        if improved:
            self.best = dict(self.evaluation, epoch=position.epoch + 1)
        position.epoch, position.batch = position.epoch + 1, 0
        self._save()
        if improved and self.fabric.is_global_zero:
            link_or_copy(self.job.folder / LAST, self.job.folder / BEST)
        stop = self._stop_signal()
        if stop and not self._is_done():
            self._interrupt(stop)

    # -------------------------------------------------------------------------------------------- its decisions

    def _is_done(self) -> bool:
        return self.position.step >= self.job.span.steps

    def _improved(self) -> bool:
        """Whether the latest validation is the best. Equal metrics are common on small sets; then the loss decides."""
        first = self.objective.metrics[0]
        score, best = ((found.get(first, -1.0), -found.get("loss", 0.0)) for found in (self.evaluation, self.best))
        return not self.best or score > best

    def _stop_signal(self) -> int:
        """The stop signal that a process of the training has received, the same in all of them; 0 for none."""
        received = self.signals.received or 0
        if self.fabric.world_size > 1:
            received = int(self._reduced(torch.tensor(received, device=self.fabric.device), "max"))
        return received

    def _interrupt(self, number: int) -> None:
        raise TrainingInterrupted(
            f"stopped after step {self.position.step} of {self.job.span.steps}; checkpoint written to "
            f"{self.job.folder / LAST}. Go on with: resurge train --resume {self.job.folder}",
            number,
        )

    def _diverge(self, batch: Batch, terms: dict[str, Tensor], state: Tensor) -> None:
        for part in self.objective.parts_to_compile(self.net):
            part._compiled_call_impl = None  # a compiled call would not see the hooks

        def again() -> None:
            torch.set_rng_state(state)
            with self.fabric.autocast():
                self.objective.losses(self.net, batch)

        bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
        which = f" (its term {bad[0]})" if bad and len(terms) > 1 else ""
        sentence, module = explain_divergence(self.net, batch[0], again)
        raise TrainingDiverged(
            f"the loss{which} became infinite or not a number in epoch {self.position.epoch + 1}, step "
            f"{self.position.step + 1}. {sentence}. The last good checkpoint, if there was one, is kept. Try a lower "
            "lr, a longer warmup, or clip_norm=1"
            + (", or precision=bf16." if self.recipe.machine.precision == "fp16" else "."),
            module,
        )

    # ---------------------------------------------------------------------------------------- tensors and files

    def running_means(self) -> dict[str, float]:
        """`train_means` of the epoch so far, on this device."""
        return _means({name: float(value) for name, value in self.totals.items()})

    def _laid_out(self, batch: Batch) -> Batch:
        """The batch with its images in the memory layout of the network."""
        if not self.recipe.machine.channels_last:
            return batch
        images = batch[0].contiguous(memory_format=torch.channels_last)
        return batch._replace(images=images) if hasattr(batch, "_replace") else (images, *batch[1:])

    def _reduced(self, value: Tensor, operation: str = "sum") -> Tensor:
        """A tensor over all processes."""
        result = self.fabric.all_reduce(value.clone(), reduce_op=operation)
        assert isinstance(result, Tensor)
        return result

    def _save(self) -> None:
        """Write `last.ckpt`.

        Raises:
            TrainingDiverged: a weight is not finite any more; the file on disk stays.
            UserError: the file cannot be written; the file on disk stays.
        """
        bad = first_nonfinite(self.net.state_dict().items())
        if bad is not None:
            raise TrainingDiverged(
                f"after step {self.position.step} the weight {bad} is infinite or not a number. The last good "
                "checkpoint, if there was one, is kept. Try a lower lr, a longer warmup, or clip_norm=1.",
                bad.rpartition(".")[0],
            )
        content: Checkpoint = {
            "resurge": {
                "format": CHECKPOINT_FORMAT,
                "position": asdict(self.position),
                "best": dict(self.best),
                "since_best": self.since_best,
                "totals": {name: self._reduced(value, "mean").cpu() for name, value in self.totals.items()},
                "ema": self.ema.state_dict() if self.ema is not None else None,
                "model": self.job.about,
                "computed_by": self.job.computed_by,
            },
            "state_dict": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
        }
        if self.fabric.is_global_zero:
            write_checkpoint(content, self.job.folder / LAST)
        self.fabric.barrier()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take the place of the training that wrote the checkpoint."""
        state = checkpoint["resurge"]
        self.net.load_state_dict(checkpoint["state_dict"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.fabric.strategy.precision.load_state_dict(checkpoint["scaler"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
        self.position = Position(**state["position"])
        self.best, self.since_best = dict(state["best"]), state["since_best"]
        self.totals = {name: value.to(self.fabric.device) for name, value in state["totals"].items()}


def _means(sums: dict[str, float]) -> dict[str, float]:
    count = max(1.0, sums.get("count", 0.0))
    return {name: value / count for name, value in sums.items() if name != "count"}


def _gather(value: object) -> list[object]:
    """The object of every process, in all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered: list[object] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered
