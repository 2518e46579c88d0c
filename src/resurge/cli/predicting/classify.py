"""Class names and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from resurge.cli.predicting.contract import Asked, Opened
from resurge.cli.predicting.explanations import Explanations

Answer = tuple[tuple[str, float], ...]  # the most probable classes, best first


class Classifying:
    """The most probable classes of each picture."""

    takes = frozenset({"top"})
    batch_size = 32

    def __init__(self, asked: Asked) -> None:
        self.run, self.device = asked.run, asked.device
        self.top = min(asked.options.top or 1, len(self.run.classes))
        self.explanations = Explanations(self.run, Path(asked.options.explain)) if asked.options.explain else None
        self._seen: dict[Path, torch.Tensor] = {}

    def predict(self, images: Sequence[Opened]) -> Iterator[Answer]:
        tensors = [self.run.preprocessing(opened.image) for opened in images]
        if self.explanations is not None:
            self._seen = {opened.path: tensor for opened, tensor in zip(images, tensors, strict=True)}
        with torch.inference_mode():
            shares = self.run.model(torch.stack(tensors).to(self.device)).float().softmax(1).cpu()
        best = shares.topk(self.top, 1)
        for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            yield tuple((self.run.classes[index], value) for index, value in zip(indices, values, strict=True))

    def text(self, opened: Opened, answer: Answer) -> str:
        return "  ".join([str(opened.path), *(f"{name} {100 * score:.2f} %" for name, score in answer)])

    def json(self, opened: Opened, answer: Answer) -> dict[str, Any]:
        return {"predictions": [{"class": name, "score": score} for name, score in answer]}

    def csv_head(self) -> list[str]:
        return ["path", *(f"{what}_{k}" for k in range(1, self.top + 1) for what in ("class", "score"))]

    def csv_rows(self, opened: Opened, answer: Answer) -> Iterator[list[str]]:
        yield [str(opened.path), *(cell for name, score in answer for cell in (name, f"{score:.6f}"))]

    def write(self, opened: Opened, answer: Answer) -> None:
        if self.explanations is not None:
            shown = self.run.preprocessing.fit(opened.image)
            self.explanations.write(opened.path, shown, self._seen[opened.path])

    def finish(self) -> None:
        if self.explanations is not None:
            self.explanations.finish()
