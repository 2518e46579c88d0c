"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resurge.cli.options import tta_of
from resurge.cli.predicting.contract import Asked, Opened
from resurge.cli.predicting.files import Names
from resurge.cli.predicting.scenes import Pictures, limited
from resurge.errors import UserError
from resurge.explain.heat import save_png
from resurge.explain.overlays import draw_label_map, index_image
from resurge.tasks.segment.predict import LabelMap


class Segmenting:
    """The label map of each picture."""

    takes = frozenset({"overlays", "max_size", "scales", "flip", "window"})
    batch_size = 1

    def __init__(self, asked: Asked) -> None:
        options, predictor = asked.options, asked.predictor
        self.predictor, self.classes = predictor, predictor.classes
        predictor.preprocessing = limited(predictor.preprocessing, options.max_size)
        self.views = tta_of(options, predictor.views)
        self.pictures = Pictures(asked, options)
        if options.out and Path(options.out).suffix in (".json", ".csv"):
            raise UserError(
                f"--out {options.out}: {predictor.folder} is a segmenter, and --out is the folder its label maps are "
                "written to. Give a folder, and send --json or --csv to a file with > FILE."
            )
        self.folder = Path(options.out) if options.out else None
        self.names = Names()

    def predict(self, images: Sequence[Opened]) -> Iterator[Any]:
        yield from self.predictor.predict([opened.image for opened in images], views=self.views)

    def text(self, opened: Opened, answer: LabelMap) -> str:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, _, share in answer.shares(self.classes))
        return f"{opened.path}  {shares}"

    def json(self, opened: Opened, answer: LabelMap) -> dict[str, Any]:
        plain: dict[str, Any] = {"width": opened.image.width, "height": opened.image.height}
        if self.folder is not None:
            plain["map"] = str(self.folder / self.names.of(opened.path))
        return plain | answer.to_json(self.classes)

    def csv_head(self) -> list[str]:
        return ["path", "class", "pixels", "share"]

    def csv_rows(self, opened: Opened, answer: LabelMap) -> Iterator[list[str]]:
        for name, pixels, share in answer.shares(self.classes):
            yield [str(opened.path), name, str(pixels), f"{share:.6f}"]

    def write(self, opened: Opened, answer: LabelMap) -> None:
        if self.folder is not None:
            save_png(index_image(answer.classes, self.classes), self.folder / self.names.of(opened.path))
        picture = None
        if self.pictures.folder is not None:
            picture = draw_label_map(opened.image, answer.classes, self.classes)
        self.pictures.write(opened, picture)

    def finish(self) -> None:
        self.pictures.finish()
