"""What `--explain` writes: a sheet of activation maps for each picture, and what its attention weighed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from resurge.cli.predicting.files import Names
from resurge.explain.attention import attention_summary, write_explanation
from resurge.files import atomic_write_text
from resurge.training.run import Run


class Explanations:
    """Writes one sheet an image into a folder, and `attention.json` with the weights its attention gave."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.names = Names()
        self.written: dict[str, dict[str, Any]] = {}

    def write(self, path: Path, image: Image.Image, tensor: torch.Tensor) -> None:
        """The sheet of one image: what stands at `path`, cut to what the network saw, and that as (C, h, w).

        Raises:
            UserError: a file cannot be written.
        """
        batch = tensor.to(next(self.run.model.parameters()).device)[None]
        name = self.names.of(path)
        write_explanation(self.run.model, batch, image, self.folder / name, classifier=self.run.task == "classify")
        self.written[name] = {"path": str(path), "attention": attention_summary(self.run.model, batch)}

    def finish(self) -> None:
        """Write `attention.json`: for each picture its image, and the mean weight of every branch and gate."""
        atomic_write_text(self.folder / "attention.json", json.dumps(self.written, indent=1, ensure_ascii=False) + "\n")
