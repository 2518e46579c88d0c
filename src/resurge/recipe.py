"""A training is a `Recipe`: one frozen value that says everything needed to repeat it. No torch here.

    recipe = load_recipe("finetune").override(["model=resnest50", "data=photos", "lr=0.01"])
    recipe.optimization.lr

Recipes are YAML files; a file names only what differs from the defaults below. The named ones lie in `recipes/` next to
this file and open with a comment: the paper, the command, the hardware they were meant for, the expected score, and
whether they were run by us.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from resurge.config import (
    LONGEST_SIDE,
    MOST_PIXELS,
    Section,
    fields,
    load_yaml,
    option,
    read,
    read_assignment,
    replaced,
    to_plain,
)
from resurge.data.augmentation import Augmentation
from resurge.data.reading import Reading
from resurge.errors import UserError, suggest
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.table import TASKS, get_task, pick_head
from resurge.untrusted import read_text

RECIPES = Path(__file__).parent / "recipes"
MOST_BYTES = 1 << 20
"""Of a recipe."""


@dataclass(frozen=True, kw_only=True)
class Images(Section):
    """How large images are and how they are normalised."""

    size: int | None = option(
        None,
        "classify: side of the square training crop, pixels; else: the image's short side, 0 for the image as it is; "
        "null: the data's usual one",
        low=0,
        high=MOST_PIXELS,
    )
    eval_size: int | None = option(None, "the same in evaluation; null: as in training", low=0, high=MOST_PIXELS)
    max_size: int | None = option(
        None,
        "not classify: longest side after resizing, pixels, which bounds the memory; null: 5/3 of size",
        low=1,
        high=LONGEST_SIDE,
    )
    crop_pct: float | None = option(
        None,
        "evaluation resizes the short side to eval_size / crop_pct; null: 0.875, and 1 up to 64 pixels",
        low=0.05,
        high=1,
    )
    interpolation: str = option("bilinear", "how images are resized", choices=("nearest", "bilinear", "bicubic"))
    mean: tuple[float, ...] | None = option(None, "mean of each channel on a 0..1 scale; null: the data's usual one")
    std: tuple[float, ...] | None = option(None, "deviation of each channel; null: the data's usual one", above=0)


@dataclass(frozen=True, kw_only=True)
class Optimization(Section):
    """The optimizer, its learning rate over time, and how long it runs."""

    optimizer: str = option("sgd", "which optimizer", choices=("sgd", "adamw"))
    lr: float = option(0.1, "peak learning rate", above=0)
    lr_per: int = option(
        256, "batch that lr refers to: it is multiplied by (images per step / lr_per); 0: lr is used as it is", low=0
    )
    momentum: float = option(0.9, "SGD's momentum", low=0, below=1)
    nesterov: bool = option(False, "SGD: Nesterov momentum")
    weight_decay: float = option(1e-4, "weight decay, not applied to normalisation and biases", low=0)
    epochs: int = option(90, "passes over the training images", low=1)
    steps: int | None = option(None, "optimizer steps in all; when set, it replaces epochs", low=1)
    schedule: str = option("cosine", "learning rate over time", choices=("cosine", "step", "poly", "constant"))
    warmup: float = option(5.0, "epochs over which lr rises linearly from 0", low=0)
    milestones: tuple[float, ...] = option(
        (), "step schedule: when lr drops, in epochs (in steps when steps is set)", low=0
    )
    gamma: float = option(0.1, "step schedule: what lr is multiplied by at a milestone", above=0, high=1)
    batch_size: int = option(128, "images per device and batch", low=1)
    accumulate: int = option(1, "batches summed up before an optimizer step", low=1)
    balanced_sampling: bool = option(False, "draw every class equally often")
    clip_norm: float = option(0.0, "largest norm of the gradient; 0: off", low=0)
    ema: float = option(
        0.0, "decay per step of the moving average of the weights that is evaluated and kept; 0: off", low=0, below=1
    )
    freeze: int = option(0, "leading parts that are not trained: 1 the stem, 2 also the first stage, ...", low=0)
    layer_decay: float = option(1.0, "learning rate of a block relative to the block after it", above=0, high=1)
    select_by: str | None = option(
        None, "metric of the validation that picks the weights that are kept; null: the task's first"
    )
    early_stop: int = option(0, "stop after this many evaluations without a better score; 0: off", low=0)


@dataclass(frozen=True, kw_only=True)
class Regularization(Section):
    """What is done against overfitting."""

    label_smoothing: float = option(0.0, "share of the target given to all classes", low=0, below=1)
    mixup: float = option(0.0, "alpha of mixup (Zhang et al. 2018); 0: off", low=0)
    cutmix: float = option(
        0.0, "alpha of CutMix (Yun et al. 2019); 0: off; with mixup, one of the two per batch", low=0
    )
    dropout: float = option(0.0, "dropout before the classifier", low=0, below=1)
    drop_path: float = option(0.0, "stochastic depth of the last block; rises linearly over the blocks", low=0, below=1)
    drop_block: float = option(0.0, "DropBlock in the last two stages (Ghiasi et al. 2018)", low=0, below=1)
    zero_init_last: bool = option(True, "the last gamma of every block starts at 0")
    class_weights: tuple[float, ...] | str = option(
        "none", "classify, segment: none, auto (by frequency) or one number per class, in their order", low=0
    )


@dataclass(frozen=True, kw_only=True)
class Testing(Section):
    """Test-time augmentation of a segmenter in the final evaluation; validations during training use none."""

    test_scales: tuple[float, ...] = option((1.0,), "segment: average over the image at these scales", above=0, high=8)
    test_flip: bool = option(False, "segment: average over the image and its mirror image")
    test_window: tuple[int, ...] | None = option(
        None, "segment: height and width of a window that slides over larger images; null: whole images", low=1
    )


@dataclass(frozen=True, kw_only=True)
class Machine(Section):
    """How the training is computed; on one device only precision and norm change its result."""

    precision: str = option("fp32", "number format of the forward pass", choices=("fp32", "bf16", "fp16"))
    channels_last: bool = option(True, "memory layout in which convolutions are fastest")
    compile: bool = option(False, "compile the network with torch.compile")
    norm: str = option(
        "batch",
        "normalisation: batch, sync (over all devices), frozen or group",
        choices=("batch", "sync", "frozen", "group"),
    )
    device: str = option("auto", "auto, cpu, cuda or mps", choices=("auto", "cpu", "cuda", "mps"))
    devices: int = option(1, "devices per node", low=1)
    nodes: int = option(1, "machines", low=1)
    workers: int | None = option(None, "processes that read images; null: chosen from the machine", low=0)
    threads: int | None = option(None, "CPU threads of the computation; null: torch's choice", low=1)
    cache: float = option(1.0, "keep decoded images in memory where all of them need no more GiB than this", low=0)
    checkpoint_every: int = option(0, "optimizer steps between checkpoints; 0: only at the end of an epoch", low=0)
    eval_every: int = option(1, "epochs between evaluations", low=1)


@dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """Everything needed to repeat a training.

    Raises:
        UserError: a value of the wrong type or out of range; names the field.
    """

    model: str = option("resnest50", "a name of `resurge models`, or the text of a spec")
    data: str = option("digits", "digits (comes along), a folder, a COCO file, or a CSV file of paths and labels")
    task: str = option("classify", "what is learnt", choices=tuple(TASKS))
    head: str | None = option(None, "what the task puts on the backbone; null: the task's first head")
    weights: str | None = option(None, "weights to start from: a file, hub:owner/name, or pretrained")
    seed: int = option(0, "seed of initialisation, order, augmentation and split", low=0, high=2**31 - 1)
    val: str | None = option(
        None, "where the validation images are: a folder, a CSV file, or test; null: what the data has"
    )
    val_fraction: float | None = option(
        None,
        "share of the training images held out where there is no validation part; null: 0.2, 0.1 of many",
        above=0,
        below=1,
    )
    reading: Reading = Reading()
    images: Images = Images()
    augmentation: Augmentation = Augmentation()
    optimization: Optimization = Optimization()
    regularization: Regularization = Regularization()
    detector: Detector = Detector()
    segmenter: Segmenter = Segmenter()
    testing: Testing = Testing()
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        super().__post_init__()
        pick_head(self.task, self.head)
        _check_metric(self)
        _check_effective(self)
        _check_together(self)

    def override(self, assignments: Iterable[str]) -> Recipe:
        """A copy with `field=value` texts applied; a field is named alone (`lr`) or with its group (`optimization.lr`).

        Raises:
            UserError: not an assignment, an unknown field, or a value that does not fit.
        """
        return self.replace(dict(read_assignment(text, Recipe) for text in assignments))

    def replace(self, changes: Mapping[str, object], where: str = "recipe") -> Recipe:
        """A copy with changed fields, by name or dotted path; `where` opens the error message.

        A `size` takes the fields along that were chosen for the size before: crop_size, short_sides and max_size change
        in proportion, unless they are among the changes themselves.
        """
        found = replaced(self, changes, where)
        same = found.images.size == self.images.size
        return found if same else replaced(found, _following(self, found, changes), where)

    def to_yaml(self) -> str:
        """YAML text of every field; `from_yaml` reads it back to an equal recipe."""
        return yaml.safe_dump(to_plain(self), sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def from_yaml(cls, text: str, where: str = "recipe") -> Recipe:
        """Read YAML; fields that are not named keep their defaults.

        Raises:
            UserError: not YAML, not a list of fields, an unknown field, or a value that does not fit.
        """
        try:
            plain = load_yaml(text, cls)
        except ValueError as error:
            raise UserError(f"{where} is not valid YAML: {error}") from None
        if plain is None:
            plain = {}
        if not isinstance(plain, Mapping):
            raise UserError(f"{where} must hold `field: value` lines; it holds a {type(plain).__name__}.")
        return cls().replace(plain, where)

    def head_settings(self) -> Section | None:
        """The numbers of the head, from the section that belongs to the task; None where the task has none."""
        section = get_task(self.task).section
        return None if section is None else getattr(self, section)

    def images_per_step(self, batch_size: int | None = None) -> int:
        """Images that one optimizer step sees, over all devices and accumulated batches."""
        batch = batch_size or self.optimization.batch_size
        return batch * self.optimization.accumulate * self.machine.devices * self.machine.nodes

    def peak_lr(self) -> float:
        """The learning rate after warm-up, scaled linearly to the batch (Goyal et al. 2017)."""
        setting = self.optimization
        return setting.lr * (self.images_per_step() / setting.lr_per if setting.lr_per else 1.0)


def _following(before: Recipe, after: Recipe, changes: Mapping[str, object]) -> dict[str, object]:
    """The fields that follow a new size, by name. From or to images as they are (0) or of the data's usual size (null)
    the proportion is not known: the crop's shorter side is then the new size, and no short sides are drawn."""
    named = {leaf for group, value in changes.items() for leaf in (value if isinstance(value, Mapping) else [group])}
    given = {str(name).rpartition(".")[2] for name in named}
    old, new = before.images.size, after.images.size

    crop, sides, longest = after.augmentation.crop_size, after.augmentation.short_sides, after.images.max_size
    wanted: dict[str, object] = {}
    if crop:
        wanted["crop_size"] = [_scaled(side, old or min(crop), new) for side in crop] if new else None
    if sides:
        wanted["short_sides"] = [_scaled(side, old, new) for side in sides] if old and new else []
    if longest and old and new:
        wanted["max_size"] = _scaled(longest, old, new)
    return {name: value for name, value in wanted.items() if name not in given}


