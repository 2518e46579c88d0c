"""`resurge train`: a recipe, whatever the command line changes in it, and a run directory."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from resurge import processes
from resurge import recipe as recipes
from resurge.cli.options import Parser, as_is
from resurge.config import read_assignment
from resurge.errors import OtherProcessFailed, TrainingDiverged, TrainingInterrupted, UserError, suggest
from resurge.recipe import Recipe
from resurge.tasks.metric_names import NAMES, percent_text

# These stand first in the help; every other field of a recipe follows under the name of its group.
COMMON = ("task", "head", "data", "model", "weights")


def add_options(parser: Parser) -> None:
    parser.usage = "%(prog)s [options]"
    fields = {path: (kind, default, help_) for path, kind, default, help_ in recipes.fields()}
    parser.add_argument("--recipe", metavar="NAME", help="a named recipe (below) or a YAML file; options override it")
    for path in COMMON:
        _add_field(parser, path, *fields.pop(path))
    parser.add_argument("--out", metavar="RUN", help="the run directory to write (default: a new one under runs/)")
    parser.add_argument("--overwrite", action="store_true", help="replace the run directory when it exists")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run exactly where its last checkpoint stands")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="set any field of the recipe; may be repeated"
    )
    parser.add_argument("--print-recipe", action="store_true", help="print the resulting recipe and train nothing")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for path, field in fields.items():
        title = path.rpartition(".")[0] or "recipe"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_field(groups[title], path, *field)
    parser.epilog = "named recipes: " + ", ".join(recipes.list_recipes())


def _add_field(place: argparse._ActionsContainer, path: str, kind: str, default: Any, help_: str) -> None:
    # true/false fields may stand without a value: `--compile`
    flag: dict[str, Any] = {"nargs": "?", "const": "true"} if kind == "true/false" else {}
    place.add_argument(
        option_name(path),
        dest=f"field:{path}",
        metavar=_metavar(kind),
        help=f"{help_} ({as_is(default)})".replace("%", "%%"),
        **flag,
    )


def _metavar(kind: str) -> str:
    if "list" in kind:
        return "A,B"
    first = kind.split(" or ")[0]
    return {"true/false": "true/false", "whole number": "N", "number": "X"}.get(first, "TEXT")


def option_name(path: str) -> str:
    """The option that sets a field of the recipe: `optimization.batch_size` -> `--batch-size`."""
    return "--" + path.rpartition(".")[2].replace("_", "-")


def run(options: argparse.Namespace) -> int:
    if processes.is_child():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process too, which stops all
    try:
        return _run(options)
    except BaseException as error:
        if not processes.reports(error):
            _fall_silent()
        if isinstance(error, (TrainingInterrupted, TrainingDiverged, OtherProcessFailed)):
            print(f"resurge: {error}", file=sys.stderr)
            return error.exit_code
        raise


def _fall_silent() -> None:
    """Show nothing more: this process ends, and another one says why. What torch says on its way out is included."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _run(options: argparse.Namespace) -> int:
    changes = changed_fields(options)
    if options.resume is not None:
        given = [name for name in ("recipe", "out", "overwrite", "print_recipe") if getattr(options, name)]
        if given:
            words = ", ".join("--" + name.replace("_", "-") for name in given)
            raise UserError(f"--resume goes on with the run's own recipe: it cannot be given with {words}.")
        folder = Path(options.resume)
        return _train(_changed_recipe(folder, changes) if changes else None, folder, resume=True)
    recipe = _starting_recipe(options.recipe, changes).replace(changes, where="command line")
    if options.print_recipe:
        if processes.is_first():
            print(recipe.to_yaml(), end="")
        return 0
    return _train(recipe, Path(options.out) if options.out else free_run(recipe), overwrite=options.overwrite)


def _starting_recipe(name: str | None, changes: dict[str, Any]) -> Recipe:
    """The named recipe, or the one a task starts from when none is named."""
    if name is not None:
        return recipes.load_recipe(name)
    plain = Recipe()
    task = str(changes.get("task", plain.task))
    default = recipes.default_recipe(task, str(changes.get("data", plain.data))) if task != plain.task else None
    if default is None:
        return plain
    if processes.is_first():
        print(f"recipe: {default} (the default of --task {task}; --recipe names another)", file=sys.stderr)
    return recipes.load_recipe(default)


def _changed_recipe(folder: Path, changes: dict[str, Any]) -> Recipe:
    """The run's recipe with what the command line says; the training refuses what must stay as it was."""
    from resurge.runs import read_recipe

    return read_recipe(folder).replace(changes, where="command line")


def _train(recipe: Recipe | None, out: Path, *, resume: bool = False, overwrite: bool = False) -> int:
    from resurge.cli.run_pictures import explain_training
    from resurge.report import write_report
    from resurge.train.train import train

    result = train(recipe, out, resume=resume, overwrite=overwrite, finished=explain_training)
    if not result:  # a helper process of a training on several devices; the first one has the result
        return 0
    shown = {name: value for name, value in result["scores"].items() if name in NAMES}
    print(f"{percent_text(shown)} on the {result['count']:,} images of the {result['split']} split")
    print(f"run:    {out}")
    print(f"report: {write_report(out).resolve()}")
    return 0


def changed_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's fields that the command line sets, by dotted path. An option wins over `--set`."""
    kinds = {path: kind for path, kind, _, _ in recipes.fields()}
    changes: dict[str, Any] = {}
    for assignment in options.set:
        name, value = read_assignment(assignment)
        paths = [path for path in kinds if name in (path, path.rpartition(".")[2])]
        if not paths:
            names = [path.rpartition(".")[2] for path in kinds]
            raise UserError(f"--set {assignment}: a recipe has no field {name!r}.{suggest(name, names)}")
        changes[paths[0]] = value
    for path, kind in kinds.items():
        text = getattr(options, f"field:{path}")
        if text is not None:
            changes[path] = read_value(text, kind)
    return changes


def read_value(text: str, kind: str) -> Any:
    """An option's text as plain data for a field of this type (in the words of `recipe.fields`)."""
    if kind.startswith("text"):
        return text  # paths and spec text hold characters that mean something to YAML
    if "list" in kind and "," in text and not text.lstrip().startswith("["):
        text = f"[{text}]"
    return read_assignment(f"value={text}")[1]


def free_run(recipe: Recipe) -> Path:
    """`runs/DATA-TASK-MODEL`, numbered when it exists."""
    task = [] if recipe.task == "classify" else [recipe.task]
    words = [Path(recipe.data).stem or "data", *task, *recipe.model.split()[:1]]
    stem = "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in word) for word in words)
    candidate, number = Path("runs") / stem, 1
    while candidate.exists():
        number += 1
        candidate = Path("runs") / f"{stem}-{number}"
    return candidate
