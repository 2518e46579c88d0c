"""`export`: from a trained run to a folder that answers without it, in one of three formats and four precisions.

The network is rewritten (`resurge.optimize.rewrite`), converted, compared with the run on pictures, and run once on its
own in a fresh process. All of that happens in a folder beside the one asked for, which is renamed when all is well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from resurge.errors import UserError, suggest
from resurge.export import detection as finders
from resurge.export.calibration import Material, gather, unreadable
from resurge.export.consistency import differing
from resurge.export.convert import (
    TYPES,
    Deployed,
    output_names,
    trace,
    write_onnx,
    write_openvino,
    write_program,
)
from resurge.export.fidelity import Comparison, compare
from resurge.export.fidelity import Run as Ask
from resurge.export.fidelity_maps import Scenes, compare_maps, maps_trial
from resurge.export.fidelity_objects import ObjectComparison
from resurge.export.fidelity_objects import Told as ObjectsTold
from resurge.export.forms import form_of, rewritten_for
from resurge.export.quantize import Trial, classes_trial, quantize_folder
from resurge.export.selftest import run_apart
from resurge.files import Json, atomic_folder, atomic_write_text
from resurge.infer.engines import Engine, open_engine
from resurge.infer.engines.engine import need
from resurge.infer.engines.live import Live
from resurge.infer.folder import CERTIFICATE, FILES, FORMATS, PRECISIONS, described, read_export, require_free
from resurge.machine import processor, versions
from resurge.runs import Run, load_run
from resurge.tasks.table import get_task
from resurge.tasks.task import Annotation
from resurge.tasks.tta import TTA
from resurge.weights.model_json import JSON_FILE

MAX_DROP = 0.5
IMAGES = 500
RUNTIMES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino"), "torch": ("torch",)}
REFUSED = {
    ("onnx", "bf16"): (
        "ONNX Runtime has no bf16 convolution on a processor. Use --format openvino or torch for bf16, or --precision "
        "fp16 or int8 for onnx."
    ),
    ("torch", "int8"): "a torch program is not quantised here. Use --format openvino or onnx for int8.",
}


Compared = tuple[Comparison | ObjectComparison, Engine, dict[str, np.ndarray], dict[str, np.ndarray] | None]
"""The comparison, the engine it was made with, and images and sizes to ask that engine again in another process."""
Ways = tuple[int, Callable[[], Trial], Callable[[Ask], Comparison]]
"""How many pictures there are, and how int8 and a network are judged on them."""


@dataclass(frozen=True)
class Wanted:
    """What is to be made.

    format: onnx, openvino or torch. precision: fp32, bf16, fp16 or int8; see `resurge.infer.engines`. decide: of a
    segmenter: put out the class of every pixel in place of logits. raw: of a detector: put out the candidates before
    threshold and suppression. calibrate: pictures for int8 and for the comparison, as `gather` takes them. images: how
    many to compare on, at most; None for 500, of a detector 50. max_drop: points of accuracy that may be lost. form:
    rewriting passes beside those that are always applied; None for those that `resurge.export.forms` lists.
    """

    format: str = "onnx"
    precision: str = "fp32"
    decide: bool = False
    raw: bool = False
    calibrate: str | None = None
    images: int | None = None
    max_drop: float = MAX_DROP
    form: tuple[str, ...] | None = None


def export(
    source: Run | str | os.PathLike[str], out: str | os.PathLike[str], format: str = "onnx", precision: str = "fp32",
    *, calibrate: str | None = None, max_drop: float = MAX_DROP, images: int | None = None, decide: bool = False,
    raw: bool = False, form: Sequence[str] | None = None, force: bool = False, overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Json:  # fmt: skip
    """Write an export folder; returns its certificate.

    Args:
        source: a run, or its folder.
        out: the folder to make.
        format, precision, calibrate, images, decide, raw, form: see `Wanted`.
        max_drop: an export that loses more points than this is refused, unless `force`.
        overwrite: replace an export that is there.
        say: is told what is being done, a line at a time.

    Raises:
        UserError: the format or the precision is unknown or they do not go together, a package is not installed, `out`
            is taken or cannot be written, the network cannot be converted, or too much is lost. Nothing is left then.
    """
    chosen = None if form is None else tuple(form)
    wanted = Wanted(format, precision, decide, raw, calibrate, images, max_drop, chosen)
    check(wanted)
    target = Path(out)
    require_free(target, overwrite)
    run = source if isinstance(source, Run) else load_run(source)
    _require_possible(run, wanted)
    free = partial(require_free, target, overwrite)  # it may have been made meanwhile
    with atomic_folder(target, free, "Choose another place with --out.") as folder:
        return _made(run, wanted, folder, force, say)


def check(wanted: Wanted) -> None:
    """Raises UserError for what can be refused before anything is loaded."""
    for word, known, what in ((wanted.format, FORMATS, "format"), (wanted.precision, PRECISIONS, "precision")):
        if word not in known:
            raise UserError(f"unknown {what} {word!r}; it is one of {', '.join(known)}.{suggest(word, known)}")
    reason = REFUSED.get((wanted.format, wanted.precision))
    if reason is not None:
        raise UserError(f"{wanted.format} with {wanted.precision} cannot be made: {reason}")
    form_of(wanted.format, wanted.precision, wanted.form)
    for name in RUNTIMES[wanted.format]:
        need(name)
    if wanted.format != "torch":
        need("onnxscript")
    if wanted.precision == "int8":
        need("nncf")


def _require_possible(run: Run, wanted: Wanted) -> None:
    finders.require_possible(run, wanted.raw)
    if wanted.decide and not get_task(run.task).decides:
        raise UserError(f"{run.folder} is of the task {run.task}; only a segmenter puts out a class for every pixel.")


def _made(run: Run, wanted: Wanted, folder: Path, force: bool, say: Callable[[str], None]) -> Json:
    material = gather(run, wanted.calibrate)
    if wanted.precision == "int8" and not material.real:
        raise UserError(
            "int8 is calibrated on pictures, and the data of the run are not where they were. Name some like those it "
            "will see: --calibrate DIR (a few hundred are enough)."
        )
    say(f"tracing {run.spec}")
    made = _convert(run, wanted, folder)
    notes = _notes(run)
    _write_json(folder, run, wanted, made)
    compare_export = COMPARISONS[get_task(run.task).annotation]
    comparison, engine, questions, sizes = compare_export(run, wanted, material, made, folder, say)
    _judge(comparison, wanted, force)
    say("running it on its own")
    alone = _alone(folder, engine, wanted, made, questions, sizes)
    certificate = _certificate(folder, comparison, material, alone, made, (*notes, *engine.notes))
    atomic_write_text(folder / CERTIFICATE, json.dumps(certificate, indent=2, ensure_ascii=False) + "\n")
    return certificate


def _compared(
    ways: Callable[[Run, Live, Material, Wanted], Ways], run: Run, wanted: Wanted, material: Material,
    made: Json, folder: Path, say: Callable[[str], None],
) -> Compared:  # fmt: skip
    """A classifier or segmenter: quantised where that is wanted, and compared with the run."""
    count, trial, compare_to = ways(run, Live(run), material, wanted)
    if wanted.precision == "int8":
        _quantize(run, wanted, material, trial(), made, folder, say)
    say(f"comparing on {count} of the {material.measured_on}")
    engine = open_engine(read_export(folder), "cpu")
    comparison = compare_to(engine.run)
    if not comparison.images:
        raise unreadable(material.measured_on)
    return comparison, engine, _questions(run), None


def _decisions(run: Run, original: Live, material: Material, wanted: Wanted) -> Ways:
    """How a classifier is compared: its images are small, and all in memory."""
    batches = list(material.measured.few(wanted.images or IMAGES).batches(run.preprocessing))
    if not batches:
        raise unreadable(material.measured_on)
    told = [(batch, original.run(batch.images)) for batch in batches]
    return (
        sum(len(batch.images) for batch in batches),
        lambda: classes_trial(material, run.preprocessing, told),
        lambda ask: compare(told, ask),
    )


def _maps(run: Run, original: Live, material: Material, wanted: Wanted) -> Ways:
    """How a segmenter is compared: picture by picture, for they may be large."""
    scenes = Scenes(material.measured.few(wanted.images or IMAGES), run.preprocessing, run.classes)
    return (
        len(scenes.pictures),
        lambda: maps_trial(scenes, original.run, material),
        lambda ask: compare_maps(scenes, original.run, ask),
    )


def _compared_objects(
    run: Run, wanted: Wanted, material: Material, made: Json, folder: Path, say: Callable[[str], None]
) -> Compared:
    """The same for a detector."""
    count = wanted.images or finders.IMAGES
    told: Iterable[ObjectsTold] = finders.told_of(run, Live(run), material, count)
    if wanted.precision == "int8":
        told = list(told)
        _quantize(run, wanted, material, finders.trial(run, material, told, made), made, folder, say)
    say(f"comparing on {min(count, len(material.measured))} of the {material.measured_on}")
    engine = open_engine(read_export(folder), "cpu")
    comparison, batch = finders.compared(run, told, engine, made)
    return comparison, engine, *finders.questions(batch)


COMPARISONS: Mapping[Annotation, Callable[..., Compared]] = {
    "labels": partial(_compared, _decisions),
    "maps": partial(_compared, _maps),
    "boxes": _compared_objects,
    "masks": _compared_objects,
}
"""How the export of a network is compared with the run, by what the run was trained on."""


def _quantize(
    run: Run, wanted: Wanted, material: Material, trial: Trial, made: Json, folder: Path,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    say(f"calibrating on {material.calibrated_on}")
    made |= quantize_folder(folder, wanted, trial, material.calibrated_on, say)
    _write_json(folder, run, wanted, made)


def _convert(run: Run, wanted: Wanted, folder: Path) -> Json:
    """Write the network's files; int8 begins as fp32. Returns what is to be said of them."""
    # OpenVINO is told its arithmetic when a model is loaded; the other two have it in their files.
    stored = wanted.precision if wanted.format != "openvino" else "fp32"
    kind = TYPES.get(stored, torch.float32)
    network: torch.nn.Module
    model = rewritten_for(run.model, wanted.format, wanted.precision, wanted.form)
    finds = get_task(run.task).takes_sizes
    if finds:
        network, said = finders.deployed(run, model, kind, wanted.raw)
    else:
        network, said = Deployed(model, kind, wanted.decide), {"outputs": output_names(wanted.decide)}
    program = trace(network, int(run.meta["in_channels"]), finds)
    if wanted.format == "torch":
        write_program(program, folder)
        return said
    said["nodes"] = write_onnx(program, folder, tuple(said["outputs"]), finds)
    if wanted.format == "openvino":
        onnx_file = folder / FILES["onnx"][0]
        write_openvino(onnx_file, folder, halve=wanted.precision == "fp16")
        onnx_file.unlink()
    return said