def _scaled(side: int, before: int, after: int) -> int:
    return min(max(round(side * after / before), 1), 4096)


def _check_together(recipe: Recipe) -> None:
    """Limits between fields."""
    images, setting, window = recipe.images, recipe.optimization, recipe.testing.test_window
    if window is not None and len(window) != 2:
        raise UserError(f"test_window takes two numbers, not {list(window)}.")
    if (images.mean is None) != (images.std is None):
        raise UserError("mean and std are given together or not at all.")
    if images.mean is not None and images.std is not None and len(images.mean) != len(images.std):
        raise UserError(f"mean and std need one number per channel each, not {len(images.mean)} and {len(images.std)}.")
    if setting.schedule == "step" and not setting.milestones:
        raise UserError(
            "schedule=step needs milestones, the times at which lr drops (for example milestones=[30,60,80])."
        )
    if list(setting.milestones) != sorted(setting.milestones):
        raise UserError(f"milestones must rise, not {list(setting.milestones)}.")
    if setting.nesterov and not setting.momentum:
        raise UserError("nesterov=true needs momentum above 0.")
    weights = recipe.regularization.class_weights
    if isinstance(weights, str) and weights not in ("none", "auto"):
        raise UserError(f"class_weights takes none, auto or a list of numbers, not {weights!r}.")


