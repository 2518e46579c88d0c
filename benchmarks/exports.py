"""Every format and precision of some runs: does the exported file alone say what the run says?

    python benchmarks/exports.py runs/digits runs/photos runs/detect --count 200
    python benchmarks/exports.py runs/detect --formats onnx,openvino --precisions fp32 --batch 3 --count 10

Each export is made by `resurge export`, as a user would, and then asked by a process that has the export only; the
pictures are the data the run was trained on (its test part where there is one), or those of `--images`. What is
refused is a row too, with the reason. Classifiers and segmenters: share of the decisions (an image's class, a
pixel's) that are the run's, and the largest difference of a probability (of a segmenter: of an image's mean
confidence). Detectors: objects from a score of 0.3 that the other has too, as `certificate.json` counts them.
The rows of earlier commands stay in the file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from resurge.bench.output import Rows
from resurge.errors import UserError
from resurge.export.calibration import Pictures, gather
from resurge.export.fidelity_objects import ObjectComparison
from resurge.infer.formats import FORMATS, PRECISIONS
from resurge.infer.predictor import Predictor
from resurge.machine import described as machine
from resurge.runs import load_run
from resurge.tasks.classify.predict import Classified
from resurge.tasks.detect.predict import Found
from resurge.tasks.result import Result
from resurge.tasks.segment.predict import LabelMap
from resurge.tasks.tta import TTA

RESULT = Path(__file__).parent / "results" / "exports.json"
SAME = ("run", "task", "format", "precision", "batch")
"""What a row is known by: it takes the place of the one before with the same."""
HEAD = f"{'run':<16}{'task':<11}{'format':<10}{'precision':<11}{'MB':>7}{'s':>6}  what it says"


def main() -> None:
    options = _options()
    rows = Rows(options.json, machine("resurge", "torch", "openvino", "onnxruntime", "nncf"))
    rows.rows = _there(options.json, rows.machine)
    print(HEAD)
    for folder in options.runs:
        run = load_run(folder)
        material = gather(run, options.images)
        pictures = material.measured.few(options.count)
        images = list(_readable(pictures))
        expected = _answers(str(folder), images, options.batch)
        said = {"run": folder.name, "task": run.task, "spec": str(run.spec), "images": len(images),
                "of": material.measured_on, "batch": options.batch, "max_drop": options.max_drop}  # fmt: skip
        for format in options.formats.split(","):
            for precision in options.precisions.split(","):
                row = {**said, "format": format, "precision": precision}
                row |= _exported(folder, format, precision, images, expected, run.classes, options)
                rows.rows = [each for each in rows.rows if any(each.get(key) != row[key] for key in SAME)]
                size = "" if "mb" not in row else f"{row['mb']:.1f}"
                rows.add(
                    row,
                    f"{folder.name:<16}{run.task:<11}{format:<10}{precision:<11}{size:>7}{row['seconds']:>6.0f}  "
                    f"{row['summary']}",
                )


def _there(path: Path, on: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of earlier commands, if they are of the same machine and versions: several commands fill one file."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        return list(before["rows"]) if before["machine"] == on else []
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"{path} is not what this script wrote ({error}). Remove it or name another with --json."
        ) from None


def _readable(pictures: Pictures) -> Iterator[Any]:
    for index in pictures.indices:
        with contextlib.suppress(UserError):  # passed over, as an export passes it over
            yield pictures.split.read(index)


def _exported(
    folder: Path, format: str, precision: str, images: list[Any], expected: list[Result], classes: Sequence[str],
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """What became of one export."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "export"
        command = [sys.executable, "-m", "resurge", "export", str(folder), "--format", format]
        command += ["--precision", precision, "--out", str(out)]
        command += ["--max-drop", str(options.max_drop)]
        command += ["--calibrate", options.images] if options.images and precision == "int8" else []
        begin = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True)
        seconds = round(time.perf_counter() - begin, 1)
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("resurge: error: ")
            return {"seconds": seconds, "refused": reason, "summary": f"refused: {reason}"}
        size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
        # a process of its own: nothing of the run is in its memory
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
            found = apart.submit(_answers, str(out), images, options.batch).result()
    return {"mb": round(size, 2), "seconds": seconds, **_compared(expected, found, tuple(classes))}


def _answers(folder: str, images: list[Any], batch: int) -> list[Result]:
    predictor = Predictor(folder)
    return [
        answer
        for begin in range(0, len(images), batch)
        for answer in predictor.predict(images[begin : begin + batch], views=TTA())  # an export has one view
    ]


def _compared(expected: list[Result], found: list[Result], classes: tuple[str, ...]) -> dict[str, Any]:
    """How far the answers of two networks to the same images are apart."""
    if isinstance(expected[0], Found):
        objects = ObjectComparison(classes)
        for old, new in zip(expected, found, strict=True):
            if isinstance(old, Found) and isinstance(new, Found):
                objects.add(old, new, (1, 1), None)
        told = {"objects": objects.before, "same": objects.kept, "agreement": objects.agreement,
                "score": objects.score, "box_px": objects.box, "mask_overlap": objects.mask}  # fmt: skip
        masks = "" if objects.mask is None else f", masks overlap by {objects.mask:.4f} at least"
        return told | {
            "summary": f"{objects.kept} of {objects.before} objects, scores within {objects.score:.1e}, boxes within "
            f"{objects.box:.1e} px{masks}"
        }
    same = decided = 0
    apart = 0.0
    for old, new in zip(expected, found, strict=True):
        if isinstance(old, Classified) and isinstance(new, Classified):
            scores = dict(zip(new.names, new.scores.tolist(), strict=True))
            apart = max(apart, *(abs(score - scores[name]) for name, score in old.best(len(old.names))))
            same, decided = same + (old.names[0] == new.names[0]), decided + 1
        elif isinstance(old, LabelMap) and isinstance(new, LabelMap):
            apart = max(apart, abs(old.confidence - new.confidence))
            same, decided = same + int(np.sum(old.classes == new.classes)), decided + old.classes.size
    what = "images" if isinstance(expected[0], Classified) else "pixels"
    summary = f"{same} of {decided} {what} as the run ({same / decided:.2%}), scores within {apart:.1e}"
    return {"decisions": decided, "same": same, "agreement": same / decided, "score": apart, "summary": summary}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `resurge train`")
    parser.add_argument("--formats", default=",".join(FORMATS), help="default: %(default)s")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="default: %(default)s")
    parser.add_argument("--images", help="pictures to compare and calibrate on (default: the run's data)")
    parser.add_argument("--count", type=int, default=100, help="pictures (default: 100)")
    parser.add_argument("--batch", type=int, default=8, help="images at a time (default: 8)")
    parser.add_argument("--max-drop", type=float, default=0.5, help="points an export may lose (default: 0.5)")
    parser.add_argument("--json", type=Path, default=RESULT, help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
