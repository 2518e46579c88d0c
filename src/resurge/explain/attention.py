"""What a network responds to: activation maps, class activation maps, and the weights of its attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import torch
from PIL import Image
from torch import Tensor, nn

from resurge.arch.backbone import backbone_of
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention
from resurge.arch.transforms import SelectiveKernelConv
from resurge.explain.cost import in_mode
from resurge.explain.heat import enlarge, overlay, save_image, to_image


class _Head(Protocol):
    fc: nn.Linear

    def __call__(self, x: Tensor) -> Tensor: ...


class _Classifier(Protocol):
    head: _Head

    def forward_features(self, x: Tensor) -> Tensor: ...


def cam(model: nn.Module, x: Tensor, classes: Sequence[int] | None = None) -> Tensor:
    """Class-activation maps of `classes`, one per image; None for those predicted (arXiv:1512.04150, equation 2):
    (N, C, H, W) -> (N, h, w) in 0..1.

    `model` is a classifier: it has `forward_features`, and a `head` of pooling and a linear layer `fc`. The logit of a
    class is the mean over space of sum_c w[class, c]·A_c plus a bias; the map is that sum, its negative part cut,
    divided by its largest value.
    """
    classifier = cast(_Classifier, model)
    with in_mode(model, training=False), torch.no_grad():
        features = classifier.forward_features(x)
        rows = classifier.head(features).argmax(dim=1) if classes is None else list(classes)
        weights = classifier.head.fc.weight[rows].to(features.dtype)
        return _normalised(torch.einsum("nchw,nc->nhw", features, weights))


def _normalised(maps: Tensor) -> Tensor:
    positive = maps.float().clamp_min(0)
    return positive / positive.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class AttentionWeights:
    """What one attention gave: `weights` is (N, R, C), R branches (1 for a gate), as fp32 on the CPU."""

    stage: int
    block: int
    kind: str
    weights: Tensor


def attention_weights(model: nn.Module, x: Tensor) -> list[AttentionWeights]:
    """The weights of every split attention, selective kernel and squeeze-excitation, in the order of the network.

    `model` is a backbone or has one. Softmax weights sum to one over the R branches of a channel; those of a gate
    stand alone, in 0..1. A network without attention gives an empty list.

    Raises:
        UserError: the model has no backbone.
    """
    backbone = backbone_of(model)
    found: list[AttentionWeights] = []

    def record(stage: int, block: int, kind: str, module: nn.Module, args: object, output: Tensor) -> None:
        given = output.detach().float().cpu()
        # (N, R, C, 1, 1) of branches, (N, C, 1, 1) of a gate
        weights = given.flatten(2) if given.ndim == 5 else given.flatten(1)[:, None]
        found.append(AttentionWeights(stage, block, kind, weights))

    with ExitStack() as stack:
        for i, stage in enumerate(backbone.stages, 1):
            for j, block in enumerate(stage.children(), 1):
                for layer, kind in _attentions(block):
                    stack.callback(layer.register_forward_hook(partial(record, i, j, kind)).remove)
        with in_mode(backbone, training=False), torch.no_grad():
            backbone(x)
    return found


def _attentions(block: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The modules of a block that put out weights, and what they are."""
    for part in block.modules():
        if isinstance(part, SqueezeExciteGate):
            yield part.sigmoid, "squeeze-excite"
        for child in part.children():
            if isinstance(child, BranchAttention):
                yield child, "selective kernel" if isinstance(part, SelectiveKernelConv) else "split attention"


def attention_summary(model: nn.Module, x: Tensor) -> list[dict[str, object]]:
    """For each attention: stage, block, kind, and each branch's mean and deviation over images and channels."""
    return [
        {
            "stage": each.stage,
            "block": each.block,
            "kind": each.kind,
            "mean": [round(float(value), 4) for value in each.weights.mean((0, 2))],
            "std": [round(float(value), 4) for value in each.weights.transpose(0, 1).flatten(1).std(1, correction=0)],
        }
        for each in attention_weights(model, x)
    ]


def activation_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    """For each stage, how strongly its output responds where: (N, h, w) in 0..1.

    The sum over channels of the squared map behind the stage, after its attention and gates have weighted it
    (arXiv:1612.03928, section 3.1), divided by its largest value.
    """
    backbone = backbone_of(model)
    with in_mode(backbone, training=False), torch.no_grad():
        return [_normalised(output.float().square().sum(1)) for output in backbone(x)]


def explain_image(
    model: nn.Module, x: Tensor, image: Image.Image, *, classifier: bool = True
) -> dict[str, Image.Image]:
    """Overlays on one image, by name: "input", of a classifier "class activation", then "stage 1" and so on.

    Args:
        model: a classifier (see `cam`), or with `classifier=False` a backbone or a module with one.
        x: the preprocessed image, (1, C, H, W).
        image: what was preprocessed, of any size, cut to what the network saw.
    """
    shown = enlarge(image.convert("RGB"))
    heats = {"class activation": cam(model, x)} if classifier else {}
    heats |= {f"stage {i}": heat for i, heat in enumerate(activation_maps(model, x), 1)}
    return {"input": shown} | {name: overlay(shown, heat[0]) for name, heat in heats.items()}


def write_thumbnails(
    model: nn.Module,
    x: Tensor,
    run_dir: Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    prefix: str,
    window: tuple[float, float] = (0.0, 1.0),
    classes: Sequence[int] | None = None,
) -> list[dict[str, str]]:
    """Write the images of a batch and the class-activation maps of `classes`, see `cam`, into `run_dir/explain`.

    Args:
        x: normalised images, (N, C, H, W); `mean`, `std` and `window` are those of the preprocessing.
        prefix: files are `<prefix>_000.png` and `<prefix>_000_cam.png`.

    Returns:
        For each image {"thumbnail": path, "overlay": path}, relative to `run_dir`, as evaluation.json wants them.

    Raises:
        UserError: a file cannot be written.
    """
    written = []
    for i, (tensor, heat) in enumerate(zip(x, cam(model, x, classes), strict=True)):
        shown = enlarge(to_image(tensor, mean, std, window))
        names = {"thumbnail": f"explain/{prefix}_{i:03d}.png", "overlay": f"explain/{prefix}_{i:03d}_cam.png"}
        save_image(shown, run_dir / names["thumbnail"])
        save_image(overlay(shown, heat), run_dir / names["overlay"])
        written.append(names)
    return written
