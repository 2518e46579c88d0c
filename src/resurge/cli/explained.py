"""The pictures a run directory keeps for its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from resurge.arch.backbone import backbone_of
from resurge.data.bundle import DataBundle, Split
from resurge.explain.attention import write_thumbnails
from resurge.explain.cost import CostReport, cost
from resurge.explain.diagram import block_scene, network_scene
from resurge.files import atomic_write_text
from resurge.runs import Run

EXAMPLES = 12


def explain_training(run: Run, evaluation: dict[str, Any], bundle: DataBundle) -> None:
    """`explain_run` as the end of a training calls it."""
    explain_run(run, evaluation, bundle.splits()[evaluation["split"]])


def explain_run(run: Run, evaluation: dict[str, Any], split: Any) -> None:
    """Write `explain/` of a run: diagrams, cost, and pictures of images of `split`.

    The entries of `evaluation` that name images get the paths of their pictures.

    Raises:
        UserError: a file cannot be written.
    """
    classifier = run.task == "classify"
    size = (run.preprocessing.size, run.preprocessing.size) if classifier else _usual_size(run, split)
    channels, stride = run.preprocessing.channels, backbone_of(run.model).output_stride
    folder = run.folder / "explain"
    classes = len(run.classes) if classifier else None
    drawn = network_scene(run.spec, size=size, in_channels=channels, num_classes=classes, output_stride=stride)
    drawn.save(folder / "network.svg")
    for stage in range(1, len(run.spec.depths) + 1):
        block = block_scene(run.spec, stage, size=size, in_channels=channels, output_stride=stride)
        block.save(folder / f"block_{stage}.svg")
    _write_costs(run, size, folder / "cost.json")
    PICTURES[run.task](run, evaluation, split)


def _usual_size(run: Run, split: Any) -> tuple[int, int]:
    """(height, width) that the first image of the split has for the network."""
    image = split.read(0)
    height, width = run.preprocessing.shape(image.width, image.height)
    return height, width


def _write_costs(run: Run, size: tuple[int, int], path: Path) -> None:
    """Cost of the whole network, or, where what it does depends on what is in the image, of its backbone."""
    whole = run.task in ("classify", "segment")
    costs: CostReport = cost(run.model if whole else backbone_of(run.model), size)
    plain = costs.to_json()
    if not whole:
        every = sum(parameter.numel() for parameter in run.model.parameters())
        plain |= {"of": "backbone", "other_parameters": every - costs.parameters}
    atomic_write_text(path, json.dumps(plain, indent=1) + "\n")


# ------------------------------------------------------------------------------------------------ classification


def _classified(run: Run, evaluation: dict[str, Any], split: Split) -> None:
    """Thumbnails with class-activation maps of the mistakes, and of one image a class."""
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


# ------------------------------------------------------------------------------------------------------- scenes


def _objects(run: Run, evaluation: dict[str, Any], split: Any) -> None:
    from resurge.cli.explained_scenes import show_objects

    show_objects(run, evaluation, split)


def _label_maps(run: Run, evaluation: dict[str, Any], split: Any) -> None:
    from resurge.cli.explained_scenes import show_label_maps

    show_label_maps(run, evaluation, split)


PICTURES: dict[str, Callable[[Run, dict[str, Any], Any], None]] = {
    "classify": _classified,
    "detect": _objects,
    "instances": _objects,
    "segment": _label_maps,
}
