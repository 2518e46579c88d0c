"""What `resurge predict` writes: the results as text, CSV or JSON, and beside them overlays, label maps, explanations
and one COCO file."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from resurge.data.bands import Picture
from resurge.errors import UserError
from resurge.explain.heat import save_image, sheet
from resurge.explain.overlays import index_image
from resurge.files import atomic_write_bytes, atomic_write_text, require_free, require_ours, sweep
from resurge.infer.predictor import Predictor
from resurge.tasks.result import Result
from resurge.tasks.table import get_task
from resurge.tasks.task import Task
from resurge.untrusted import shown, to_cell

ATTENTION, ATTENTION_MARK = "attention.json", '"attention": '


class Listing:
    """The results in one form: printed as they come, or collected for a file."""

    def __init__(self, style: str, file: str | None, task: Task, classes: Sequence[str], top: int | None) -> None:
        """`style`: text, csv or json. `top`: of a classifier, how many classes per image."""
        self.style, self.file, self.task, self.classes = style, file, task, classes
        self.top = min(top or 1, len(classes))
        self.out = sys.stdout if file is None else io.StringIO()
        self.rows = csv.writer(self.out, lineterminator="\n")
        self.images: list[dict[str, object]] = []
        self.skipped: list[dict[str, str]] = []
        self.mark = '{\n  "skipped": '  # how the file begins
        if style == "csv":
            self.rows.writerow(["path", *task.columns(self.top)])
            self.mark = self.out.getvalue() if isinstance(self.out, io.StringIO) else ""
        if file is not None:
            require_free(file, self.mark)

    def skip(self, path: Path, problem: str) -> None:
        """Take a file that cannot be read."""
        self.skipped.append({"path": str(path), "problem": problem})

    def add(self, path: Path, image: Picture, result: Result, map_file: Path | None) -> None:
        """Take the result of one image. map_file: where its label map is."""
        if self.style == "json":
            plain: dict[str, object] = {"path": str(path)}
            if not self.task.one_size:
                plain |= {"width": image.width, "height": image.height}
            if map_file is not None:
                plain["map"] = str(map_file)
            self.images.append(plain | result.to_json(self.classes, self.top))
        elif self.style == "csv":
            rows = ([str(path), *row] for row in result.to_rows(self.classes, self.top))
            self.rows.writerows(
                [to_cell(shown(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows
            )
        else:
            print(shown(f"{path}  {result.to_text(self.classes, self.top)}"), file=self.out)

    def finish(self) -> None:
        """Print JSON, or write the file."""
        if self.style == "json":
            found = {"skipped": self.skipped, "images": self.images}
            print(json.dumps(found, indent=2, ensure_ascii=False), file=self.out)
        if self.file is not None and isinstance(self.out, io.StringIO):
            atomic_write_bytes(self.file, self.out.getvalue().encode("utf-8", "backslashreplace"), self.mark)


class ImageFiles:
    """Writes the files of the options, per image and at the end. `maps`: the folder for label maps, or None."""

    def __init__(self, predictor: Predictor, options: argparse.Namespace, maps: str | None) -> None:
        self.predictor, self.task, self.classes = predictor, get_task(predictor.task), predictor.classes
        if options.explain and predictor.run is None:
            raise UserError(
                f"{predictor.folder} is an export, whose layers cannot be looked into. Leave out --explain, or give "
                "the run it was made of."
            )
        self.maps, self.overlays, self.explain = (
            Path(folder) if folder else None for folder in (maps, options.overlays, options.explain)
        )
        coco = options.coco_json
        self.annotations = self.task.annotation_file(Path(coco), self.classes) if coco else None
        self.names: set[str] = set()
        self.explained: dict[str, dict[str, object]] = {}

    def write(self, path: Path, image: Picture, result: Result) -> Path | None:
        """Write the files of one image; returns where its label map is."""
        name, map_file = self._name(path), None
        if self.maps is not None and result.label_map is not None:
            map_file = save_image(index_image(result.label_map, self.classes), self.maps / name)
        if self.overlays is not None:
            save_image(self.task.draw(self._shown(image), result, self.classes), self.overlays / name)
        if self.explain is not None:
            self._explain(self.explain / name, path, image)
        if self.annotations is not None:
            self.annotations.add(path, image.size, result)
        return map_file

    def require_free(self, files: Sequence[Path]) -> None:
        """Raises UserError when a file that is to be written for one of the images is there and none of ours."""
        names = [self._name(path) for path in files]
        self.names.clear()
        for folder in filter(None, (self.maps, self.overlays, self.explain)):
            sweep(folder, "*.png", ATTENTION)
            for name in names:
                require_ours(folder / name)
        if self.explain is not None:
            require_free(self.explain / ATTENTION, ATTENTION_MARK)

    def finish(self) -> None:
        """Write the files about all images: of the sheets `attention.json`, with the weights of branches and gates."""
        if self.explain is not None and self.explained:
            text = json.dumps(self.explained, indent=1, ensure_ascii=False)
            atomic_write_text(self.explain / ATTENTION, text + "\n", ATTENTION_MARK)
        if self.annotations is not None:
            self.annotations.write()

    def _name(self, path: Path) -> str:
        """A name for the files of the image at `path`, made of its own; another for every other image."""
        stem = re.sub(r"[^\w.-]+", "_", path.stem) or "image"
        name, number = f"{stem}.png", 1
        while name.casefold() in self.names:  # some file systems take A.png and a.png for one
            number += 1
            name = f"{stem}-{number}.png"
        self.names.add(name.casefold())
        return name

    def _shown(self, image: Picture) -> Image.Image:
        return self.predictor.preprocessing.shown(image)

    def _explain(self, file: Path, path: Path, image: Picture) -> None:
        """A sheet of activation maps, and what the attention weighed."""
        from resurge.explain.attention import attention_summary, explain_image

        assert self.predictor.run is not None
        model, preprocessing = self.predictor.run.model, self.predictor.preprocessing
        batch = preprocessing(image).to(next(model.parameters()).device)[None]
        shown = preprocessing.seen(image) if self.task.explains_classes else self._shown(image)
        save_image(sheet(explain_image(model, batch, shown, classifier=self.task.explains_classes)), file)
        self.explained[file.name] = {"path": str(path), "attention": attention_summary(model, batch)}
