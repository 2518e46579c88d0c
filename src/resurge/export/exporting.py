"""`export`: from a trained run to a folder that predicts without it, in one of three formats and four precisions.

The network is rewritten (`resurge.optimize.rewrite`), converted, compared with the run on images, and run once in a
process of its own. All of this happens in a folder beside the target, which is renamed at the end.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import torch

from resurge.errors import UserError
from resurge.export.calibration import Batch, ExportData, gather
from resurge.export.consistency import differing
from resurge.export.convert import LOGITS, TYPES, Deployed, Writer, trace
from resurge.export.fidelity import Comparison, Outputs
from resurge.export.quantize import quantize_folder
from resurge.export.reference import Reference
from resurge.export.selftest import Cases, self_test
from resurge.export.settings import ExportSettings, form_of, rewritten_for
from resurge.files import Json, atomic_folder, atomic_write_text, require_apart
from resurge.infer.engines import Engine, open_engine
from resurge.infer.folder import CERTIFICATE, described, own_files, read_export, require_free
from resurge.infer.formats import FORMATS
from resurge.machine import processor, versions
from resurge.quantities import number_of
from resurge.run_files import write_model_json
from resurge.runs import Run, load_run
from resurge.tasks.detect.model import DetectionModel, ExportedDetector
from resurge.tasks.table import get_task
from resurge.tasks.tta import TTA


def export(
    source: Run | str | os.PathLike[str], out: str | os.PathLike[str], settings: ExportSettings = ExportSettings(), *,
    force: bool = False, overwrite: bool = False, log: Callable[[str], None] = lambda line: None,
) -> Json:  # fmt: skip
    """Write an export folder; returns its certificate.

    Args:
        source: a run, or its folder.
        out: the folder to make.
        force: keep an export that loses more than `settings.max_drop` points.
        overwrite: replace an export that is there; what else is in its folder stays.
        log: called with a line per step.

    Raises:
        UserError: the format or the precision is unknown or they do not go together, a package is not installed, `out`
            is taken, is at, in or above the data or cannot be written, the network cannot be converted, or too much is
            lost. Nothing is written then.
    """
    settings.check()
    target = Path(out)
    require_free(target, overwrite)
    run = source if isinstance(source, Run) else load_run(source)
    _require_possible(run, settings)
    require_apart(target, (settings.calibrate, *((run.recipe.data, run.recipe.val) if run.recipe else ())))
    free = partial(require_free, target, overwrite)  # it may have been made meanwhile
    with atomic_folder(target, free, "Choose another place with --out.", own_files) as folder:
        return _made(run, settings, folder, force, log)


def _require_possible(run: Run, settings: ExportSettings) -> None:
    task = get_task(run.task)
    if settings.decide and not task.label_maps:
        raise UserError(f"{run.folder} is of the task {run.task}; only a segmenter puts out a class for every pixel.")
    if settings.raw and not task.takes_sizes:
        raise UserError(
            f"{run.folder} is of the task {run.task}; only a detector has candidates to put out raw. Leave out --raw."
        )
    if settings.raw and task.masks:
        raise UserError(
            f"{run.folder} is of the task instances: its masks are made for the objects that are kept, so that there "
            "are none before that. Leave out --raw."
        )


def _made(run: Run, settings: ExportSettings, folder: Path, force: bool, log: Callable[[str], None]) -> Json:
    data = gather(run, settings.calibrate)
    if settings.precision == "int8" and not data.real:
        raise UserError(
            "int8 is calibrated on pictures, and the data of the run are not where they were. Name some like those it "
            "will see: --calibrate DIR (a few hundred are enough)."
        )
    log(f"tracing {run.spec}")
    made = _convert(run, settings, folder)
    _write_json(folder, run, settings, made)
    reference = Reference(run, data, settings.images, made)
    if settings.precision == "int8":
        log(f"calibrating on {data.calibrated_on}")
        made |= quantize_folder(folder, settings, reference, log)
        _write_json(folder, run, settings, made)
    log(f"comparing on {len(reference.pictures)} of the {data.measured_on}")
    engine = open_engine(read_export(folder), "cpu")
    comparison = reference.compare(lambda inputs: engine.run(*inputs.values()))
    _judge(comparison, settings, force)
    log("running it on its own")
    alone = self_test(folder, _cases(reference), partial(_require_same, engine, settings.precision, made))
    notes = (*_notes(run), *_compared(comparison), *engine.notes)
    certificate = _certificate(folder, comparison, data, alone, made, notes)
    atomic_write_text(folder / CERTIFICATE, json.dumps(certificate, indent=2, ensure_ascii=False) + "\n")
    return certificate


def _convert(run: Run, settings: ExportSettings, folder: Path) -> Json:
    """Write the network's files; int8 begins as fp32. Returns the part `export` of model.json."""
    format, task = FORMATS[settings.format], get_task(run.task)
    kind = TYPES.get(settings.precision if format.stores_arithmetic else "fp32", torch.float32)
    model = rewritten_for(run.model, settings.format, settings.precision, settings.form)
    network: torch.nn.Module
    made: Json = {}
    if isinstance(model, DetectionModel):
        network = ExportedDetector(model, kind, settings.raw)
        made["outputs"] = ["boxes", "scores", "labels", *(["masks"] if task.masks else [])]
        if settings.raw:
            numbers = model.settings
            made["suppression"] = {
                "score": numbers.score_threshold,
                "overlap": numbers.nms_threshold,
                "most": numbers.max_detections,
                "smallest": model.head.smallest,
            }
    else:
        network = Deployed(model, kind, settings.decide)
        made["outputs"] = ["classes", "confidence"] if settings.decide else list(LOGITS)
    program = trace(network, int(run.meta["in_channels"]), task.takes_sizes)
    write: Writer = resolve_name(format.writer)
    return made | write(program, folder, made["outputs"], settings.precision == "fp16")


