"""torchvision's names for the tensors of its detectors, as a table read in both directions.

Source: torchvision `models/detection/{faster_rcnn,mask_rcnn,retinanet,rpn,backbone_utils}.py`. The backbone's names are
in `naming`. torchvision counts the background as class 0 and gives COCO 91 classes, its ids from
0; here the background is not counted, so those weights are of models with `num_classes=90`, whose label is id - 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from torch import Tensor

from resurge.arch.spec import Spec
from resurge.errors import UserError
from resurge.weights.layouts import naming
from resurge.weights.layouts.naming import Value

BODY = "backbone.body."
# this project's beginning of a name, torchvision's
PLACES = (
    ("fpn.", "backbone.fpn."),
    ("head.rpn.head.", "rpn.head."),
    ("head.box.heads.0.", "roi_heads.box_head."),
    ("head.box.predictors.0.", "roi_heads.box_predictor."),
    ("head.mask.heads.0.", "roi_heads.mask_head."),
    ("head.mask.predictors.0.", "roi_heads.mask_predictor."),
    ("head.net.classification_head.", "head.classification_head."),
    ("head.net.regression_head.", "head.regression_head."),
)
# Names of the files published before torchvision 0.13 and today's, by what stands before them; the layers of
# RetinaNet's heads were counted with the activations between them.
OLD = (
    (re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(?=weight|bias)"), lambda m: f"{m[1]}.0."),
    (re.compile(r"(rpn\.head\.conv)\.(?=weight|bias)"), lambda m: f"{m[1]}.0.0."),
    (re.compile(r"(roi_heads\.mask_head)\.mask_fcn(\d+)\."), lambda m: f"{m[1]}.{int(m[2]) - 1}.0."),
    (re.compile(r"(head\.\w+_head\.conv)\.(\d+)\.(?=weight|bias)"), lambda m: f"{m[1]}.{int(m[2]) // 2}.0."),
)
# Tensors whose first dimension grows with the number of classes, in a detector or a semantic segmenter.
OF_CLASSES = re.compile(
    r"head\.(box\.predictors\.\d+\.(cls_score|bbox_pred)|mask\.predictors\.\d+\.mask_fcn_logits"
    r"|net\.classification_head\.cls_logits|predict)\.(weight|bias)|auxiliary\.predict\.(weight|bias)"
)
# Published files whose normalisation adds nothing to the variance; torchvision sets eps to 0 for them.
WITHOUT_EPS = ("fasterrcnn_resnet50_fpn_coco-", "maskrcnn_resnet50_fpn_coco-", "retinanet_resnet50_fpn_coco-")
EPS = 1e-5  # what every normalisation here adds


def is_detection(names: Iterable[str]) -> bool:
    """Whether these are tensor names of one of torchvision's detectors with a feature pyramid."""
    return any(name.startswith(BODY) for name in names)


def to_resurge(tensors: Mapping[str, Value], spec: Spec) -> dict[str, Value]:
    """torchvision's tensors under this project's names, those of `DetectionModel`.

    Names that torchvision's detectors do not have are kept as they are: whoever loads the result sees them as
    unexpected.

    Raises:
        UserError: torchvision has no names for a choice of the spec.
    """
    inside = {key.removeprefix(BODY): value for key, value in tensors.items() if key.startswith(BODY)}
    result = {
        name if name.startswith("backbone.") else f"backbone.{name}": value
        for name, value in naming.to_resurge(inside, spec, "torchvision").items()
    }
    for key, value in tensors.items():
        if not key.startswith(BODY):
            result[_renamed(_modern(key), {theirs: ours for ours, theirs in PLACES}) or key] = value
    return result


def from_resurge(tensors: Mapping[str, Value], spec: Spec) -> dict[str, Value]:
    """The tensors of a `DetectionModel` under torchvision's names.

    Raises:
        UserError: torchvision has no such detector (a cascade), or no names for a choice of the spec.
    """
    inside = {key: value for key, value in tensors.items() if key.startswith("backbone.")}
    result = {BODY + key: value for key, value in naming.from_resurge(inside, spec, "torchvision").items()}
    stages = any(key.startswith("head.box.heads.1.") for key in tensors)
    for key, value in tensors.items():
        if key.startswith("backbone."):
            continue
        name = _renamed(key, dict(PLACES))
        if name is None or stages:
            raise UserError(
                f"torchvision has no name for {key!r}: its detectors are faster_rcnn, retinanet and mask_rcnn. Export "
                "with layout 'resurge'."
            )
        result[name] = value
    return result


def add_eps(tensors: dict[str, Tensor], source: str) -> list[str]:
    """Make files that were published for a normalisation without eps exact in one with it; in place.

    w (x - m) / sqrt(v) is w (x - m) / sqrt((v - eps) + eps), so eps is taken off the variances, which may then be below
    zero. The files are known by their names.

    Returns:
        The names of the tensors that changed.
    """
    if not PurePosixPath(source).name.startswith(WITHOUT_EPS):
        return []
    names = [key for key in tensors if key.startswith("backbone.") and key.endswith("running_var")]
    for key in names:
        tensors[key] = tensors[key] - EPS
    return names


def _modern(key: str) -> str:
    for pattern, name in OLD:
        key = pattern.sub(name, key)
    return key


def _renamed(key: str, table: Mapping[str, str]) -> str | None:
    found = next((start for start in table if key.startswith(start)), None)
    return None if found is None else table[found] + key.removeprefix(found)
