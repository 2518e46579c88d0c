"""The pictures a run directory keeps for its report."""

from __future__ import annotations

import json

from resurge.arch.backbone import backbone_of
from resurge.data.source import AnnotatedSplit
from resurge.explain.cost import cost
from resurge.explain.diagram import Diagrams
from resurge.files import atomic_write_text
from resurge.runs import Run
from resurge.tasks.evaluation import Evaluation
from resurge.tasks.table import get_task
from resurge.tasks.task import Network


def explain_run(run: Run, evaluation: Evaluation, split: AnnotatedSplit) -> None:
    """Write `explain/` of a run: diagrams, cost, and pictures of images of `split`.

    The entries of `evaluation` that name images get the paths of their pictures.
    """
    task, seen, backbone, folder = get_task(run.task), run.preprocessing, backbone_of(run.model), run.folder / "explain"
    if task.one_size:
        size = (seen.size, seen.size)
    else:  # that of the first image
        image = split.read(0)
        height, width = seen.shape(image.width, image.height)
        size = (height, width)
    diagrams = Diagrams(run.spec, size, seen.channels, backbone.output_stride)
    for stage, scene in enumerate(diagrams.all(len(run.classes) if task.one_size else None)):
        scene.save(folder / (f"block_{stage}.svg" if stage else "network.svg"))
    costs = cost(backbone if task.takes_sizes else run.model, size)
    whole = sum(parameter.numel() for parameter in run.model.parameters())
    plain = costs.to_json(backbone_of=whole if task.takes_sizes else None)
    atomic_write_text(folder / "cost.json", json.dumps(plain, indent=1) + "\n", mark=None)
    task.write_pictures(Network(run.model, seen, run.classes), run.folder, evaluation, split)
