"""Class activation maps for the report of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from resurge.explain.attention import write_thumbnails
from resurge.files import Json
from resurge.tasks.evaluation import PreparedImages
from resurge.tasks.task import Network

EXAMPLES = 12


def write_pictures(
    network: Network, folder: Path, evaluation: Json, images: PreparedImages, labels: Sequence[int]
) -> None:
    """Thumbnails with class activation maps of the mistakes, and of the first image of each class with its prediction.

    Args:
        images: those that the evaluation saw. labels: theirs.
    """
    device = next(network.model.parameters()).device

    def thumbnails(indices: Sequence[int], prefix: str) -> list[dict[str, str]]:
        if not indices:
            return []
        batch = torch.stack([images[index][0] for index in indices]).to(device)
        seen = network.preprocessing
        return write_thumbnails(
            network.model, batch, folder, mean=seen.mean, std=seen.std, prefix=prefix, window=seen.window
        )

    mistakes = evaluation["mistakes"]
    pictures = thumbnails([mistake["index"] for mistake in mistakes], "mistake")
    for mistake, files in zip(mistakes, pictures, strict=True):
        mistake.update(files)
    first = [labels.index(label) for label in sorted(set(labels))[:EXAMPLES]]
    with torch.inference_mode():
        batch = torch.stack([images[index][0] for index in first]).to(device)
        confidence, predicted = network.model(batch).float().softmax(1).cpu().max(1)
    evaluation["examples"] = [
        {
            "id": images.split.id(index),
            "true": network.classes[labels[index]],
            "predicted": network.classes[int(predicted[row])],
            "confidence": float(confidence[row]),
            **files,
        }
        for row, (index, files) in enumerate(zip(first, thumbnails(first, "example"), strict=True))
    ]
