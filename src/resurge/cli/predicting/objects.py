"""Objects with boxes, and masks where the network gives them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from faster_coco_eval.core import mask as run_lengths

from resurge.cli.predicting.contract import Asked, Opened
from resurge.cli.predicting.scenes import Pictures, limited
from resurge.explain.overlays import draw_objects
from resurge.files import atomic_write_text
from resurge.tasks.detect.predict import Found, as_text

SCORE = 0.5
"""Objects of a lower score are left out unless the command line says otherwise."""


class Finding:
    """The objects of each picture."""

    takes = frozenset({"score", "overlays", "coco_json", "max_size"})
    batch_size = 1

    def __init__(self, asked: Asked) -> None:
        options, predictor = asked.options, asked.predictor
        self.predictor, self.classes = predictor, predictor.classes
        self.score = SCORE if options.score is None else options.score
        predictor.preprocessing = limited(predictor.preprocessing, options.max_size)
        self.pictures = Pictures(asked, options)
        self.coco = CocoFile(Path(options.coco_json), self.classes) if options.coco_json else None

    def predict(self, images: Sequence[Opened]) -> Iterator[Any]:
        yield from self.predictor.predict([opened.image for opened in images], score=self.score)

    def text(self, opened: Opened, answer: Found) -> str:
        if not len(answer):
            return f"{opened.path}  nothing found"
        counted = Counter(answer.labels.tolist()).most_common()
        counts = ", ".join(f"{number} {self.classes[label]}" for label, number in counted)
        best = f"{self.classes[answer.labels[0]]} {100 * answer.scores[0]:.2f} %"
        return f"{opened.path}  {counts}; surest {best}"

    def json(self, opened: Opened, answer: Found) -> dict[str, Any]:
        return {"width": opened.image.width, "height": opened.image.height, **answer.to_json(self.classes)}

    def csv_head(self) -> list[str]:
        return ["path", "class", "score", "x1", "y1", "x2", "y2"]

    def csv_rows(self, opened: Opened, answer: Found) -> Iterator[list[str]]:
        for box, score, label in zip(
            answer.boxes.tolist(), answer.scores.tolist(), answer.labels.tolist(), strict=True
        ):
            yield [str(opened.path), self.classes[label], f"{score:.6f}", *(f"{side:.2f}" for side in box)]

    def write(self, opened: Opened, answer: Found) -> None:
        picture = None
        if self.pictures.folder is not None:
            picture = draw_objects(
                opened.image,
                answer.boxes,
                answer.labels.tolist(),
                self.classes,
                scores=answer.scores.tolist(),
                masks=answer.decoded(),
            )
        self.pictures.write(opened, picture)
        if self.coco is not None:
            self.coco.add(opened, answer)

    def finish(self) -> None:
        self.pictures.finish()
        if self.coco is not None:
            self.coco.write()


class CocoFile:
    """Gathers what was found and writes it as one COCO file with images, categories and annotations."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path = path
        self.categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._files: list[Path] = []

    def add(self, opened: Opened, found: Found) -> None:
        """Take in one image."""
        self._files.append(opened.path)
        image_id = len(self._files)
        self.images.append({"id": image_id, "width": opened.image.width, "height": opened.image.height})
        areas = None if found.masks is None else run_lengths.area(found.masks) if found.masks else []
        for row in range(len(found)):
            left, top, right, bottom = (round(side, 3) for side in found.boxes[row].tolist())
            width, height = round(right - left, 3), round(bottom - top, 3)
            entry: dict[str, Any] = {
                "id": len(self.annotations) + 1,
                "image_id": image_id,
                "category_id": int(found.labels[row]) + 1,
                "bbox": [left, top, width, height],
                "area": round(width * height, 3) if areas is None else float(areas[row]),
                "iscrowd": 0,
                "score": float(found.scores[row]),
            }
            if found.masks is not None:
                entry["segmentation"] = as_text(found.masks[row])
            self.annotations.append(entry)

    def write(self) -> None:
        """Write the file; images are named from the folder that holds all of them.

        Raises:
            UserError: the file cannot be written.
        """
        whole = [path.absolute() for path in self._files]
        root = os.path.commonpath([path.parent for path in whole]) if whole else ""
        images = [
            {"id": image["id"], "file_name": Path(os.path.relpath(path, root)).as_posix(), **image}
            for image, path in zip(self.images, whole, strict=True)
        ]
        content = {"images": images, "categories": self.categories, "annotations": self.annotations}
        atomic_write_text(self.path, json.dumps(content, ensure_ascii=False) + "\n")
