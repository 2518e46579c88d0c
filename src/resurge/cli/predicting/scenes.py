"""What finding objects and segmenting have in common: sizes, overlays, explanations."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from PIL import Image

from resurge.cli.predicting.contract import Asked, Opened
from resurge.cli.predicting.explanations import Explanations
from resurge.cli.predicting.files import Names
from resurge.explain.heat import save_png


def limited(preprocessing: Any, max_size: int | None) -> Any:
    """The preprocessing with another limit of the longer side; None keeps it."""
    if max_size is None:
        return preprocessing
    short = preprocessing.short_side
    return dataclasses.replace(
        preprocessing, max_size=max_size, short_side=None if short is None else min(short, max_size)
    )


class Pictures:
    """The pictures asked for by --overlays and --explain, a file of each for an image."""

    def __init__(self, asked: Asked, options: argparse.Namespace) -> None:
        self.folder = Path(options.overlays) if options.overlays else None
        self.names = Names()
        self.explained = Explanations(asked.predictor, Path(options.explain)) if options.explain else None

    def write(self, opened: Opened, picture: Image.Image | None) -> None:
        """Write what was asked for. `picture` is the overlay.

        Raises:
            UserError: a file cannot be written.
        """
        if self.folder is not None and picture is not None:
            save_png(picture, self.folder / self.names.of(opened.path))
        if self.explained is not None:
            self.explained.write(opened.path, opened.image)

    def finish(self) -> None:
        if self.explained is not None:
            self.explained.finish()