def _check_metric(recipe: Recipe) -> None:
    name, known = recipe.optimization.select_by, get_task(recipe.task).all_metrics
    if name is not None and name not in known:
        raise UserError(f"select_by takes {', '.join(known)}, not {name!r}.{suggest(name, known)}")


def _check_effective(recipe: Recipe) -> None:
    """A field that has no effect on the task must keep its default.

    Raises:
        UserError: names it.
    """
    task = get_task(recipe.task)
    if task.one_size and 0 in (recipe.images.size, recipe.images.eval_size):
        raise UserError("size 0, the image as it is, is for detectors and segmenters; a classifier's images share one.")
    for path in task.idle:
        group, _, name = path.partition(".")
        section = getattr(recipe, group)
        if getattr(section, name) != getattr(type(section)(), name):
            raise UserError(f"{name} has no effect on the task {recipe.task}. Leave it out.")


def without_effect(recipe: Recipe) -> dict[str, str]:
    """The fields that are not at their default and do nothing in this recipe, by dotted path, each with the reason.

    A recipe may hold them, such as the momentum of SGD beside another optimizer; who sets one means something by it.
    """
    task, setting, augment = get_task(recipe.task), recipe.optimization, recipe.augmentation
    head = pick_head(recipe.task, recipe.head)
    reasons = dict.fromkeys(task.unused_settings(head), f"on the head {head}")
    other = {each.section for each in TASKS.values()} - {task.section}
    others = [*other, *([] if "scales" in task.evaluation_options else ["testing"])]
    if not task.one_size:
        scenes = ("images.crop_pct", "augmentation.crop_scale", "augmentation.crop_ratio", "augmentation.auto_policy",
                  "augmentation.auto_operations", "augmentation.auto_magnitude")  # fmt: skip
        reasons |= dict.fromkeys(scenes, f"on the task {recipe.task}")
    if setting.schedule != "step":
        needed = ("optimization.milestones", "optimization.gamma")
        reasons |= dict.fromkeys(needed, f"with schedule={setting.schedule}, only with step")
    if setting.optimizer != "sgd":
        needed = ("optimization.momentum", "optimization.nesterov")
        reasons |= dict.fromkeys(needed, f"with optimizer={setting.optimizer}, only with sgd")
    if augment.crop_scale is None:
        reasons["augmentation.crop_ratio"] = "with crop_scale=none"
    if augment.auto_augment != "autoaugment":
        reasons["augmentation.auto_policy"] = "without auto_augment=autoaugment"
    if augment.auto_augment != "randaugment":
        needed = ("augmentation.auto_operations", "augmentation.auto_magnitude")
        reasons |= dict.fromkeys(needed, "without auto_augment=randaugment")
    found = {}
    for path, _, default, _ in fields(Recipe):
        group = path.partition(".")[0]
        reason = f"on the task {recipe.task}" if group in others else reasons.get(path)
        if reason is not None and read(recipe, path) != default:
            found[path] = reason
    return found


