"""Where a network looks: activation maps, of classes too, and the weights of its attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from resurge.arch.backbone import Backbone, backbone_of
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention
from resurge.arch.transforms import SelectiveKernelConv
from resurge.errors import UserError
from resurge.explain.heat import enlarge, overlay, save_png, sheet, to_image
from resurge.explain.modes import in_mode


class Classifier(Protocol):
    """What is asked of a model here: a backbone, and a head on its last map that ends in a linear layer `head.fc`."""

    backbone: Backbone
    head: Any

    def forward_features(self, x: Tensor) -> Tensor: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def __call__(self, x: Tensor) -> Tensor: ...


def cam(model: Classifier, x: Tensor, target: Tensor | Sequence[int] | None = None) -> Tensor:
    """Class-activation maps (arXiv:1512.04150, equation 2): (N, C, H, W) -> (N, h, w) in 0..1.

    The logit of a class is the mean over space of sum_c w[class, c]·A_c plus a bias; the map is that sum, its
    negative part cut, divided by its largest value. `target` is a class an image, None the predicted one.

    Raises:
        UserError: a target is out of range.
    """
    with in_mode(model, training=False), torch.no_grad():
        features = model.forward_features(x)
        classes = _targets(model.head(features), target)
        weights = model.head.fc.weight[classes].to(features.dtype)
        return _normalised(torch.einsum("nchw,nc->nhw", features, weights))


def grad_cam(
    model: Classifier, x: Tensor, target: Tensor | Sequence[int] | None = None, stage: int | None = None
) -> Tensor:
    """Grad-CAM (arXiv:1610.02391, equations 1 and 2): (N, C, H, W) -> (N, h, w) in 0..1.

    Channel weights are the mean gradients of the class's logit with respect to the map of `stage` (from 1; None is
    the last). On the last stage, before a mean and a linear layer, it is `cam`.

    Raises:
        UserError: there is no such stage, or a target is out of range.
    """
    stages = model.backbone.stages
    number = len(stages) if stage is None else stage
    if not 1 <= number <= len(stages):
        raise UserError(f"the network has stages 1 to {len(stages)}; there is no stage {stage}.")
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        # A leaf of its own: works with frozen networks too, and asks no gradient of the layers before.
        leaf = output.detach().requires_grad_()
        kept.append(leaf)
        # The next block may work in place on what it is given.
        return leaf * 1.0

    handle = stages[number - 1].register_forward_hook(keep)
    try:
        with in_mode(model, training=False), torch.enable_grad():
            logits = model(x)
            classes = _targets(logits, target)
            (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept[0])
    finally:
        handle.remove()
    weights = gradient.mean((2, 3))
    return _normalised(torch.einsum("nchw,nc->nhw", kept[0].detach(), weights))


def _targets(logits: Tensor, target: Tensor | Sequence[int] | None) -> Tensor:
    if target is None:
        return logits.argmax(dim=1)
    classes = torch.as_tensor(target, device=logits.device).long().flatten()
    if len(classes) != len(logits) or int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1]:
        raise UserError(
            f"expected one class in 0..{logits.shape[1] - 1} for each of {len(logits)} images; got {classes.tolist()}."
        )
    return classes


def _normalised(maps: Tensor) -> Tensor:
    positive = maps.float().clamp_min(0)
    return positive / positive.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


# --------------------------------------------------------------------------------------------- attention weights


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

    def recorder(stage: int, block: int, kind: str) -> Callable[..., None]:
        def record(module: nn.Module, args: Any, output: Tensor) -> None:
            given = output.detach().float().cpu()
            # (N, R, C, 1, 1) of branches, (N, C, 1, 1) of a gate
            weights = given.flatten(2) if given.ndim == 5 else given.flatten(1)[:, None]
            found.append(AttentionWeights(stage, block, kind, weights))

        return record

    with ExitStack() as stack:
        for i, stage in enumerate(backbone.stages, 1):
            for j, block in enumerate(stage.children(), 1):
                for layer, kind in _attentions(block):
                    stack.callback(layer.register_forward_hook(recorder(i, j, kind)).remove)
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


def attention_summary(model: nn.Module, x: Tensor) -> list[dict[str, Any]]:
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


# ------------------------------------------------------------------------------------------------------- images


def explain_image(model: Any, x: Tensor, image: Image.Image, target: int | None = None) -> dict[str, Image.Image]:
    """Overlays on one image, by name: "input", "class activation", and "stage 1" and so on.

    Args:
        model: a classifier; see `Classifier`.
        x: the preprocessed image, (C, H, W) or (1, C, H, W).
        image: what was preprocessed, of any size, cut to what the network saw.
        target: the class to explain; None is the predicted one.

    Raises:
        UserError: more than one image, or a target out of range.
    """
    batch = x if x.ndim == 4 else x[None]
    if len(batch) != 1:
        raise UserError(f"explain_image takes one image; got a batch of {len(batch)}.")
    shown, *stages = explain_stages(model, batch, image).items()
    heat = cam(model, batch, None if target is None else [target])[0]
    return dict([shown, ("class activation", overlay(shown[1], heat)), *stages])


def explain_stages(model: nn.Module, x: Tensor, image: Image.Image) -> dict[str, Image.Image]:
    """Overlays on one image that need no classifier, by name: "input", and "stage 1" and so on.

    Args:
        model: a backbone, or a module with one.
        x: the preprocessed image, (C, H, W) or (1, C, H, W).
        image: what was preprocessed, of any size, cut to what the network saw.

    Raises:
        UserError: more than one image, or a model without a backbone.
    """
    batch = x if x.ndim == 4 else x[None]
    if len(batch) != 1:
        raise UserError(f"explain_stages takes one image; got a batch of {len(batch)}.")
    shown = enlarge(image.convert("RGB"))
    heats = enumerate(activation_maps(model, batch), 1)
    return {"input": shown} | {f"stage {i}": overlay(shown, heat[0]) for i, heat in heats}


def write_explanation(
    model: Any, x: Tensor, image: Image.Image, path: str | Path, target: int | None = None, *, classifier: bool = True
) -> Path:
    """Write the overlays of `explain_image`, or for another model than a classifier those of `explain_stages`, side by
    side as one PNG.

    Raises:
        UserError: as those, or the file cannot be written.
    """
    overlays = explain_image(model, x, image, target) if classifier else explain_stages(model, x, image)
    return save_png(sheet(overlays), path)


def write_thumbnails(
    model: Any,
    x: Tensor,
    run_dir: str | Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    prefix: str = "mistake",
    target: Tensor | Sequence[int] | None = None,
) -> list[dict[str, str]]:
    """Write the images of a batch and their class-activation maps into `run_dir/explain`.

    Args:
        x: normalised images, (N, C, H, W); `mean` and `std` are those of the preprocessing.
        prefix: files are `<prefix>_000.png` and `<prefix>_000_cam.png`.
        target: the class each map is for; None is the predicted one, which for mistakes shows what misled.

    Returns:
        For each image {"thumbnail": path, "overlay": path}, relative to `run_dir`, as evaluation.json wants them.

    Raises:
        UserError: a file cannot be written.
    """
    if len(x) == 0:
        return []
    heats = cam(model, x, target)
    written = []
    for i, (tensor, heat) in enumerate(zip(x, heats, strict=True)):
        shown = enlarge(to_image(tensor, mean, std))
        names = {"thumbnail": f"explain/{prefix}_{i:03d}.png", "overlay": f"explain/{prefix}_{i:03d}_cam.png"}
        save_png(shown, Path(run_dir) / names["thumbnail"])
        save_png(overlay(shown, heat), Path(run_dir) / names["overlay"])
        written.append(names)
    return written
