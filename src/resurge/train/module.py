"""The training step and the evaluation step of any task, as Lightning runs them.

Everything random in a step is seeded from (seed, epoch, batch, rank) right before it, and the learning rate is a pure
function of the step. A checkpoint therefore holds no random state and no scheduler; weights, optimizer, moving average
and the position are enough to go on as if nothing had happened.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, distributed, nn

from resurge.data.seeding import mix
from resurge.errors import TrainingDiverged
from resurge.recipe import Recipe
from resurge.tasks.objective import Objective
from resurge.train.diagnose import explain_divergence
from resurge.train.ema import Ema
from resurge.train.groups import build_optimizer, freeze
from resurge.train.schedule import Length, lr_factor

CHECKPOINT_FORMAT = 2  # 1 had the sums of the epoch in one tensor


@dataclass
class Position:
    """What comes next: batch `batch` of epoch `epoch`, after `step` optimizer steps. All count from 0."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


class Training(L.LightningModule):
    """A network with its recipe, what its task asks for, its moving average and its position in the training.

    Args:
        net: what is trained.
        objective: the task's losses and scores.
        recipe: how to train it.
        span: how long.

    Attributes:
        position: what comes next; moved by the training step.
        evaluation: the objective's figures and `count` of the latest evaluation; empty before the first.
        best: the same of the best one, and its `epoch`.
        frozen: the parts that are not trained.
    """

    def __init__(self, net: nn.Module, objective: Objective, recipe: Recipe, span: Length) -> None:
        super().__init__()
        self.net = net
        self.objective = objective
        self.recipe = recipe
        self.span = span
        self.position = Position()
        self.evaluation: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.since_best = 0
        self.frozen = freeze(net, recipe.optimization.freeze)
        self.ema = Ema(net, recipe.optimization.ema) if recipe.optimization.ema else None
        # sums over the images of an epoch, by name; double, so that no order of sums shows
        self.totals: dict[str, Tensor] = {}
        self._averaging: Any = None
        self._steps_before = 0
        self._resumed: dict[str, Any] | None = None

    # ---------------------------------------------------------------------------------------------- set-up

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.net, self.recipe)

    def on_fit_start(self) -> None:
        if self.ema is not None:
            self.ema.reset(self.net)  # the weights are on their device now
            if self._resumed is not None:
                self.ema.load_state_dict(self._resumed["ema"])
        if self._resumed is not None:
            self.totals = {name: value.to(self.device) for name, value in self._resumed["totals"].items()}
        self._resumed = None

    def on_train_epoch_start(self) -> None:
        for part in self.frozen:
            part.eval()
        self.trainer.datamodule.seek(self.position)  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------------------------------ steps

    def learning_rate(self) -> float:
        """The rate of the step that comes next, of parameters without layer-wise scaling."""
        return self.recipe.peak_lr() * lr_factor(self.recipe.optimization, self.span, self.position.step)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        rate = self.learning_rate()
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["lr_scale"]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        seed = mix(self.recipe.seed, self.position.epoch, self.position.batch, self.global_rank)
        torch.manual_seed(seed)
        batch = self.objective.augment_batch(self._laid_out(batch))
        state = torch.get_rng_state()
        terms, sums = self.objective.losses(self.net, batch)
        loss = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        if not torch.isfinite(loss):
            self._diverge(batch, terms, state)
        count = len(batch[0])
        with torch.no_grad():
            self._add("loss", loss * count)
            for name, value in sums.items():
                self._add(name, value)
            for name, value in terms.items() if len(terms) > 1 else ():
                self._add(name, value * count)
            self._add("count", loss.new_tensor(count))
        return loss

    def _laid_out(self, batch: Any) -> Any:
        """The batch with its images in the memory layout of the network."""
        if not self.recipe.machine.channels_last:
            return batch
        images = batch[0].contiguous(memory_format=torch.channels_last)
        return batch._replace(images=images) if hasattr(batch, "_replace") else (images, *batch[1:])

    def _add(self, name: str, value: Tensor) -> None:
        value = value.detach().double()
        self.totals[name] = self.totals[name] + value if name in self.totals else value

    def _diverge(self, batch: Any, terms: dict[str, Tensor], state: Tensor) -> None:
        for part in self.objective.parts_to_compile(self.net):
            part._compiled_call_impl = None  # a compiled call would not see the hooks

        def again() -> None:
            torch.set_rng_state(state)
            with self.trainer.precision_plugin.forward_context():
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

    def advance(self) -> None:
        """Count the batch just trained on; called before anything else happens at its end."""
        self.position.batch += 1
        if self.trainer.global_step != self._steps_before:  # this batch completed an optimizer step
            self._steps_before = self.trainer.global_step
            self.position.step += 1
            if self.ema is not None:
                self.ema.update(self.net)
            if self.position.step >= self.span.steps:
                self.trainer.should_stop = True

    @property
    def at_step(self) -> bool:
        """Whether no gradients are waiting for more batches: the only moments at which a checkpoint is whole."""
        return (
            self.position.batch % self.recipe.optimization.accumulate == 0 or self.position.batch == self.span.batches
        )

    # ------------------------------------------------------------------------------------------- evaluation

    def on_validation_start(self) -> None:
        split = self.trainer.datamodule.validation_split  # type: ignore[attr-defined]
        self.objective.start_validation(split, self.device)
        if self.ema is not None:
            self._averaging = self.ema.applied(self.net)
            self._averaging.__enter__()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.objective.validate(self.net, self._laid_out(batch))

    def on_validation_end(self) -> None:
        if self._averaging is not None:
            self._averaging.__exit__(None, None, None)
            self._averaging = None
        due = self.trainer.datamodule.evaluation_due()  # type: ignore[attr-defined]
        self.evaluation = self.objective.validated(self._sum, _gather) if due else {}

    def _sum(self, value: Tensor) -> Tensor:
        total: Tensor = self.trainer.strategy.reduce(value, reduce_op="sum")
        return total

    # ---------------------------------------------------------------------------------------------- epochs

    def train_means(self) -> dict[str, float]:
        """Mean over the images of the epoch so far, on this device: `loss`, the objective's figures and loss terms."""
        return _means({name: float(value) for name, value in self.totals.items()})

    def take_train_means(self) -> dict[str, float]:
        """The same over all devices; starts anew."""
        sums = {name: float(self._sum(value.clone())) for name, value in self.totals.items()}
        self.totals = {}
        return _means(sums)

    # ------------------------------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning's own loop counters are left out: they describe the process, and `position` the training.
        checkpoint.pop("loops", None)
        checkpoint["epoch"], checkpoint["global_step"] = self.position.epoch, self.position.step
        checkpoint["resurge"] = {
            "format": CHECKPOINT_FORMAT,
            "position": asdict(self.position),
            "best": dict(self.best),
            "since_best": self.since_best,
            # a mean over devices, so that each may go on from it
            "totals": {
                name: self.trainer.strategy.reduce(value.clone(), reduce_op="mean").cpu()
                for name, value in self.totals.items()
            },
            "ema": self.ema.state_dict() if self.ema is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["resurge"]
        self.position = Position(**state["position"])
        self.best = dict(state["best"])
        self.since_best = state["since_best"]
        self._resumed = state


def _means(sums: dict[str, float]) -> dict[str, float]:
    count = max(1.0, sums.get("count", 0.0))
    return {name: value / count for name, value in sums.items() if name != "count"}


def _gather(value: Any) -> list[Any]:
    """The object of every process, in all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered
