"""Class names and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resurge.cli.predicting.contract import Asked, Opened
from resurge.cli.predicting.explanations import Explanations
from resurge.tasks.classify.predict import Classified


class Classifying:
    """The most probable classes of each picture."""

    takes = frozenset({"top"})
    batch_size = 32

    def __init__(self, asked: Asked) -> None:
        self.predictor, options = asked.predictor, asked.options
        self.top = min(options.top or 1, len(self.predictor.classes))
        self.explanations = Explanations(self.predictor, Path(options.explain)) if options.explain else None

    def predict(self, images: Sequence[Opened]) -> Iterator[Any]:
        yield from self.predictor.predict([opened.image for opened in images])

    def text(self, opened: Opened, answer: Classified) -> str:
        return "  ".join([str(opened.path), *(f"{name} {100 * score:.2f} %" for name, score in answer.best(self.top))])

    def json(self, opened: Opened, answer: Classified) -> dict[str, Any]:
        return answer.to_json(top=self.top)

    def csv_head(self) -> list[str]:
        return ["path", *(f"{what}_{k}" for k in range(1, self.top + 1) for what in ("class", "score"))]

    def csv_rows(self, opened: Opened, answer: Classified) -> Iterator[list[str]]:
        best = answer.best(self.top)
        yield [str(opened.path), *(cell for name, score in best for cell in (name, f"{score:.6f}"))]

    def write(self, opened: Opened, answer: Classified) -> None:
        if self.explanations is not None:
            self.explanations.write(opened.path, opened.image)

    def finish(self) -> None:
        if self.explanations is not None:
            self.explanations.finish()
