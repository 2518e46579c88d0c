"""The main job: a recipe and a folder of images in, a run directory with a trained, evaluated model out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from resurge import processes
from resurge.arch.surgery import convert_norm, set_drop_block, set_drop_path, zero_init_last
from resurge.arch.zoo import get_spec
from resurge.data.bundle import DataBundle, write_split
from resurge.data.seeding import mix
from resurge.data.sources import open_data
from resurge.errors import TrainingInterrupted, UserError
from resurge.files import atomic_write_text
from resurge.recipe import Recipe
from resurge.runs import BEST, LAST, Run, load_run, prepare, read_recipe, require_empty, save_run_model
from resurge.tasks.build import build_task_model
from resurge.tasks.evaluation import write_evaluation
from resurge.tasks.objective import Objective
from resurge.tasks.running import pick_device
from resurge.tasks.table import get_task, pick_head
from resurge.train.checkpoints import AtomicCheckpointIO, link_or_copy, read_checkpoint
from resurge.train.feeding import Feed, pick_workers, readable
from resurge.train.keeper import Keeper, Recorder, StopSignal
from resurge.train.module import CHECKPOINT_FORMAT, Training
from resurge.train.progress import Progress
from resurge.train.schedule import length
from resurge.weights.checkpoint import load_weights

log = logging.getLogger(__name__)
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class _Job:
    """Everything of a training that is known before it starts."""

    recipe: Recipe
    folder: Path
    bundle: DataBundle
    objective: Objective


def train(
    recipe: Recipe | None,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    finished: Callable[[Run, dict[str, Any], DataBundle], None] | None = None,
) -> dict[str, Any]:
    """Train, keep the best weights, evaluate them, and write a run directory.

    Args:
        recipe: what to train on what, and how; None with `resume`, which takes the run's own.
        out: the run directory.
        resume: go on exactly where the training in `out` stopped.
        overwrite: remove what an earlier training left in `out`.
        quiet: show nothing while training.
        finished: called at the end with the run, its evaluation (entries may be added; it is written afterwards) and
            the data, for everything that explains the result.

    Returns the evaluation of the kept weights on the test images, or on the validation images where there are no
    others; see `Scores.compute` of the task. `split` says which, and `scores` are the few that stand for all.

    Raises:
        UserError: the recipe, the data or the folder cannot be used, or the disk is full.
        TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        TrainingDiverged: the loss became infinite or not a number.
        OtherProcessFailed: another process of a training on several devices failed.
    """
    folder = Path(out)
    first = processes.is_first()

    def say(text: str) -> None:
        if first and not quiet:
            print(text, file=sys.stderr, flush=True)

    if resume:
        recipe = _resumed_recipe(read_recipe(folder), recipe, folder)
    if recipe is None:
        raise UserError("a training needs a recipe.")
    recipe = _with_absolute_paths(recipe)
    if recipe.machine.threads is not None:
        torch.set_num_threads(recipe.machine.threads)
    checkpoint = folder / LAST if resume else None
    processes.check_started(recipe.machine.devices, recipe.machine.nodes)
    device = _device(recipe)
    # What takes a moment to check is checked before the images are, which may take minutes.
    get_spec(recipe.model)
    pick_head(recipe.task, recipe.head)
    if first and not resume and not overwrite:
        require_empty(folder)
    bundle = open_data(
        recipe.data, task=recipe.task, val=recipe.val, seed=recipe.seed, val_fraction=recipe.val_fraction
    )
    objective = get_task(recipe.task).objective(recipe, bundle)
    net = build_model(recipe, objective.preprocessing[0].channels, bundle.num_classes, start=not resume, say=say)
    bundle = readable(bundle)
    for note in (bundle.how, *bundle.notes):
        say(note)
    job = _Job(recipe, folder, bundle, objective)
    feed = Feed(bundle, recipe, objective)
    module = Training(net, objective, recipe, length(recipe.optimization, feed.batches))
    if module.frozen:
        names = ["the stem", *(f"stage {number}" for number in range(1, len(module.frozen)))]
        say(f"not trained, statistics included: {', '.join(names)}")
    if checkpoint is None and first:
        prepare(folder, overwrite=overwrite)
        atomic_write_text(folder / "recipe.yaml", recipe.to_yaml())
        write_split(bundle, folder / "split.csv")
    start = _position(checkpoint, module) if checkpoint is not None else 0
    processes.meet()
    try:
        if start < module.span.steps:
            _fit(job, module, feed, device, checkpoint, quiet)
        if not first:
            return {}
        return _finish(job, module, device, finished)
    except KeyboardInterrupt:
        raise TrainingInterrupted(
            f"stopped at once. The last checkpoint is {folder / LAST}; go on with: resurge train --resume {folder}"
        ) from None


def _resumed_recipe(saved: Recipe, wanted: Recipe | None, folder: Path) -> Recipe:
    """The recipe to go on with: the run's own, but what only says how it is computed may be another."""
    if wanted is None:
        return saved
    free = ("device", "workers", "threads", "cache", "compile", "channels_last", "checkpoint_every")
    changed = replace(saved, machine=replace(saved.machine, **{name: getattr(wanted.machine, name) for name in free}))
    if _with_absolute_paths(wanted) != changed:
        raise UserError(
            f"--resume goes on with the recipe in {folder}; only {', '.join(free)} may change. "
            "Leave the other options out."
        )
    return changed


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with its files and folders named from the root, so that it resumes from anywhere."""
    changes: dict[str, Any] = {}
    for name in ("data", "val", "weights"):
        value = getattr(recipe, name)
        if value is not None and value != "digits" and Path(value).expanduser().exists():
            changes[name] = str(Path(value).expanduser().absolute())
    return replace(recipe, **changes)


def _device(recipe: Recipe) -> torch.device:
    machine = recipe.machine
    device = pick_device(machine.device)
    if device.type == "cpu" and machine.precision == "fp16":
        raise UserError("precision=fp16 needs a GPU; on a CPU use precision=bf16 or fp32.")
    if device.type == "cuda" and machine.devices > torch.cuda.device_count():
        raise UserError(
            f"devices={machine.devices}, but there are {torch.cuda.device_count()} GPUs here. Lower devices."
        )
    processors = os.cpu_count() or 1
    if device.type == "cpu" and machine.devices > processors:
        raise UserError(f"devices={machine.devices}, but there are {processors} processors here. Lower devices.")
    return device


def build_model(
    recipe: Recipe, channels: int, classes: int, *, start: bool = True, say: Callable[[str], None] = log.info
) -> nn.Module:
    """The recipe's network, initialised from its seed or from its weights; without `start`, weights are not read.

    `say` takes a line on what was loaded.

    Raises:
        UserError: unknown model, or weights that do not fit.
    """
    setting = recipe.regularization
    torch.manual_seed(mix(recipe.seed))
    model = _built(recipe, channels, classes, setting.dropout)
    if setting.zero_init_last:
        zero_init_last(model)
    if recipe.weights is not None and start:
        say(str(load_weights(model, recipe.weights)))
    if recipe.machine.norm != "batch":
        convert_norm(model, recipe.machine.norm)
    if setting.drop_path:
        set_drop_path(model, setting.drop_path)
    if setting.drop_block:
        set_drop_block(model, setting.drop_block)
    if recipe.machine.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model


def _built(recipe: Recipe, channels: int, classes: int, dropout: float = 0.0) -> nn.Module:
    return build_task_model(
        recipe.task,
        get_spec(recipe.model),
        classes,
        channels,
        recipe.head,
        recipe.head_settings(),
        dropout=dropout,
    )


def _position(path: Path, module: Training) -> int:
    """The step a checkpoint stands at, after a look at whether it belongs to this training."""
    content = read_checkpoint(path)
    if content["resurge"].get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is of another version of resurge. Resume it with that version, or start anew.")
    state = content["state_dict"]
    own = module.state_dict()
    different = [name for name in own if name not in state or state[name].shape != own[name].shape]
    if different or len(own) != len(state):
        raise UserError(
            f"{path} is not of this training: {len(different)} tensors differ, first {(different or list(state))[0]}. "
            "Its data or its network was changed; start anew."
        )
    position, best = content["resurge"]["position"], content["resurge"]["best"]
    if best and best["epoch"] == position["epoch"] and position["batch"] == 0 and processes.is_first():
        link_or_copy(path, path.with_name(BEST.name))  # killed between the two
    if position["batch"] > module.span.batches or position["epoch"] > module.span.epochs:
        raise UserError(f"{path} stands beyond the end of this training; the data was changed. Start anew.")
    return int(position["step"])


def _fit(job: _Job, module: Training, feed: Feed, device: torch.device, checkpoint: Path | None, quiet: bool) -> None:
    recipe, machine = job.recipe, job.recipe.machine
    resumed = read_checkpoint(checkpoint)["resurge"]["position"] if checkpoint is not None else None
    signals = StopSignal()
    batch = min(recipe.optimization.batch_size, max(1, len(job.bundle.train) // (machine.devices * machine.nodes)))
    recorder = Recorder(job.folder, recipe.images_per_step(batch), resumed["step"] if resumed else None)
    keeper = Keeper((job.folder / LAST).parent, machine.checkpoint_every, recipe.optimization.early_stop, signals)
    callbacks: list[L.Callback] = [recorder, *([] if quiet else [Progress(recorder)]), keeper]
    if machine.compile:
        for part in job.objective.parts_to_compile(module.net):
            part.compile()
    with _understood_noise_silenced(), signals.listening():
        trainer = L.Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy="ddp" if machine.devices * machine.nodes > 1 else "auto",
            precision=PRECISIONS[machine.precision],  # type: ignore[arg-type]
            # Lightning counts from 0 after resuming; the position in the training is the module's.
            max_epochs=module.span.epochs - (resumed["epoch"] if resumed else 0),
            accumulate_grad_batches=recipe.optimization.accumulate,
            gradient_clip_val=recipe.optimization.clip_norm or None,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=job.folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(module, datamodule=feed, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:
            # Lightning's answer to a KeyboardInterrupt, which here is the second stop signal
            raise KeyboardInterrupt from None
        except Exception as error:
            if trainer.strategy.launcher is None:
                raise
            raise processes.settle_failure(error, getattr(trainer.strategy.launcher, "procs", [])) from error


@contextlib.contextmanager
def _understood_noise_silenced() -> Iterator[None]:
    """Hush Lightning's hints about devices, and the warnings below, each with why it says nothing about a training."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning asks torch for a class that torch has renamed; it works with both.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _finish(
    job: _Job,
    module: Training,
    device: torch.device,
    finished: Callable[[Run, dict[str, Any], DataBundle], None] | None,
) -> dict[str, Any]:
    """Write the model from the best checkpoint, evaluate it, and write the scores."""
    recipe, bundle = job.recipe, job.bundle
    content = read_checkpoint(job.folder / BEST)
    net, norm = module.net, recipe.machine.norm
    average = content["resurge"]["ema"]
    state = average["average"] if average is not None else _without_prefix(content["state_dict"])
    net.load_state_dict(state)
    objective = job.objective
    plain = _plain(recipe, net, objective.preprocessing[1].channels, bundle.num_classes)
    best = content["resurge"]["best"]
    name, split = ("test", bundle.test) if bundle.test is not None else ("val", bundle.val)
    result = {"split": name} | objective.evaluate(
        plain,
        split,
        batch_size=recipe.optimization.batch_size,
        device=device,
        precision=recipe.machine.precision,
        workers=pick_workers(recipe.machine.workers),
    )
    scores: dict[str, Any] = {f"val_{key}": best.get(key) for key in (objective.figures[0], "loss") if key in best}
    scores |= {"epoch": best["epoch"]} | result["scores"] | {"split": name}
    save_run_model(
        job.folder,
        plain.cpu(),
        task=recipe.task,
        classes=bundle.classes,
        preprocessing=objective.preprocessing[1],
        norm="batch" if norm == "sync" else norm,
        data=bundle.to_json() | {"source": recipe.data},
        scores=scores,
    )
    if finished is not None:
        finished(load_run(job.folder, device), result, bundle)
    write_evaluation(job.folder, result)
    return result


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}


def _plain(recipe: Recipe, net: nn.Module, channels: int, classes: int) -> nn.Module:
    """The trained network as it is used from now on: nothing dropped at random, synchronised norms ordinary again."""
    model = _built(recipe, channels, classes)
    if recipe.machine.norm in ("frozen", "group"):
        convert_norm(model, recipe.machine.norm)
    model.load_state_dict(net.state_dict())
    return model.eval()
