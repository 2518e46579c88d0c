"""What `--explain` writes: a sheet of activation maps for each picture, and what its attention weighed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from resurge.cli.predicting.files import Names
from resurge.errors import UserError
from resurge.files import atomic_write_text
from resurge.infer.predictor import Predictor


class Explanations:
    """Writes one sheet an image into a folder, and `attention.json` with the weights its attention gave."""

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        """Raises UserError for an export, which has no layers to look into."""
        if predictor.run is None:
            raise UserError(
                f"{predictor.folder} is an export, whose layers cannot be looked into. Leave out --explain, or give "
                "the run it was made of."
            )
        self.run, self.preprocessing = predictor.run, predictor.preprocessing
        self.folder = folder
        self.names = Names()
        self.written: dict[str, dict[str, Any]] = {}

    def write(self, path: Path, image: Image.Image) -> None:
        """The sheet of one image, which stands at `path`.

        Raises:
            UserError: a file cannot be written.
        """
        from resurge.explain.attention import attention_summary, write_explanation

        classifier = self.run.task == "classify"
        batch = self.preprocessing(image).to(next(self.run.model.parameters()).device)[None]
        shown = self.preprocessing.fit(image) if classifier else image
        name = self.names.of(path)
        write_explanation(self.run.model, batch, shown, self.folder / name, classifier=classifier)
        self.written[name] = {"path": str(path), "attention": attention_summary(self.run.model, batch)}

    def finish(self) -> None:
        """Write `attention.json`: for each picture its image, and the mean weight of every branch and gate."""
        atomic_write_text(self.folder / "attention.json", json.dumps(self.written, indent=1, ensure_ascii=False) + "\n")
