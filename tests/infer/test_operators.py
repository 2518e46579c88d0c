"""The list of operators that a program may contain: all that exports contain, and no other."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

import resurge
from resurge.arch.surgery import NORMS, convert_norm
from resurge.export.convert import TYPES, Deployed, trace, write_program
from resurge.export.settings import EXPORTED
from resurge.infer.engines import archive
from resurge.infer.engines.archive import OPERATORS, vetted
from resurge.optimize.rewrite import ALWAYS, rewrite
from resurge.tasks.detect.model import ExportedDetector
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.table import TASKS

KINDS = (torch.float32, *TYPES.values())
FINDERS = ("resnet18 depths=(1,) planes=(8,) stem=conv7x7(8)", "resnest50 depths=(1,1) planes=(8,16)")
CLASSIFIERS = (
    "resnet50",
    "resnet50 stem=deep(8) shortcut=avg",
    "resnet50 stem=conv3x3(8) shortcut=zeropad",
    "resnet50 block=bottleneck(stride_in=reduce)",
    "resnet50 transform=avgdown(conv3x3)",
    "resnet50 groups=16 base_width=16",
    "resnext50_32x4d groups=8",
    "resnet18 gate=se",
    "seresnext50_32x4d groups=4",
    "skresnext50_32x4d groups=4",
    "resnet50 transform=sk(branches=3)",
    "resnet50 transform=sk(split_input=true)",
    "res2net50_26w_4s base_width=64",
    "resnest50",
    "resnest50 gate=se",
    "resnest50 groups=2",
    "resnest50 groups=2 transform=avgdown(split(radix=4))",
    "resnest50 transform=avgdown(split(radix=1))",
    "resnest50 transform=avgdown(split(radix=2),before=true)",
    "resnet50 base_width=96 transform=split(radix=3)",
    "resnet18 transform=split(radix=2)",
    "resnet50 transform=deform(conv3x3,first_stage=1)",
    "resnest50 transform=deform(avgdown(split(radix=2)),first_stage=2)",
)
JOINT = ("absorb_mix", "absorb_narrow_mix", "one_product")  # for branches that are not separated
FORMS = ((), tuple(name for name in EXPORTED if name not in JOINT), JOINT[:1], JOINT[1:])


def classifier(spec: str, form: tuple[str, ...], kind: torch.dtype = torch.float32, norm: str = "batch") -> nn.Module:
    model = convert_norm(resurge.create_model(f"{spec} depths=(2,1) planes=(16,32)", 7), norm)
    return Deployed(rewrite(model, (*ALWAYS, *form)), kind)


def segmenter(head: str, stride: int = 32, kind: torch.dtype = torch.float32, decide: bool = True) -> nn.Module:
    settings = Segmenter(output_stride=stride, head_channels=8)
    spec = "resnet18 depths=(1,1,1,1) planes=(8,8,16,16) stem=conv7x7(8)"
    model = resurge.create_model(spec, 3, task="segment", head=head, segmenter=settings)
    return Deployed(rewrite(model), kind, decide)


def finder(head: str, spec: str, kind: torch.dtype = torch.float32, raw: bool = False) -> nn.Module:
    rich = spec != FINDERS[0]
    settings = Detector(
        fpn_channels=8, box_channels=16, mask_channels=8, rpn_proposals_test=20, max_detections=10, head_norm=rich,
        box_head="4conv1fc" if rich else "2fc", rpn_convs=1 + rich,
    )  # fmt: skip
    task = next(name for name, task in TASKS.items() if head in task.heads)
    model = resurge.create_model(spec, 3, task=task, head=head, detector=settings)
    return ExportedDetector(rewrite(convert_norm(model, "group" if rich else "batch")), kind, raw)


def written(model: nn.Module, folder: Path) -> set[str]:
    """The operators of a network's export, which also has to be accepted."""
    folder.mkdir(exist_ok=True)
    write_program(trace(model, 3, sizes=isinstance(model, ExportedDetector)), folder)
    vetted(folder / "model.pt2")
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        graph = json.loads(archive.read("archive/models/model.json"))["graph_module"]["graph"]
    return {node["target"] for node in graph["nodes"]}


def test_what_exports_contain(tmp_path: Path) -> None:
    models = (
        classifier("resnest50 transform=deform(avgdown(split(radix=2)),first_stage=2)", (), torch.bfloat16),
        classifier("resnet50 base_width=96 transform=split(radix=3)", JOINT[:1]),
        segmenter("pspnet"),
        finder("mask_rcnn", FINDERS[0]),
        finder("faster_rcnn", FINDERS[1], raw=True),
        finder("retinanet", FINDERS[0], raw=True),
    )
    found = set().union(*(written(model, tmp_path) for model in models))
    assert sorted(found - OPERATORS) == [], "operators that OPERATORS lacks"
    assert sorted(OPERATORS - found) == [], "operators that no export contains"


def test_the_list_is_in_order() -> None:
    listed = Path(archive.__file__).with_name("operators.txt").read_text().split()
    assert listed == sorted(OPERATORS)


def every_export() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    for number, (spec, form) in enumerate(product(CLASSIFIERS, FORMS)):
        yield f"{spec} {form}", lambda spec=spec, form=form, kind=KINDS[number % 3]: classifier(spec, form, kind)
    for norm in NORMS:
        yield f"norm {norm}", lambda norm=norm: classifier("resnest50", (), norm=norm)
    for head, stride, kind, decide in product(TASKS["segment"].heads, (8, 16, 32), KINDS, (False, True)):
        if stride == 16 or kind == torch.float32:
            yield f"{head} {stride} {kind} {decide}", lambda all_of=(head, stride, kind, decide): segmenter(*all_of)
    for head, spec, kind, raw in product(
        (*TASKS["detect"].heads, *TASKS["instances"].heads), FINDERS, KINDS, (False, True)
    ):
        if not (raw and head in TASKS["instances"].heads) and (spec == FINDERS[0] or kind == torch.float32):
            yield f"{head} {spec} {kind} {raw}", lambda all_of=(head, spec, kind, raw): finder(*all_of)


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in every_export()])
def test_no_export_contains_another(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    assert sorted(written(make(), tmp_path) - OPERATORS) == [], "operators that OPERATORS lacks"
