"""The public names of `import resurge`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from frozen.goldens import Goldens

import resurge


def signature(function: Any) -> list[str]:
    """Each parameter with how it is passed and its default; annotations may change their spelling."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        found.append(f"{parameter.kind.description}: {parameter.name}{default}")
    return found


def public(thing: Any) -> list[str]:
    return sorted(name for name in dir(thing) if not name.startswith("_"))


def test_names_and_signatures(goldens: Goldens) -> None:
    table: dict[str, Any] = {}
    for name in sorted(resurge.__all__):
        value = getattr(resurge, name)
        if inspect.isclass(value):
            methods = {key: getattr(value, key) for key in ["__init__", *public(value)]}
            table[name] = {key: signature(method) for key, method in methods.items() if callable(method)}
        else:
            table[name] = signature(value) if callable(value) else type(value).__name__
    goldens.same("api/signatures", table)


def test_what_they_return(goldens: Goldens) -> None:
    spec = resurge.get_spec("resnest50").but(depths=(1, 1, 1, 1))
    model = resurge.create_model("resnet20_cifar", num_classes=4)
    report = resurge.load_weights(model, resurge.create_model("resnet20_cifar").state_dict())
    backbone = resurge.create_backbone("resnest50 depths=(1,1,1,1)", in_channels=1, output_stride=16)
    goldens.same(
        "api/values",
        {
            "spec": str(spec),
            "spec fields": [field.name for field in dataclasses.fields(spec)],
            "models": resurge.list_models(),
            "resnest2*": resurge.list_models("resnest2*"),
            "report": [field.name for field in dataclasses.fields(report)],
            "report text": str(report),
            "backbone": [list(backbone.channels), list(backbone.strides)],
        },
    )


def test_a_network_of_each_task(goldens: Goldens) -> None:
    """How many tensors and numbers the network of each task and head has."""
    text = "resnet18 depths=(1,1,1,1) planes=(8,8,16,16) stem=conv7x7(8)"
    heads = {
        "classify": [None],
        "segment": ["deeplabv3", "fcn", "pspnet"],
        "detect": ["faster_rcnn", "cascade_rcnn", "retinanet"],
        "instances": ["mask_rcnn", "cascade_mask_rcnn"],
    }
    table: dict[str, Any] = {}
    for task, names in heads.items():
        for head in names:
            with torch.device("meta"):
                model = resurge.create_model(text, 3, task=task, head=head)
            state = model.state_dict()
            total = sum(value.numel() for value in state.values())
            parts = sorted({key.split(".")[0] for key in state})
            table[f"{task} {head}"] = {"tensors": len(state), "numbers": total, "parts": parts}
    goldens.same("api/networks", table)
