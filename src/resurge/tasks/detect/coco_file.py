"""Detections as a COCO file. Imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from faster_coco_eval.core import mask as run_lengths

from resurge.files import atomic_write_text
from resurge.tasks.detect.predict import Found, as_text
from resurge.tasks.result import Result


class CocoFile:
    """Collects results and writes them as one COCO file with images, categories and annotations."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path = path
        self.categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        self.images: list[dict[str, object]] = []
        self.annotations: list[dict[str, object]] = []
        self._files: list[Path] = []

    def add(self, path: Path, size: tuple[int, int], found: Result) -> None:
        """Take in the result of one image; `size` is its width and height."""
        assert isinstance(found, Found)
        self._files.append(path)
        image_id = len(self._files)
        self.images.append({"id": image_id, "width": size[0], "height": size[1]})
        areas = None if found.masks is None else run_lengths.area(found.masks) if found.masks else []
        for row in range(len(found)):
            left, top, right, bottom = (round(side, 3) for side in found.boxes[row].tolist())
            width, height = round(right - left, 3), round(bottom - top, 3)
            entry: dict[str, object] = {
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
