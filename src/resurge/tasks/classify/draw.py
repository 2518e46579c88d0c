"""Class activation maps for the report of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resurge.explain.attention import write_thumbnails
from resurge.tasks.classify.metrics import LabelledImages
from resurge.tasks.task import Network

EXAMPLES = 12


def write_pictures(network: Network, folder: Path, evaluation: dict[str, Any], images: LabelledImages) -> None:
    """Thumbnails with class activation maps of the mistakes, and of one image per class.

    Args:
        images: those that the evaluation saw.
    """
    mistakes = evaluation["mistakes"]
    pictures = _thumbnails(network, folder, images, [mistake["index"] for mistake in mistakes], "mistake")
    for mistake, files in zip(mistakes, pictures, strict=True):
        mistake.update(files)
    evaluation["examples"] = _examples(network, folder, images)


def _examples(network: Network, folder: Path, images: LabelledImages) -> list[dict[str, Any]]:
    """The first image of each class, with its prediction."""
    first: dict[int, int] = {}
    for index in range(len(images)):
        first.setdefault(images.label(index), index)
    indices = [first[label] for label in sorted(first)][:EXAMPLES]
    with torch.inference_mode():
        shares = network.model(_batch(network, images, indices)).float().softmax(1).cpu()
    confidence, predicted = shares.max(1)
    pictures = _thumbnails(network, folder, images, indices, "example")
    return [
        {
            "id": images.split.id(index),
            "true": network.classes[images.label(index)],
            "predicted": network.classes[int(predicted[row])],
            "confidence": float(confidence[row]),
            **pictures[row],
        }
        for row, index in enumerate(indices)
    ]


def _thumbnails(
    network: Network, folder: Path, images: LabelledImages, indices: Sequence[int], prefix: str
) -> list[dict[str, str]]:
    if not indices:
        return []
    seen, batch = network.preprocessing, _batch(network, images, indices)
    return write_thumbnails(network.model, batch, folder, mean=seen.mean, std=seen.std, prefix=prefix)


def _batch(network: Network, images: LabelledImages, indices: Sequence[int]) -> Tensor:
    device = next(network.model.parameters()).device
    return torch.stack([images[index][0] for index in indices]).to(device)
