"""The files that `resurge predict` writes beside its output: overlays, label maps, explanations, one COCO file."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from PIL import Image

from resurge.errors import UserError
from resurge.explain.heat import save_image
from resurge.explain.overlays import index_image
from resurge.files import atomic_write_text
from resurge.infer.predictor import Predictor
from resurge.tasks.result import Result
from resurge.tasks.table import get_task


class Names:
    """Names for files in one folder, one per image that was read, each made of the name of its image."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, path: Path) -> str:
        """The name for the image at `path`; the same for the same path, another for every other one."""
        if str(path) not in self._given:
            stem = re.sub(r"[^\w.-]+", "_", path.stem) or "image"
            name, number = f"{stem}.png", 1
            while name.casefold() in self._taken:  # some file systems take A.png and a.png for one
                number += 1
                name = f"{stem}-{number}.png"
            self._taken.add(name.casefold())
            self._given[str(path)] = name
        return self._given[str(path)]


class Explanations:
    """A sheet of activation maps per image, and `attention.json` with the weights of every branch and gate."""

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        """Raises UserError for an export, which has no layers to look into."""
        if predictor.run is None:
            raise UserError(
                f"{predictor.folder} is an export, whose layers cannot be looked into. Leave out --explain, or give "
                "the run it was made of."
            )
        self.model, self.preprocessing = predictor.run.model, predictor.preprocessing
        self.of_classes = get_task(predictor.task).explains_classes
        self.folder = folder
        self.written: dict[str, dict[str, object]] = {}

    def write(self, name: str, path: Path, image: Image.Image) -> None:
        """Write the sheet of the image at `path` to the file `name`."""
        from resurge.explain.attention import attention_summary, explain_image
        from resurge.explain.heat import sheet

        batch = self.preprocessing(image).to(next(self.model.parameters()).device)[None]
        shown = self.preprocessing.fit(image) if self.of_classes else image
        pictures = explain_image(self.model, batch, shown, classifier=self.of_classes)
        save_image(sheet(pictures), self.folder / name)
        self.written[name] = {"path": str(path), "attention": attention_summary(self.model, batch)}

    def finish(self) -> None:
        """Write `attention.json`: for each sheet its image, and the mean weight of every branch and gate."""
        atomic_write_text(self.folder / "attention.json", json.dumps(self.written, indent=1, ensure_ascii=False) + "\n")


class ImageFiles:
    """Writes the files that were asked for, per image and at the end.

    Args:
        maps: the folder for label maps, or None.
    """

    def __init__(self, predictor: Predictor, options: argparse.Namespace, maps: str | None) -> None:
        self.task, self.classes = get_task(predictor.task), predictor.classes
        self.overlays = Path(options.overlays) if options.overlays else None
        self.explanations = Explanations(predictor, Path(options.explain)) if options.explain else None
        self.maps = Path(maps) if maps else None
        coco = options.coco_json
        self.annotations = self.task.annotation_file(Path(coco), self.classes) if coco else None
        self.names = Names()

    def map_of(self, path: Path) -> Path | None:
        """Where the label map of an image is written; None where it is not."""
        return None if self.maps is None else self.maps / self.names.of(path)

    def write(self, path: Path, image: Image.Image, result: Result) -> None:
        """Write the files of one image.

        Raises:
            UserError: a file cannot be written.
        """
        map_file = self.map_of(path)
        if map_file is not None and result.label_map is not None:
            save_image(index_image(result.label_map, self.classes), map_file)
        if self.overlays is not None:
            save_image(self.task.draw(image, result, self.classes), self.overlays / self.names.of(path))
        if self.explanations is not None:
            self.explanations.write(self.names.of(path), path, image)
        if self.annotations is not None:
            self.annotations.add(path, image.size, result)

    def finish(self) -> None:
        """Write the files about all images.

        Raises:
            UserError: a file cannot be written.
        """
        if self.explanations is not None:
            self.explanations.finish()
        if self.annotations is not None:
            self.annotations.write()
