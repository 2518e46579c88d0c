"""Pictures that explain: those a run directory keeps for its report, and those `predict --explain` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from resurge.data.bundle import DataBundle, Split
from resurge.explain.attention import attention_summary, write_explanation, write_thumbnails
from resurge.explain.cost import cost
from resurge.explain.diagram import block_scene, network_scene
from resurge.files import atomic_write_text
from resurge.training.run import Run

EXAMPLES = 12


def explain_training(run: Run, evaluation: dict[str, Any], bundle: DataBundle) -> None:
    """`explain_run` as the end of a training calls it."""
    explain_run(run, evaluation, bundle.splits()[evaluation["split"]])


def explain_run(run: Run, evaluation: dict[str, Any], split: Split) -> None:
    """Write `explain/` of a run: diagrams, cost, and thumbnails with class-activation maps of images of `split`.

    The mistakes in `evaluation` get the paths of theirs, and `examples`, one image a class, are added to it.

    Raises:
        UserError: a file cannot be written.
    """
    size = (run.preprocessing.size, run.preprocessing.size)
    channels = run.preprocessing.channels
    folder = run.folder / "explain"
    network_scene(run.spec, size=size, in_channels=channels, num_classes=len(run.classes)).save(folder / "network.svg")
    for stage in range(1, len(run.spec.depths) + 1):
        block_scene(run.spec, stage, size=size, in_channels=channels).save(folder / f"block_{stage}.svg")
    costs = cost(run.model, size)
    atomic_write_text(folder / "cost.json", json.dumps(costs.to_json(), indent=1) + "\n")
    mistakes = evaluation["mistakes"]
    pictures = _thumbnails(run, split, [mistake["index"] for mistake in mistakes], "mistake")
    for mistake, files in zip(mistakes, pictures, strict=True):
        mistake.update(files)
    evaluation["examples"] = _examples(run, split)


def _examples(run: Run, split: Split) -> list[dict[str, Any]]:
    """The first image of each class, with what the network says of it."""
    first: dict[int, int] = {}
    for index, label in enumerate(split.labels):
        first.setdefault(label, index)
    indices = [first[label] for label in sorted(first)][:EXAMPLES]
    with torch.inference_mode():
        shares = run.model(_batch(run, split, indices)).float().softmax(1).cpu()
    confidence, predicted = shares.max(1)
    pictures = _thumbnails(run, split, indices, "example")
    return [
        {
            "id": split.id(index),
            "true": run.classes[split.labels[index]],
            "predicted": run.classes[int(predicted[row])],
            "confidence": float(confidence[row]),
            **pictures[row],
        }
        for row, index in enumerate(indices)
    ]


def _thumbnails(run: Run, split: Split, indices: Sequence[int], prefix: str) -> list[dict[str, str]]:
    if not indices:
        return []
    seen = run.preprocessing
    return write_thumbnails(
        run.model, _batch(run, split, indices), run.folder, mean=seen.mean, std=seen.std, prefix=prefix
    )


def _batch(run: Run, split: Split, indices: Sequence[int]) -> torch.Tensor:
    device = next(run.model.parameters()).device
    return torch.stack([run.preprocessing(split.read(index)) for index in indices]).to(device)


class Overlays:
    """Writes one picture an image into a folder, and `attention.json` with the weights its attention gave."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.written: dict[str, dict[str, Any]] = {}

    def write(self, path: Path, image: Any, tensor: torch.Tensor) -> None:
        """Overlays of one image (a PIL image, and the (C, H, W) tensor the network saw of it).

        Raises:
            UserError: a file cannot be written.
        """
        stem = re.sub(r"[^\w.-]+", "_", path.stem) or "image"
        name, number = f"{stem}.png", 1
        while name in self.written:
            number += 1
            name = f"{stem}-{number}.png"
        batch = tensor.to(next(self.run.model.parameters()).device)[None]
        write_explanation(self.run.model, batch, self.run.preprocessing.fit(image), self.folder / name)
        self.written[name] = {"path": str(path), "attention": attention_summary(self.run.model, batch)}

    def finish(self) -> None:
        """Write `attention.json`: for each picture its image, and the mean weight of every branch and gate."""
        atomic_write_text(self.folder / "attention.json", json.dumps(self.written, indent=1, ensure_ascii=False) + "\n")
