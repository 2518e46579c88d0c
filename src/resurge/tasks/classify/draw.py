"""Class activation maps for the report of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resurge.data.splits import Split
from resurge.explain.attention import write_thumbnails
from resurge.tasks.task import Network

EXAMPLES = 12


def write_pictures(network: Network, folder: Path, evaluation: dict[str, Any], split: Split) -> None:
    """Thumbnails with class activation maps of the mistakes, and of one image per class."""
    mistakes = evaluation["mistakes"]
    pictures = _thumbnails(network, folder, split, [mistake["index"] for mistake in mistakes], "mistake")
    for mistake, files in zip(mistakes, pictures, strict=True):
        mistake.update(files)
    evaluation["examples"] = _examples(network, folder, split)


def _examples(network: Network, folder: Path, split: Split) -> list[dict[str, Any]]:
    """The first image of each class, with its prediction."""
    first: dict[int, int] = {}
    for index, label in enumerate(split.labels):
        first.setdefault(label, index)
    indices = [first[label] for label in sorted(first)][:EXAMPLES]
    with torch.inference_mode():
        shares = network.model(_batch(network, split, indices)).float().softmax(1).cpu()
    confidence, predicted = shares.max(1)
    pictures = _thumbnails(network, folder, split, indices, "example")
    return [
        {
            "id": split.id(index),
            "true": network.classes[split.labels[index]],
            "predicted": network.classes[int(predicted[row])],
            "confidence": float(confidence[row]),
            **pictures[row],
        }
        for row, index in enumerate(indices)
    ]


def _thumbnails(
    network: Network, folder: Path, split: Split, indices: Sequence[int], prefix: str
) -> list[dict[str, str]]:
    if not indices:
        return []
    seen, batch = network.preprocessing, _batch(network, split, indices)
    return write_thumbnails(network.model, batch, folder, mean=seen.mean, std=seen.std, prefix=prefix)


def _batch(network: Network, split: Split, indices: Sequence[int]) -> Tensor:
    device = next(network.model.parameters()).device
    return torch.stack([network.preprocessing(split.read(index)) for index in indices]).to(device)
