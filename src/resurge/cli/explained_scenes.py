"""For the report of a detector or segmenter: images with what is there beside what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from resurge.cli.predicting.objects import SCORE
from resurge.data.scenes import IGNORE, Objects, Region
from resurge.explain.overlays import BACKGROUND, colour, draw_label_map, draw_objects, save_jpeg
from resurge.infer.predictor import Predictor
from resurge.runs import Run
from resurge.tasks.detect.predict import Found
from resurge.tasks.segment.predict import LabelMap
from resurge.tasks.tta import TTA

SIDE = (288, 360)  # at least and at most, of the longer side of a picture, pixels


def show_objects(run: Run, evaluation: dict[str, Any], split: Any) -> None:
    """Write `explain/KIND_NNN.jpg` (what was found) and `explain/KIND_NNN_truth.jpg` of the examples of an evaluation.

    Each example gets the paths as `overlay` and `thumbnail`, from the run directory. Shown is what has the score that
    `resurge predict` shows; of the surest mistakes also what has their own score.

    Raises:
        UserError: an image cannot be read, or a file cannot be written.
    """
    predictor = Predictor.of_run(run)
    for name, entry in _examples(evaluation):
        image, truth = split.read(entry["index"]), split.target(entry["index"])
        least = min(SCORE, float(entry.get("weight", SCORE)))
        (found,) = predictor.predict([image], score=least)
        assert isinstance(found, Found)
        drawn = draw_objects(
            image,
            found.boxes,
            found.labels.tolist(),
            run.classes,
            scores=found.scores.tolist(),
            masks=found.decoded(),
            at_least=SIDE[0],
            at_most=SIDE[1],
        )
        _save(run, entry, name, drawn, _truth(image, truth, run.classes))


def show_label_maps(run: Run, evaluation: dict[str, Any], split: Any) -> None:
    """As `show_objects`, of a segmenter, asked as the evaluation asked it; the colours stand in `colours`."""
    views, predictor = _views(run, evaluation), Predictor.of_run(run)
    evaluation["colours"] = {
        name: "#" + bytes(colour(index)).hex() for index, name in enumerate(run.classes) if name != BACKGROUND
    }
    for name, entry in _examples(evaluation):
        image, truth = split.read(entry["index"]), split.target(entry["index"])
        (found,) = predictor.predict([image], views=views)
        assert isinstance(found, LabelMap)
        # side by side, two maps are compared best where the same pixels are left out
        labels = np.where(truth == IGNORE, truth, found.classes)
        pictures = [
            draw_label_map(image, values, run.classes, legend=False, at_least=SIDE[0], at_most=SIDE[1])
            for values in (labels, truth)
        ]
        _save(run, entry, name, *pictures)


def _examples(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """("best_000", entry) and so on."""
    for kind, entries in evaluation["examples"].items():
        for number, entry in enumerate(entries):
            yield f"{kind}_{number:03d}", entry


def _views(run: Run, evaluation: Mapping[str, Any]) -> TTA:
    told = evaluation.get("inference")
    if told is not None:
        window = told["window"]
        return TTA(tuple(told["scales"]), told["flip"], None if window is None else (window[0], window[1]))
    return TTA.of_recipe(run.recipe)


def _truth(image: Image.Image, objects: Objects, classes: Sequence[str]) -> Image.Image:
    return draw_objects(
        image,
        objects.boxes,
        objects.labels.tolist(),
        classes,
        masks=None if objects.regions is None else _decoded(objects.regions, image),
        notes=["(crowd)" if crowd else "" for crowd in objects.crowd.tolist()],
        at_least=SIDE[0],
        at_most=SIDE[1],
    )


def _decoded(regions: Sequence[Region], image: Image.Image) -> Iterator[np.ndarray]:
    return (region.decode(image.height, image.width) for region in regions)


def _save(run: Run, entry: dict[str, Any], name: str, found: Image.Image, truth: Image.Image) -> None:
    entry["overlay"], entry["thumbnail"] = f"explain/{name}.jpg", f"explain/{name}_truth.jpg"
    save_jpeg(found, run.folder / entry["overlay"])
    save_jpeg(truth, run.folder / entry["thumbnail"])
