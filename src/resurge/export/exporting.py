"""`export`: from a trained run to a folder that predicts without it, in one of three formats and four precisions.

The network is rewritten (`resurge.optimize.rewrite`), converted, compared with the run on images, and run once in a
process of its own. All of this happens in a folder beside the target, which is renamed at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from resurge.errors import UserError
from resurge.export import detection as finders
from resurge.export.calibration import Material, gather, unreadable
from resurge.export.consistency import differing
from resurge.export.convert import TYPES, WRITERS, Deployed, output_names, trace
from resurge.export.fidelity import Comparison, compare
from resurge.export.fidelity import Run as Predict
from resurge.export.fidelity_maps import Scenes, compare_maps, maps_trial
from resurge.export.fidelity_objects import ObjectComparison
from resurge.export.fidelity_objects import Told as ObjectsTold
from resurge.export.forms import form_of, rewritten_for
from resurge.export.quantize import Trial, classes_trial, quantize_folder
from resurge.export.selftest import run_apart
from resurge.export.settings import MAX_DROP, ExportSettings
from resurge.files import Json, atomic_folder, atomic_write_text
from resurge.infer.engines import Engine, open_engine
from resurge.infer.engines.live import Live
from resurge.infer.folder import CERTIFICATE, FILES, described, read_export, require_free
from resurge.machine import processor, versions
from resurge.model_json import write_model_json
from resurge.runs import Run, load_run
from resurge.tasks.table import get_task
from resurge.tasks.task import Annotation
from resurge.tasks.tta import TTA

IMAGES = 500

Compared = tuple[Comparison | ObjectComparison, Engine, dict[str, np.ndarray], dict[str, np.ndarray] | None]
"""The comparison, the engine it was made with, and images and sizes that it runs on in another process too."""
Reference = tuple[int, Callable[[], Trial], Callable[[Predict], Comparison]]
"""How many images there are, and how int8 and an exported network are compared on them."""


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
        format, precision, calibrate, images, decide, raw, form: see `ExportSettings`.
        max_drop: an export that loses more points than this is refused, unless `force`.
        overwrite: replace an export that is there.
        say: is called with a line for each step.

    Raises:
        UserError: the format or the precision is unknown or they do not go together, a package is not installed, `out`
            is taken or cannot be written, the network cannot be converted, or too much is lost. Nothing is written
            then.
    """
    chosen = None if form is None else tuple(form)
    settings = ExportSettings(format, precision, decide, raw, calibrate, images, max_drop, chosen)
    settings.check()
    target = Path(out)
    require_free(target, overwrite)
    run = source if isinstance(source, Run) else load_run(source)
    _require_possible(run, settings)
    free = partial(require_free, target, overwrite)  # it may have been made meanwhile
    with atomic_folder(target, free, "Choose another place with --out.") as folder:
        return _made(run, settings, folder, force, say)


def _require_possible(run: Run, settings: ExportSettings) -> None:
    finders.require_possible(run, settings.raw)
    if settings.decide and not get_task(run.task).label_maps:
        raise UserError(f"{run.folder} is of the task {run.task}; only a segmenter puts out a class for every pixel.")


def _made(run: Run, settings: ExportSettings, folder: Path, force: bool, say: Callable[[str], None]) -> Json:
    material = gather(run, settings.calibrate)
    if settings.precision == "int8" and not material.real:
        raise UserError(
            "int8 is calibrated on pictures, and the data of the run are not where they were. Name some like those it "
            "will see: --calibrate DIR (a few hundred are enough)."
        )
    say(f"tracing {run.spec}")
    made = _convert(run, settings, folder)
    notes = _notes(run)
    _write_json(folder, run, settings, made)
    compare_export = COMPARISONS[get_task(run.task).annotation]
    comparison, engine, inputs, sizes = compare_export(run, settings, material, made, folder, say)
    _judge(comparison, settings, force)
    say("running it on its own")
    alone = _checked_apart(folder, engine, settings, made, inputs, sizes)
    certificate = _certificate(folder, comparison, material, alone, made, (*notes, *engine.notes))
    atomic_write_text(folder / CERTIFICATE, json.dumps(certificate, indent=2, ensure_ascii=False) + "\n")
    return certificate


def _compared(
    reference_of: Callable[[Run, Live, Material, ExportSettings], Reference], run: Run, settings: ExportSettings,
    material: Material, made: Json, folder: Path, say: Callable[[str], None],
) -> Compared:  # fmt: skip
    """A classifier or segmenter: quantised where that is settings, and compared with the run."""
    count, trial, compare_to = reference_of(run, Live(run), material, settings)
    if settings.precision == "int8":
        _quantize(run, settings, material, trial(), made, folder, say)
    say(f"comparing on {count} of the {material.measured_on}")
    engine = open_engine(read_export(folder), "cpu")
    comparison = compare_to(engine.run)
    if not comparison.images:
        raise unreadable(material.measured_on)
    return comparison, engine, _inputs(run), None


def _decisions(run: Run, original: Live, material: Material, settings: ExportSettings) -> Reference:
    """The reference of a classifier: its images are small, and all in memory."""
    batches = list(material.measured.few(settings.images or IMAGES).batches(run.preprocessing))
    if not batches:
        raise unreadable(material.measured_on)
    told = [(batch, original.run(batch.images)) for batch in batches]
    return (
        sum(len(batch.images) for batch in batches),
        lambda: classes_trial(material, run.preprocessing, told),
        lambda predict: compare(told, predict),
    )