def _notes(run: Run) -> tuple[str, ...]:
    notes = []
    if run.meta.get("random_weights"):
        notes.append("the weights are random: this export answers nothing of use")
    if "scales" in get_task(run.task).evaluation_options and not TTA.of_recipe(run.recipe).plain:
        notes.append("the run tests with several views of an image; the export gives one forward pass")
    return tuple(notes)


def _write_json(folder: Path, run: Run, wanted: Wanted, made: Json) -> None:
    told = {
        "format": wanted.format,
        "precision": wanted.precision,
        "form": list(form_of(wanted.format, wanted.precision, wanted.form)),
        **made,
        "files": {name: described(folder / name) for name in FILES[wanted.format]},
        "made_with": _versions(wanted),
    }
    # where the data lay on the machine of the training is of no use elsewhere, and nobody's business there
    data = {key: value for key, value in dict(run.meta.get("data") or {}).items() if key != "source"}
    text = json.dumps({**run.meta, "data": data, "export": told}, indent=2, ensure_ascii=False) + "\n"
    atomic_write_text(folder / JSON_FILE, text)


def _versions(wanted: Wanted) -> dict[str, str]:
    names = ["resurge", "torch", *RUNTIMES[wanted.format], *(["nncf"] if wanted.precision == "int8" else [])]
    return versions(*dict.fromkeys(names), absent="unknown")


