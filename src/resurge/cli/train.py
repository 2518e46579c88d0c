"""`resurge train`: a recipe, whatever the command line changes in it, and a run directory."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurge import processes
from resurge import recipe as recipes
from resurge.cli.options import Parser, add, add_field, as_is, as_options, log, option_name
from resurge.config import fields, paths, read, read_assignment
from resurge.errors import OtherProcessFailed, TrainingDiverged, TrainingInterrupted, UserError, suggest
from resurge.quantities import number_of, quantity
from resurge.recipe import Recipe
from resurge.tasks.report import NAMES, percent_text
from resurge.tasks.table import DEFAULT

if TYPE_CHECKING:
    from resurge.data.splits import DataBundle
    from resurge.runs import Run
    from resurge.tasks.evaluation import Evaluation

# These stand first in the help; every other field of a recipe follows under the name of its group.
COMMON = ("task", "head", "data", "model", "weights")


def add_options(parser: Parser) -> None:
    parser.usage = "%(prog)s [options]"
    options = {field.path: field for field in fields(Recipe)}
    add(parser, "--recipe", "NAME", "a named recipe (below) or a YAML file; options override it")
    for path in COMMON:
        add_field(parser, options.pop(path))
    add(parser, "--out", "RUN", "the run directory to write (default: a new one under runs/)")
    parser.add_argument("--overwrite", action="store_true", help="replace the run directory when it exists")
    add(parser, "--resume", "RUN", "go on with a run exactly where its last checkpoint stands")
    about = "set any field of the recipe; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=about)
    parser.add_argument("--print-recipe", action="store_true", help="print the resulting recipe and train nothing")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for path, field in options.items():
        title = path.rpartition(".")[0] or "recipe"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add_field(groups[title], field)
    parser.epilog = "named recipes: " + ", ".join(recipes.list_recipes())


def run(options: argparse.Namespace) -> int:
    if processes.is_child():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process too, which stops all
    try:
        return _run(options)
    except BaseException as error:
        if not processes.reports(error):
            _fall_silent()
        if isinstance(error, (TrainingInterrupted, TrainingDiverged, OtherProcessFailed)):
            log(str(error))
            return error.exit_code
        raise


def _fall_silent() -> None:
    """Show nothing more: this process ends, and another one says why. What torch says on its way out is included."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _run(options: argparse.Namespace) -> int:
    changes = changed_fields(options)
    if options.resume is not None:
        wrong = [name for name in ("recipe", "out", "overwrite", "print_recipe") if getattr(options, name)]
        if wrong:
            raise UserError(f"--resume goes on with the run's own recipe: it cannot be given with {as_options(wrong)}.")
        folder, changed = Path(options.resume), None
        if changes:  # the training refuses what must stay as it was
            from resurge.runs import read_recipe

            changed = read_recipe(folder).replace(changes, where="command line")
        return _train(changed, folder, resume=True)
    start, stated = _starting_recipe(options.recipe, changes)
    recipe = start.replace(changes, where="command line")
    if options.print_recipe:
        if processes.is_first():
            print(recipe.to_yaml(), end="")
        return 0
    idle = recipes.without_effect(recipe)
    for path in changes:
        if path in idle:
            raise UserError(f"{option_name(path)} has no effect {idle[path]}. Leave it out.")
    if not stated:
        raise UserError(_without_data(recipe))
    if processes.is_first():
        _say_what_follows(start, recipe, changes)
    return _train(recipe, Path(options.out) if options.out else free_run(recipe), overwrite=options.overwrite)


def _starting_recipe(name: str | None, changes: dict[str, object]) -> tuple[Recipe, bool]:
    """The named recipe, or the one a task starts from when none is named; and whether it or the command line says what
    data to train on."""
    said = "data" in changes
    if name is not None:
        return recipes.load_recipe(name), said or recipes.states(name, "data")
    plain = Recipe()
    task = str(changes.get("task", plain.task))
    default = recipes.default_recipe(task, str(changes.get("data", plain.data))) if task != plain.task else None
    if default is None:
        return plain, said
    if processes.is_first():
        print(f"recipe: {default} (the default of --task {task}; --recipe names another)", file=sys.stderr)
    return recipes.load_recipe(default), said or recipes.states(default, "data")


