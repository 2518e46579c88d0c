"""The pictures a run directory keeps for its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resurge.arch.backbone import backbone_of
from resurge.data.splits import DataBundle
from resurge.explain.cost import cost
from resurge.explain.diagram import block_scene, network_scene
from resurge.files import atomic_write_text
from resurge.runs import Run
from resurge.tasks.table import get_task
from resurge.tasks.task import Network
from resurge.tasks.tta import TTA


def explain_training(run: Run, evaluation: dict[str, Any], bundle: DataBundle) -> None:
    """`explain_run` as the end of a training calls it."""
    explain_run(run, evaluation, bundle.splits()[evaluation["split"]])


def explain_run(run: Run, evaluation: dict[str, Any], split: Any) -> None:
    """Write `explain/` of a run: diagrams, cost, and pictures of images of `split`.

    The entries of `evaluation` that name images get the paths of their pictures.

    Raises:
        UserError: a file cannot be written.
    """
    task = get_task(run.task)
    size = (run.preprocessing.size, run.preprocessing.size) if task.one_size else _usual_size(run, split)
    channels, stride = run.preprocessing.channels, backbone_of(run.model).output_stride
    folder = run.folder / "explain"
    classes = len(run.classes) if task.one_size else None
    drawn = network_scene(run.spec, size=size, in_channels=channels, num_classes=classes, output_stride=stride)
    drawn.save(folder / "network.svg")
    for stage in range(1, len(run.spec.depths) + 1):
        block = block_scene(run.spec, stage, size=size, in_channels=channels, output_stride=stride)
        block.save(folder / f"block_{stage}.svg")
    _write_costs(run, size, folder / "cost.json", task.fixed_cost)
    network = Network(run.model, run.preprocessing, run.classes)
    told = evaluation.get("inference")
    tta = TTA.of_recipe(run.recipe) if told is None else TTA.of_json(told)
    task.write_pictures(network, run.folder, evaluation, split, tta)


def _usual_size(run: Run, split: Any) -> tuple[int, int]:
    """(height, width) that the first image of the split has for the network."""
    image = split.read(0)
    height, width = run.preprocessing.shape(image.width, image.height)
    return height, width


def _write_costs(run: Run, size: tuple[int, int], path: Path, whole: bool) -> None:
    """Cost of the whole network, or, where its work depends on what is in the image, of its backbone."""
    costs = cost(run.model if whole else backbone_of(run.model), size)
    plain = costs.to_json()
    if not whole:
        every = sum(parameter.numel() for parameter in run.model.parameters())
        plain |= {"of": "backbone", "other_parameters": every - costs.parameters}
    atomic_write_text(path, json.dumps(plain, indent=1) + "\n")