def list_recipes() -> list[str]:
    """The named recipes: file names below `recipes/` without `.yaml`, for example "imagenet/resnest50"."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def recipe_text(name: str) -> str:
    """The file of a named recipe, comment included, or the content of a file.

    Raises:
        UserError: neither a named recipe nor a readable file.
    """
    named = RECIPES / f"{name}.yaml"
    path = named if name in list_recipes() else Path(name)
    try:
        return read_text(path, MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        if path.suffix in (".yaml", ".yml") or path.exists():
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"cannot read the recipe {name}: {reason}.") from None
        raise UserError(
            f"there is no recipe {name!r}.{suggest(name, list_recipes())} Named recipes: {', '.join(list_recipes())}; "
            "or give a YAML file."
        ) from None


def default_recipe(task: str, data: str) -> str | None:
    """The named recipe that a task starts from when none is named; None: the fields' own defaults."""
    own = f"digits_{task}" if data == "digits" else task
    return own if own in list_recipes() else None


def states(name: str, field: str) -> bool:
    """Whether a named recipe or a YAML file has a field of the recipe itself, such as `data`; raises what `load_recipe`
    does where it cannot be read."""
    load_recipe(name)
    return field in (yaml.safe_load(recipe_text(name)) or {})


def load_recipe(name: str) -> Recipe:
    """A named recipe, or one from a YAML file; raises UserError if there is none, or its content does not fit."""
    return Recipe.from_yaml(recipe_text(str(name)), where=f"recipe {name}")