def _judge(found: Comparison | ObjectComparison, wanted: Wanted, force: bool) -> None:
    """Raises UserError when too much is lost."""
    if found.drop > wanted.max_drop and not force:
        before_after = found.to_json().get("accuracy")
        measure = (before_after or {}).get("of", "accuracy")
        told = (
            f"{measure} falls from {100 * before_after['before']:.2f} % to {100 * before_after['after']:.2f} %"
            if before_after
            else f"only {100 * found.agreement:.2f} % of the decisions stay as they were"
        )
        advice = "Calibrate on more pictures"
        if wanted.decide:
            advice = "Leave out --classes-out (logits are enlarged more exactly than classes)"
        raise UserError(
            f"the {wanted.precision} export loses {found.drop:.2f} points, more than --max-drop {wanted.max_drop:g}: "
            f"{told}, on {found.images} images. {advice}, take another precision, or --force it."
        )


def _questions(run: Run) -> dict[str, np.ndarray]:
    """One image, eight, and three of another size."""
    seen, channels = run.preprocessing, int(run.meta["in_channels"])
    side = getattr(seen, "size", None) or min(getattr(seen, "short_side", None) or 256, 512)
    noise = np.random.default_rng(0)
    shapes = {"speed_1": (1, side, side), "speed_8": (8, side, side), "other": (3, side + 37, side + 10)}
    return {
        name: noise.standard_normal((count, channels, high, wide)).astype(np.float32)
        for name, (count, high, wide) in shapes.items()
    }


def _alone(
    folder: Path, engine: Engine, wanted: Wanted, made: Json, questions: dict[str, np.ndarray],
    sizes: dict[str, np.ndarray] | None,
) -> Json:  # fmt: skip
    """The self-test: a fresh process answers as this one, which was compared with the run."""

    def check(name: str, answer: dict[str, np.ndarray]) -> None:
        given = None if sizes is None else sizes[name]
        wrong = differing(engine.run(questions[name], given), answer, wanted.precision, made, given)
        if wrong is not None:
            raise UserError(
                f"the exported network answers otherwise when run on its own: {wrong}. The runtime may be faulty; "
                "update it: pip install -U 'resurge[export]'"
            )

    return run_apart(folder, questions, sizes, check)


def _certificate(
    folder: Path, found: Comparison | ObjectComparison, material: Material, alone: Json, made: Json,
    notes: tuple[str, ...],
) -> Json:  # fmt: skip
    return {
        **found.to_json(),
        "drop_points": found.drop,
        "compared_on": material.measured_on,
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.name.startswith("model.")),
        **{key: made[key] for key in ("nodes", "int8") if key in made},
        "images_per_second": alone["speed"],
        "seconds_to_load": alone["seconds_to_load"],
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "notes": list(dict.fromkeys(notes)),
    }


__all__ = ["Wanted", "check", "export"]
