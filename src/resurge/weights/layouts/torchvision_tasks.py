"""torchvision's names for the tensors of its detectors and segmentation networks, as tables read in both directions.

Source: torchvision `models/detection/{faster_rcnn,mask_rcnn,retinanet,rpn,backbone_utils}.py` and
`models/segmentation/{fcn,deeplabv3,_utils}.py`. The backbone's names are in `naming`. torchvision counts the background
of a detector as class 0 and gives COCO 91 classes, its ids from 0; here the background is not counted, so those weights
are of models with `num_classes=90`, whose label is id - 1.
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
from resurge.weights.layouts.tables import Pairs

BODY = "backbone.body."  # how the names of a detector's backbone begin
# How names begin: this project's, torchvision's.
DETECTORS: Pairs = (
    ("fpn.", "backbone.fpn."),
    ("head.rpn.head.", "rpn.head."),
    ("head.box.heads.0.", "roi_heads.box_head."),
    ("head.box.predictors.0.", "roi_heads.box_predictor."),
    ("head.mask.heads.0.", "roi_heads.mask_head."),
    ("head.mask.predictors.0.", "roi_heads.mask_predictor."),
    ("head.net.classification_head.", "head.classification_head."),
    ("head.net.regression_head.", "head.regression_head."),
)
# The same inside the head of a segmentation network; `{i}` counts the branches of the atrous pyramid.
FCN: Pairs = (("conv.conv.", "0."), ("conv.norm.", "1."), ("predict.", "4."))
DEEPLABV3: Pairs = (
    ("branches.{i}.conv.", "0.convs.{i}.0."),
    ("branches.{i}.norm.", "0.convs.{i}.1."),
    ("pooled.conv.", "0.convs.{last}.1."),
    ("pooled.norm.", "0.convs.{last}.2."),
    ("project.conv.", "0.project.0."),
    ("project.norm.", "0.project.1."),
    ("conv.conv.", "1."),
    ("conv.norm.", "2."),
    ("predict.", "4."),
)
BRANCH = re.compile(r"(?:classifier\.0\.convs|head\.branches)\.(\d+)\.")
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


def is_of_task(names: Iterable[str]) -> bool:
    """Whether these are tensor names of one of torchvision's detectors or segmentation networks.

    A bare `classifier.weight`, as a classifier may call its last layer, is none.
    """
    return any(name.startswith((BODY, "classifier.0.", "aux_classifier.0.")) for name in names)


def to_resurge(tensors: Mapping[str, Value], spec: Spec) -> dict[str, Value]:
    """torchvision's tensors under this project's names, those of `DetectionModel` or `SegmentationModel`.

    Names that torchvision does not have are kept as they are: whoever loads the result sees them as unexpected.

    Raises:
        UserError: torchvision has no names for a choice of the spec.
    """
    detector = any(key.startswith(BODY) for key in tensors)
    body = BODY if detector else "backbone."
    places = {theirs: ours for ours, theirs in (DETECTORS if detector else _segmenter(tensors, pooled=1))}
    inside = {key.removeprefix(body): value for key, value in tensors.items() if key.startswith(body)}
    result = {
        name if name.startswith("backbone.") else f"backbone.{name}": value
        for name, value in naming.to_resurge(inside, spec, "torchvision").items()
    }
    for key, value in tensors.items():
        if not key.startswith(body):
            name = key
            for pattern, modern in OLD:
                name = pattern.sub(modern, name)
            result[_renamed(name, places) or key] = value
    return result


def from_resurge(tensors: Mapping[str, Value], spec: Spec) -> dict[str, Value]:
    """The tensors of a `DetectionModel` or `SegmentationModel` under torchvision's names.

    Raises:
        UserError: torchvision has no such head (a cascade, PSPNet), or no names for a choice of the spec.
    """
    detector = any(key.startswith("fpn.") for key in tensors)
    cascade = any(key.startswith("head.box.heads.1.") for key in tensors)
    places = dict(DETECTORS if detector else _segmenter(tensors, pooled=0))
    inside = {key: value for key, value in tensors.items() if key.startswith("backbone.")}
    body = BODY if detector else "backbone."
    result = {body + key: value for key, value in naming.from_resurge(inside, spec, "torchvision").items()}
    for key, value in tensors.items():
        if key in inside:
            continue
        name = _renamed(key, places)
        if name is None or cascade:
            have = "detectors are faster_rcnn, retinanet and mask_rcnn"
            if not detector:
                have = "segmentation networks are fcn and deeplabv3"
            raise UserError(f"torchvision has no name for {key!r}: its {have}. Export with layout 'resurge'.")
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


def _segmenter(names: Iterable[str], *, pooled: int) -> Pairs:
    """Both heads of a segmentation network. How many branches there are is read off the names, of which torchvision
    counts the pooled one as the last."""
    branches = 1 + max((int(match[1]) for match in map(BRANCH.match, names) if match), default=pooled - 1) - pooled
    head = [("head.", "classifier.", pair) for pair in (DEEPLABV3 if branches else FCN)]
    return tuple(
        (ours + left.format(i=i), theirs + right.format(i=i, last=branches))
        for ours, theirs, (left, right) in (*head, *(("auxiliary.", "aux_classifier.", pair) for pair in FCN))
        for i in range(branches if "{i}" in left else 1)
    )


def _renamed(key: str, places: Mapping[str, str]) -> str | None:
    start = next((start for start in places if key.startswith(start)), None)
    return None if start is None else places[start] + key.removeprefix(start)