def _maps(run: Run, original: Live, material: Material, settings: ExportSettings) -> Reference:
    """The reference of a segmenter: image by image, since they may be large."""
    scenes = Scenes(material.measured.few(settings.images or IMAGES), run.preprocessing, run.classes)
    return (
        len(scenes.pictures),
        lambda: maps_trial(scenes, original.run, material),
        lambda predict: compare_maps(scenes, original.run, predict),
    )


def _compared_objects(
    run: Run, settings: ExportSettings, material: Material, made: Json, folder: Path, say: Callable[[str], None]
) -> Compared:
    """The same for a detector."""
    count = settings.images or finders.IMAGES
    told: Iterable[ObjectsTold] = finders.told_of(run, Live(run), material, count)
    if settings.precision == "int8":
        told = list(told)
        _quantize(run, settings, material, finders.trial(run, material, told, made), made, folder, say)
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
    run: Run, settings: ExportSettings, material: Material, trial: Trial, made: Json, folder: Path,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    say(f"calibrating on {material.calibrated_on}")
    made |= quantize_folder(folder, settings, trial, material.calibrated_on, say)
    _write_json(folder, run, settings, made)


def _convert(run: Run, settings: ExportSettings, folder: Path) -> Json:
    """Write the network's files; int8 begins as fp32. Returns the part `export` of model.json."""
    # OpenVINO takes its arithmetic when a model is loaded; the other two have it in their files.
    stored = settings.precision if settings.format != "openvino" else "fp32"
    kind = TYPES.get(stored, torch.float32)
    network: torch.nn.Module
    model = rewritten_for(run.model, settings.format, settings.precision, settings.form)
    finds = get_task(run.task).takes_sizes
    if finds:
        network, said = finders.deployed(run, model, kind, settings.raw)
    else:
        network, said = Deployed(model, kind, settings.decide), {"outputs": output_names(settings.decide)}
    program = trace(network, int(run.meta["in_channels"]), finds)
    write = WRITERS[settings.format]
    return said | write(program, folder, tuple(said["outputs"]), finds, settings.precision == "fp16")


def _notes(run: Run) -> tuple[str, ...]:
    notes = []
    if run.meta.get("random_weights"):
        notes.append("the weights are random: this export answers nothing of use")
    if "scales" in get_task(run.task).evaluation_options and not TTA.of_recipe(run.recipe).plain:
        notes.append("the run tests with several views of an image; the export gives one forward pass")
    return tuple(notes)


def _write_json(folder: Path, run: Run, settings: ExportSettings, made: Json) -> None:
    about = {
        "format": settings.format,
        "precision": settings.precision,
        "form": list(form_of(settings.format, settings.precision, settings.form)),
        **made,
        "files": {name: described(folder / name) for name in FILES[settings.format]},
        "made_with": versions(*settings.packages, absent="unknown"),
    }
    # the folder of the data on the machine of the training is of no use elsewhere, and private
    data = {key: value for key, value in dict(run.meta.get("data") or {}).items() if key != "source"}
    write_model_json(folder, {**run.meta, "data": data, "export": about})


def _judge(found: Comparison | ObjectComparison, settings: ExportSettings, force: bool) -> None:
    """Raises UserError when too much is lost."""
    if found.drop > settings.max_drop and not force:
        before_after = found.to_json().get("accuracy")
        measure = (before_after or {}).get("of", "accuracy")
        told = (
            f"{measure} falls from {100 * before_after['before']:.2f} % to {100 * before_after['after']:.2f} %"
            if before_after
            else f"only {100 * found.agreement:.2f} % of the decisions stay as they were"
        )
        advice = "Calibrate on more pictures"
        if settings.decide:
            advice = "Leave out --classes-out (logits are enlarged more exactly than classes)"
        raise UserError(
            f"the {settings.precision} export loses {found.drop:.2f} points, more than --max-drop "
            f"{settings.max_drop:g}: {told}, on {found.images} images. {advice}, take another precision, or --force it."
        )


def _inputs(run: Run) -> dict[str, np.ndarray]:
    """One image, eight, and three of another size."""
    seen, channels = run.preprocessing, int(run.meta["in_channels"])
    side = getattr(seen, "size", None) or min(getattr(seen, "short_side", None) or 256, 512)
    noise = np.random.default_rng(0)
    shapes = {"speed_1": (1, side, side), "speed_8": (8, side, side), "other": (3, side + 37, side + 10)}
    return {
        name: noise.standard_normal((count, channels, high, wide)).astype(np.float32)
        for name, (count, high, wide) in shapes.items()
    }


def _checked_apart(
    folder: Path, engine: Engine, settings: ExportSettings, made: Json, inputs: dict[str, np.ndarray],
    sizes: dict[str, np.ndarray] | None,
) -> Json:  # fmt: skip
    """The consistency check: another process gives the same outputs as this one, which was compared with the run."""

    def check(name: str, answer: dict[str, np.ndarray]) -> None:
        given = None if sizes is None else sizes[name]
        wrong = differing(engine.run(inputs[name], given), answer, settings.precision, made, given)
        if wrong is not None:
            raise UserError(
                f"the exported network answers otherwise when run on its own: {wrong}. The runtime may be faulty; "
                "update it: pip install -U 'resurge[export]'"
            )

    return run_apart(folder, inputs, sizes, check)


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