def _notes(run: Run) -> tuple[str, ...]:
    notes = []
    if run.meta.get("random_weights"):
        notes.append("the weights are random: its predictions mean nothing")
    own = None if run.recipe is None else run.recipe.machine.precision
    if own not in (None, "fp32"):
        notes.append(f"the run is compared as it computes in fp32; its own scores were computed in {own}")
    if "scales" in get_task(run.task).evaluation_options and not TTA.of_recipe(run.recipe).plain:
        notes.append("the run uses test-time augmentation; the export makes one forward pass per image")
    return tuple(notes)


def _compared(found: Comparison) -> Iterator[str]:
    """What a comparison does not say."""
    if found.agreement is None:
        yield (
            "nothing was compared but the shapes, in the self-test too: neither the run nor the export finds an object "
            "in these images; name images with objects: --calibrate DIR"
        )
    if found.drop > 0 and not math.isfinite(found.interval[0]):
        yield "one image does not tell how much is lost: compare on more"


def _write_json(folder: Path, run: Run, settings: ExportSettings, made: Json) -> None:
    about = {
        "format": settings.format,
        "precision": settings.precision,
        "form": list(form_of(settings.format, settings.precision, settings.form)),
        **made,
        "files": {name: described(folder / name) for name in FORMATS[settings.format].files},
        "made_with": versions(*settings.packages, absent="unknown"),
    }
    # the folder of the data on the machine of the training is of no use elsewhere, and private
    data = {key: value for key, value in dict(run.meta.get("data") or {}).items() if key != "source"}
    write_model_json(folder, {**run.meta, "data": data, "export": about})


def _judge(found: Comparison, settings: ExportSettings, force: bool) -> None:
    """Raises UserError when too much is lost."""
    low, high = found.interval
    # what a few images show may be chance: only a loss that is more than allowed in all images like them is refused
    if found.drop <= settings.max_drop or -math.inf < low <= settings.max_drop or force:
        return
    loss = f"only {100 * found.quality:.2f} % of the decisions stay as they were"
    if found.labelled:
        before, after = (100 * score for score in found.accuracy())
        loss = f"{found.measure or 'accuracy'} falls from {before:.2f} % to {after:.2f} %"
    advice = "Calibrate on more pictures"
    if settings.decide:
        advice = "Leave out --classes-out (logits are enlarged more exactly than classes)"
    raise UserError(
        f"the {settings.precision} export loses {found.drop:.2f} points, more than --max-drop {settings.max_drop:g}: "
        f"{loss}, on {number_of(found.images, 'image')}{_between(low, high)}. {advice}, take another precision, or "
        "--force it."
    )


def _between(low: float, high: float) -> str:
    return f" (95 % interval of the loss: {low:.2f} to {high:.2f} points)" if math.isfinite(low) else ""


def _cases(reference: Reference) -> Cases:
    """Images, and their sizes without padding, for the self-test: one, several, and some of another size."""
    run = reference.run
    if reference.task.takes_sizes:
        batch = _with_objects(reference)
        images, sizes = batch.images, batch.sizes
        few = {1: images[:1], len(images): images}
        uneven = np.pad(images[:1], ((0, 0), (0, 0), (0, 37), (0, 10)))  # no multiple of anything
        cases = {**{f"speed_{count}": values for count, values in few.items()}, "other": uneven}
        return {name: (values, sizes[: len(values)]) for name, values in cases.items()}
    seen, channels = run.preprocessing, int(run.meta["in_channels"])
    side = getattr(seen, "size", None) or min(getattr(seen, "short_side", None) or 256, 512)
    noise = np.random.default_rng(0)
    shapes = {"speed_1": (1, side, side), "speed_8": (8, side, side), "other": (3, side + 37, side + 10)}
    return {
        name: (noise.standard_normal((count, channels, *size)).astype(np.float32), np.array([size] * count))
        for name, (count, *size) in shapes.items()
    }


def _with_objects(reference: Reference) -> Batch:
    """The first batch in which the run finds something, for there is nothing to compare in another; else the first."""
    found = (batch for batch, outputs in reference.expected() if outputs["scores"].max(initial=0.0) > 0)
    return next(found, None) or next(reference.batches(reference.pictures))


def _require_same(
    engine: Engine, precision: str, made: Json, images: np.ndarray, sizes: np.ndarray, apart: Outputs
) -> None:
    """The consistency check: another process gives the same outputs as this one, which was compared with the run."""
    wrong = differing(engine.run(images, sizes), apart, precision, made, sizes)
    if wrong is not None:
        raise UserError(
            f"the exported network gives other outputs when run on its own: {wrong}. The runtime may be faulty; "
            "update it: pip install -U 'resurge[export]'"
        )


def _certificate(
    folder: Path, found: Comparison, data: ExportData, alone: Json, made: Json, notes: tuple[str, ...]
) -> Json:
    return {
        **found.to_json(),
        "compared_on": data.measured_on,
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.name.startswith("model.")),
        **{key: made[key] for key in ("nodes", "int8") if key in made},
        "images_per_second": alone["speed"],
        "seconds_to_load": alone["seconds_to_load"],
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "notes": list(dict.fromkeys(notes)),
    }
