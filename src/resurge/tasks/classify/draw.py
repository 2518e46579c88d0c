"""Class activation maps for the report of a classifier."""

from __future__ import annotations

from pathlib import Path

import torch

from resurge.explain.attention import write_thumbnails
from resurge.files import Json
from resurge.tasks.evaluation import PreparedImages
from resurge.tasks.task import Network


def write_pictures(network: Network, folder: Path, evaluation: Json, images: PreparedImages) -> None:
    """Thumbnails of the mistakes and examples of an evaluation, with the activation maps of the classes that it says
    were predicted. `images` are those that the evaluation saw."""
    device, seen = next(network.model.parameters()).device, network.preprocessing
    for kind in ("mistakes", "examples"):
        entries = evaluation[kind]
        if not entries:
            continue
        batch = torch.stack([images[entry["index"]][0] for entry in entries]).to(device)
        classes = [network.classes.index(entry["predicted"]) for entry in entries]
        files = write_thumbnails(
            network.model,
            batch,
            folder,
            mean=seen.mean,
            std=seen.std,
            prefix=kind.removesuffix("s"),
            window=seen.window,
            classes=classes,
        )
        for entry, written in zip(entries, files, strict=True):
            entry.update(written)