def _say_what_follows(start: Recipe, recipe: Recipe, changes: dict[str, object]) -> None:
    """A line on the fields that the command line's size has changed too."""
    before, after = ({field.path: read(each, field.path) for field in fields(Recipe)} for each in (start, recipe))
    for path in after:
        if path not in changes and after[path] != before[path]:
            option = option_name(path)
            log(f"{option} {as_is(after[path])} follows --size {recipe.images.size}; give {option} for another.")


def _without_data(recipe: Recipe) -> str:
    """What to say where nothing says what to train on: what the default would be, and what it would cost."""
    from resurge.arch.backbone import Backbone
    from resurge.arch.zoo import get_spec
    from resurge.data.sources import open_data
    from resurge.explain.cost import cost
    from resurge.tasks.table import DATA_WORDS, get_task
    from resurge.train.loaders import batches_per_epoch
    from resurge.train.optim import length

    bundle = open_data(recipe.data, annotation=get_task(recipe.task).annotation, words=DATA_WORDS, seed=recipe.seed)
    side = recipe.images.size or bundle.default_size
    steps = length(recipe.optimization, batches_per_epoch(bundle, recipe)).steps
    macs = cost(Backbone(get_spec(recipe.model), bundle.in_channels), (side, side)).total.macs
    batch = recipe.images_per_step()
    size, all_macs = f"{number_of(steps, 'step')} of {number_of(batch, 'image')}", quantity(3 * macs * steps * batch)
    return (
        "expected --data: a folder of images, a COCO file, a CSV file of paths and labels, or digits, which come along."
        f" Nothing was started. With --data {recipe.data} this would be {recipe.model} at {side} x {side} pixels, "
        f"{size}, about {all_macs} multiply-adds. A smaller example, of two minutes: resurge train --recipe digits"
    )


def _train(recipe: Recipe | None, out: Path, *, resume: bool = False, overwrite: bool = False) -> int:
    from resurge.cli.run_pictures import explain_run
    from resurge.report import write_report
    from resurge.train.train import train

    def finished(run: Run, evaluation: Evaluation, bundle: DataBundle[Any]) -> None:
        explain_run(run, evaluation, bundle.splits()[evaluation["split"]])

    result = train(recipe, out, resume=resume, overwrite=overwrite, finished=finished)
    if not result:  # a helper process of a training on several devices; the first one has the result
        return 0
    shown = {name: value for name, value in result["scores"].items() if name in NAMES}
    images = number_of(result["count"], "image")
    print(f"{percent_text(shown)} on the {images} of the {result['split']} split, computed in {result['precision']}")
    print(f"run:    {out}")
    print(f"report: {write_report(out).resolve()}")
    return 0


def changed_fields(options: argparse.Namespace) -> dict[str, object]:
    """The recipe's fields that the command line sets, by dotted path. An option wins over `--set`."""
    names = paths(Recipe)
    changes: dict[str, object] = {}
    for assignment in options.set:
        name, value = read_assignment(assignment, Recipe)
        if name not in names:
            raise UserError(f"--set {assignment}: a recipe has no field {name!r}.{suggest(name, names)}")
        changes[names[name]] = value
    given = {path: getattr(options, f"field:{path}") for path in names.values()}
    return changes | {path: text for path, text in given.items() if text is not None}


def free_run(recipe: Recipe) -> Path:
    """`runs/DATA-TASK-MODEL`, numbered when it exists."""
    task = [] if recipe.task == DEFAULT else [recipe.task]
    words = [Path(recipe.data).stem or "data", *task, *recipe.model.split()[:1]]
    stem = "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in word) for word in words)
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(folder for name in names if not (folder := Path("runs") / name).exists())
