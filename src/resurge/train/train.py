"""The main job: a recipe and a folder of images in, a run directory with a trained, evaluated model out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from torch import nn

from resurge import processes
from resurge.arch.surgery import convert_norm, set_drop_block, set_drop_path, zero_init_last
from resurge.arch.zoo import get_spec
from resurge.data.digests import require_unchanged, write_digests
from resurge.data.seeding import mix
from resurge.data.sources import open_data
from resurge.data.splits import DataBundle, write_split
from resurge.errors import TrainingInterrupted, UserError
from resurge.files import Json, atomic_write_text, require_apart
from resurge.machine import keep_freed_memory, processor, versions
from resurge.recipe import Recipe
from resurge.runs import BEST, LAST, Run, describe, load_run, occupied, prepare, read_recipe, save_run_model
from resurge.tasks.evaluation import evaluate, write_evaluation
from resurge.tasks.running import pick_device
from resurge.tasks.table import DATA_WORDS, build_task_model, get_task, pick_head
from resurge.tasks.tta import TTA
from resurge.train.checkpoint import Checkpoint, link_or_copy, load_best, read_checkpoint
from resurge.train.loaders import Loaders, batches_per_epoch, pick_workers, readable
from resurge.train.loop import Job, Training
from resurge.train.optim import freeze, length
from resurge.train.recorder import Recorder
from resurge.untrusted import shown
from resurge.weights.checkpoint import load_weights

log = logging.getLogger(__name__)
T = TypeVar("T")
Finished = Callable[[Run, Json, DataBundle[Any]], None]


def train(
    recipe: Recipe | None,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    finished: Finished | None = None,
) -> Json:
    """Train, keep the best weights, evaluate them, and write a run directory.

    Args:
        recipe: what to train on what, and how; None with `resume`, which takes the run's own.
        out: the run directory.
        resume: go on exactly where the training in `out` stopped, with the same data.
        overwrite: remove what an earlier training left in `out`, and nothing else.
        quiet: show nothing while training.
        finished: called at the end with the run, its evaluation (entries may be added; it is written afterwards) and
            the data, for everything that explains the result.

    Returns the evaluation of the kept weights on the test images, or on the validation images where there are no
    others; see `Scores.compute` of the task. `split` says which, and `scores` are the few that stand for all.

    Raises:
        UserError: the recipe, the data or the folder cannot be used, another training runs in the folder, the data of a
            resumed training was changed, or the disk is full.
        TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        TrainingDiverged: the loss became infinite or not a number.
        OtherProcessFailed: another process of a training on several devices failed.
    """
    folder = Path(out)
    first = processes.is_first()

    def say(text: str) -> None:
        if first and not quiet:
            print(shown(text), file=sys.stderr, flush=True)

    if resume:
        recipe = _resumed_recipe(read_recipe(folder), recipe, folder)
    if recipe is None:
        raise UserError("a training needs a recipe.")
    recipe = _with_absolute_paths(recipe)
    if recipe.machine.threads is not None:
        torch.set_num_threads(recipe.machine.threads)
    keep_freed_memory()
    processes.check_started(recipe.machine.devices, recipe.machine.nodes)
    device = _device(recipe)
    # What takes a moment to check is checked before the images are, which may take minutes.
    get_spec(recipe.model)
    pick_head(recipe.task, recipe.head)
    with contextlib.ExitStack() as held:
        hold = partial(held.enter_context, occupied(folder, resume=resume, overwrite=overwrite))
        if first and not resume:
            require_apart(folder, (recipe.data, recipe.val))
        there = os.path.lexists(folder)
        if first and there:
            hold()
        # else the folder is made when the data is open, whose name it might have
        return _trained(recipe, folder, device, resume, quiet, finished, say, hold if first and not there else None)


def _trained(
    recipe: Recipe, folder: Path, device: torch.device, resume: bool, quiet: bool, finished: Finished | None,
    say: Callable[[str], None], hold: Callable[[], None] | None,
) -> Json:  # fmt: skip
    """`train` in a folder that is held, or that `hold` makes."""
    first = processes.is_first()
    checkpoint = read_checkpoint(folder / LAST) if resume else None
    bundle = open_data(
        recipe.data,
        annotation=get_task(recipe.task).annotation,
        words=DATA_WORDS,
        val=recipe.val,
        seed=recipe.seed,
        val_fraction=recipe.val_fraction,
        reading=recipe.reading,
    )
    objective = get_task(recipe.task).objective(recipe, bundle)
    net = build_model(recipe, objective.preprocessing[0].channels, len(objective.classes), start=not resume, say=say)
    bundle = readable(bundle)
    for note in (bundle.how, *bundle.notes, *objective.notes):
        say(note)
    frozen = freeze(net, recipe.optimization.freeze)
    if frozen:
        names = ["the stem", *(f"stage {number}" for number in range(1, len(frozen)))]
        say(f"not trained, statistics included: {', '.join(names)}")
    span = length(recipe.optimization, batches_per_epoch(bundle, recipe))
    about = describe(
        net,
        task=recipe.task,
        classes=objective.classes,
        preprocessing=objective.preprocessing[1],
        norm="batch" if recipe.machine.norm == "sync" else recipe.machine.norm,
        data={"task": recipe.task, **bundle.to_json(), "source": recipe.data},
    )
    job = Job(recipe, folder, device, bundle, objective, net, frozen, span, about, _computed_by(recipe, device))
    if first:
        if checkpoint is not None:
            require_unchanged(bundle, folder / "split.csv", folder / "digests.csv")
        else:
            require_apart(folder, _one_per_folder(bundle))
            if hold is not None:
                hold()
            prepare(folder)
            atomic_write_text(folder / "recipe.yaml", recipe.to_yaml(), mark=None)
            write_digests(bundle, folder / "digests.csv")
            write_split(bundle, folder / "split.csv")
    if checkpoint is not None:
        _check(checkpoint, job)
        if changed := _changed(checkpoint["resurge"]["computed_by"], job.computed_by):
            say(f"the result may differ in its last bits from that of a training left alone: {changed}")
    processes.meet()
    try:
        if checkpoint is None or checkpoint["resurge"]["position"]["step"] < span.steps:
            signals = processes.StopSignal()
            with signals.listening():
                _fit(job, checkpoint, quiet, signals)
        if not first:
            return {}
        return _finish(job, finished)
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
    changes: dict[str, str] = {}
    for name in ("data", "val", "weights"):
        value = getattr(recipe, name)
        if value is not None and value != "digits" and Path(value).expanduser().exists():
            changes[name] = str(Path(value).expanduser().absolute())
    return recipe.replace(changes)


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
    spec, head = get_spec(recipe.model), recipe.head_settings()
    model = build_task_model(recipe.task, spec, classes, channels, recipe.head, head, dropout=setting.dropout)
    if setting.zero_init_last:
        zero_init_last(model)
    if recipe.weights is not None and start:
        for line in str(load_weights(model, recipe.weights, headless=True)).splitlines():
            say(line)
    if recipe.machine.norm != "batch":
        convert_norm(model, recipe.machine.norm)
    if setting.drop_path:
        set_drop_path(model, setting.drop_path)
    if setting.drop_block:
        set_drop_block(model, setting.drop_block)
    if recipe.machine.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model


def _one_per_folder(bundle: DataBundle[Any]) -> Iterable[Path]:
    """One of the images in each folder that has any."""
    files = (file for split in bundle.splits().values() for file in map(split.path, range(len(split))))
    return {file.parent: file for file in files if file is not None}.values()


def _computed_by(recipe: Recipe, device: torch.device) -> dict[str, str]:
    """What the last bits of a training depend on, beside its recipe and data."""
    machine = recipe.machine
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {processor()}",
        "threads": str(torch.get_num_threads()),
        "compile": str(machine.compile),
        "channels_last": str(machine.channels_last),
        **versions("resurge", "torch", "torchvision", "numpy", "pillow"),
    }


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = [name for name in now if before.get(name) != now[name]]
    return ", ".join(f"{name} {now[name]} (before: {before.get(name, 'unknown')})" for name in names)


def _check(content: Checkpoint, job: Job) -> None:
    """Raises UserError if the last checkpoint does not belong to this training."""
    path = job.folder / LAST
    state, own = content["state_dict"], job.net.state_dict()
    different = [name for name in own if name not in state or state[name].shape != own[name].shape]
    if different or len(own) != len(state):
        raise UserError(
            f"{path} is not of this training: {len(different)} tensors differ, first {(different or list(state))[0]}. "
            "Its data or its network was changed; start anew."
        )
    position, best = content["resurge"]["position"], content["resurge"]["best"]
    if best and best["epoch"] == position["epoch"] and position["batch"] == 0 and processes.is_first():
        link_or_copy(path, job.folder / BEST)  # killed between the two
    if position["batch"] > job.span.batches or position["epoch"] > job.span.epochs:
        raise UserError(f"{path} stands beyond the end of this training; the data was changed. Start anew.")


class _Autocast(MixedPrecision):
    """Mixed precision by autocast alone.

    Fabric would also cast the batch, whose boxes and targets need all digits, and keep the cast weights, so that the
    gradients of a layer that is used on several levels of a pyramid were summed in half precision.
    """

    def forward_context(self) -> torch.autocast:
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device, dtype=dtype, cache_enabled=False)

    def convert_input(self, data: T) -> T:
        return data

    def convert_output(self, data: T) -> T:
        return data


def _fabric(recipe: Recipe, device: torch.device) -> Fabric:
    machine = recipe.machine
    precision = Precision()
    if machine.precision != "fp32":
        precision = _Autocast("bf16-mixed" if machine.precision == "bf16" else "16-mixed", device.type)
    return Fabric(
        accelerator=device.type,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy="ddp" if machine.devices * machine.nodes > 1 else "auto",
        plugins=precision,
    )


def _fit(job: Job, checkpoint: Checkpoint | None, quiet: bool, signals: processes.StopSignal) -> None:
    """Train from a checkpoint, or from the start, in as many processes as the recipe wants."""
    recipe, machine = job.recipe, job.recipe.machine
    batch = min(recipe.optimization.batch_size, max(1, len(job.bundle.train) // (machine.devices * machine.nodes)))
    step = checkpoint["resurge"]["position"]["step"] if checkpoint is not None else None
    recorder = Recorder(job.folder, recipe.images_per_step(batch), step, None if quiet else sys.stderr)
    if machine.compile:
        for part in job.objective.parts_to_compile(job.net):
            part.compile()
    fabric = _fabric(recipe, job.device)
    with _devices_unannounced(), processes.looked_after(fabric.strategy.launcher):
        fabric.launch()
        loaders = Loaders(job.bundle, recipe, job.objective, fabric)
        try:
            training = Training(job, fabric, loaders, recorder, signals)
            if checkpoint is not None:
                training.resume(checkpoint)
            training.run()
        finally:
            loaders.close()
            recorder.close()


@contextlib.contextmanager
def _devices_unannounced() -> Iterator[None]:
    """Keep Fabric from printing which processes and devices it starts."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _finish(job: Job, finished: Finished | None) -> Json:
    """Write the model from the best checkpoint, evaluate it, and write the scores."""
    recipe, bundle, objective = job.recipe, job.bundle, job.objective
    # The network as it is used from now on: nothing dropped at random, synchronised norms ordinary again.
    best = load_best(job.folder)
    name, split = ("test", bundle.test) if bundle.test is not None else ("val", bundle.val)
    result: Json = {"split": name} | evaluate(
        objective.task, best.model, split, best.preprocessing, best.classes,
        batch_size=recipe.optimization.batch_size, device=job.device, precision=recipe.machine.precision,
        workers=pick_workers(recipe.machine.workers), tta=TTA.of_recipe(recipe),
    )  # fmt: skip
    result["scores"] = objective.task.summary(result)
    scores = best.meta["scores"] | result["scores"] | {"split": name}
    save_run_model(
        job.folder, best.model.cpu(), task=best.task, classes=best.classes, preprocessing=best.preprocessing,
        norm=best.meta["norm"], scores=scores, data=best.meta["data"],
    )  # fmt: skip
    if finished is not None:
        finished(load_run(job.folder, job.device), result, bundle)
    write_evaluation(job.folder, result)
    return result
