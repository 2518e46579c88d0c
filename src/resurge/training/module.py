"""The training step and the evaluation step of a classifier, as Lightning runs them.

Shapes: N images a batch, C channels, K classes.

Everything random in a step is seeded from (seed, epoch, batch, rank) right before it, and the learning rate is a pure
function of the step. A checkpoint therefore holds no random state and no scheduler; weights, optimizer, moving average
and the position are enough to go on as if nothing had happened.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from resurge.data.seeding import mix
from resurge.training.diagnose import explain_divergence
from resurge.training.ema import Ema
from resurge.training.groups import build_optimizer, freeze
from resurge.training.recipe import Recipe
from resurge.training.schedule import Length, lr_factor
from resurge.training.stops import TrainingDiverged


@dataclass
class Position:
    """What comes next: batch `batch` of epoch `epoch`, after `step` optimizer steps. All count from 0."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


class ClassificationTraining(L.LightningModule):
    """A classifier with its recipe, its moving average and its position in the training.

    Args:
        net: (N, C, H, W) -> (N, K).
        recipe: how to train it.
        span: how long.
        class_weights: (K,), or None.

    Attributes:
        position: what comes next; moved by the training step.
        evaluation: `loss`, `top1`, `top5` and `count` of the latest evaluation; empty before the first.
    """

    totals: Tensor
    eval_totals: Tensor
    class_weights: Tensor | None

    def __init__(self, net: nn.Module, recipe: Recipe, span: Length, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.net = net
        self.recipe = recipe
        self.span = span
        self.position = Position()
        self.evaluation: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.since_best = 0
        self.frozen = freeze(net, recipe.optimization.freeze)
        self.ema = Ema(net, recipe.optimization.ema) if recipe.optimization.ema else None
        self._averaging: Any = None
        self._steps_before = 0
        self._resumed: dict[str, Any] | None = None
        classes = net.get_submodule("head.fc").out_features
        self._mix_batch = _batch_mixing(recipe, int(classes))  # type: ignore[arg-type]
        # sums of loss and of right answers, and the images they are over; double, so that no order of sums shows
        self.register_buffer("totals", torch.zeros(3, dtype=torch.float64), persistent=False)
        self.register_buffer("eval_totals", torch.zeros(4, dtype=torch.float64), persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)

    # ---------------------------------------------------------------------------------------------- set-up

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.net, self.recipe)

    def on_fit_start(self) -> None:
        if self.ema is not None:
            self.ema.reset(self.net)  # the weights are on their device now
            if self._resumed is not None:
                self.ema.load_state_dict(self._resumed["ema"])
        if self._resumed is not None:
            self.totals.copy_(self._resumed["totals"])
        self._resumed = None

    def on_train_epoch_start(self) -> None:
        for part in self.frozen:
            part.eval()
        self.trainer.datamodule.seek(self.position)  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------------------------------ steps

    def forward(self, images: Tensor) -> Tensor:
        if self.recipe.machine.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.net(images)
        return logits

    def learning_rate(self) -> float:
        """The rate of the step that comes next, of parameters without layer-wise scaling."""
        return self.recipe.peak_lr() * lr_factor(self.recipe.optimization, self.span, self.position.step)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        rate = self.learning_rate()
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["lr_scale"]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch[0], batch[1]
        seed = mix(self.recipe.seed, self.position.epoch, self.position.batch, self.global_rank)
        torch.manual_seed(seed)
        targets = labels
        if self._mix_batch is not None and len(images) > 1:
            images, targets = self._mix_batch(images, labels)
        state = torch.get_rng_state()
        logits = self(images)
        loss = F.cross_entropy(
            logits.float(),
            targets,
            weight=self.class_weights,
            label_smoothing=self.recipe.regularization.label_smoothing,
        )
        if not torch.isfinite(loss):
            self._diverge(images, state)
        with torch.no_grad():
            hard = targets.argmax(1) if targets.ndim > 1 else targets
            right = (logits.argmax(1) == hard).sum()
            count = len(labels)
            self.totals += torch.stack([loss.double() * count, right.double(), right.new_tensor(count).double()])
        return loss

    def _diverge(self, images: Tensor, state: Tensor) -> None:
        def again() -> None:
            torch.set_rng_state(state)
            with self.trainer.precision_plugin.forward_context():
                self.net.forward(images)  # not the compiled call, which would not see the hooks

        sentence, module = explain_divergence(self.net, images, again)
        raise TrainingDiverged(
            f"the loss became infinite or not a number in epoch {self.position.epoch + 1}, step "
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
        self.eval_totals.zero_()
        if self.ema is not None:
            self._averaging = self.ema.applied(self.net)
            self._averaging.__enter__()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch[0], batch[1]
        logits = self(images).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        top = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
        count = torch.tensor(len(labels), device=logits.device)
        self.eval_totals += torch.stack(
            [loss.double(), top[:, 0].sum().double(), top.any(1).sum().double(), count.double()]
        )

    def on_validation_end(self) -> None:
        if self._averaging is not None:
            self._averaging.__exit__(None, None, None)
            self._averaging = None
        loss, top1, top5, count = self.trainer.strategy.reduce(self.eval_totals.clone(), reduce_op="sum").tolist()
        if count:
            self.evaluation = {"loss": loss / count, "top1": top1 / count, "top5": top5 / count, "count": count}
        else:
            self.evaluation = {}

    # ---------------------------------------------------------------------------------------------- epochs

    def take_train_totals(self) -> dict[str, float]:
        """Mean `loss` and `top1` of the training batches since the last call, over all devices."""
        loss, right, count = self.trainer.strategy.reduce(self.totals.clone(), reduce_op="sum").tolist()
        self.totals.zero_()
        return {"loss": loss / max(1.0, count), "top1": right / max(1.0, count)}

    # ------------------------------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning's own loop counters are left out: they describe the process, and `position` the training.
        checkpoint.pop("loops", None)
        checkpoint["epoch"], checkpoint["global_step"] = self.position.epoch, self.position.step
        checkpoint["resurge"] = {
            "format": 1,
            "position": asdict(self.position),
            "best": dict(self.best),
            "since_best": self.since_best,
            # a mean over devices, so that each may go on from it
            "totals": self.trainer.strategy.reduce(self.totals.clone(), reduce_op="mean").cpu(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["resurge"]
        self.position = Position(**state["position"])
        self.best = dict(state["best"])
        self.since_best = state["since_best"]
        self._resumed = state


def _batch_mixing(recipe: Recipe, classes: int) -> Any:
    """Mixup and CutMix of a batch: (images, labels (N,)) -> (images, labels (N, K)); None when both are off."""
    setting = recipe.regularization
    choices: list[nn.Module] = []
    if setting.mixup:
        choices.append(v2.MixUp(alpha=setting.mixup, num_classes=classes))
    if setting.cutmix:
        choices.append(v2.CutMix(alpha=setting.cutmix, num_classes=classes))
    if not choices:
        return None
    return choices[0] if len(choices) == 1 else v2.RandomChoice(choices)
