"""ResNeSt written down naively from the authors' rule, for the output strides where timm's version departs from it.

Source of the rule: zhanghang1989/ResNeSt, `resnest/torch/models/resnet.py` and `splat.py`:

- the 3x3 average pool of the first block of stages 2 to 4 is there at every output stride, with stride 1 in a dilated
  stage;
- the average pool of the shortcut is as large as its stride; in a dilated stage that is 1x1, which is no pool;
- a stage of dilation d has d in all blocks but the first, which has the dilation of the stage before.

It reads a state dict with the authors' names and loops over cardinal groups and radix splits one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]
# output stride -> (stride, dilation of the first block, dilation of the others), one a stage
STAGES = {
    32: ((1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)),
    16: ((1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)),
    8: ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)),
}


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)


def split_attention(state: State, name: str, x: Tensor, radix: int, cardinality: int, dilation: int) -> Tensor:
    """One cardinal group at a time, and in it one split at a time (the paper's figure 2)."""
    weight = state[f"{name}.conv.weight"]
    u = F.conv2d(x, weight, padding=dilation, dilation=dilation, groups=radix * cardinality)
    u = norm(state, f"{name}.bn0", u).relu()
    channels = u.shape[1] // radix
    c = channels // cardinality

    def split(r: int, k: int) -> Tensor:  # the convolution's channels are radix-major
        return u[:, r * channels + k * c : r * channels + (k + 1) * c]

    summary = torch.cat([sum(split(r, k) for r in range(radix)) for k in range(cardinality)], dim=1)
    g = summary.mean((2, 3), keepdim=True)
    g = F.conv2d(g, state[f"{name}.fc1.weight"], state[f"{name}.fc1.bias"], groups=cardinality)
    g = norm(state, f"{name}.bn1", g).relu()
    z = F.conv2d(g, state[f"{name}.fc2.weight"], state[f"{name}.fc2.bias"], groups=cardinality)
    groups = []
    for k in range(cardinality):  # the attention's channels are cardinality-major
        logits = [z[:, (k * radix + r) * c : (k * radix + r + 1) * c] for r in range(radix)]
        if radix == 1:
            groups.append(logits[0].sigmoid() * split(0, k))
            continue
        weights = torch.stack(logits).softmax(dim=0)
        groups.append(sum(weights[r] * split(r, k) for r in range(radix)))
    return torch.cat(groups, dim=1)


def resnest(
    state: State,
    x: Tensor,
    *,
    depths: tuple[int, ...],
    radix: int,
    cardinality: int = 1,
    pool_first: bool = False,
    output_stride: int = 32,
) -> tuple[list[Tensor], Tensor]:
    """(maps of the four stages, logits) for images (N, 3, H, W)."""
    x = F.conv2d(x, state["conv1.0.weight"], stride=2, padding=1)
    x = norm(state, "conv1.1", x).relu()
    x = F.conv2d(x, state["conv1.3.weight"], padding=1)
    x = norm(state, "conv1.4", x).relu()
    x = F.conv2d(x, state["conv1.6.weight"], padding=1)
    x = norm(state, "bn1", x).relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    maps = []
    for stage, (depth, (stride, first, later)) in enumerate(zip(depths, STAGES[output_stride], strict=True)):
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            pooled = block == 0 and stage > 0
            step = stride if block == 0 else 1
            y = norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])).relu()
            if pooled and pool_first:
                y = F.avg_pool2d(y, 3, stride=step, padding=1)
            y = split_attention(state, f"{name}.conv2", y, radix, cardinality, first if block == 0 else later)
            if pooled and not pool_first:
                y = F.avg_pool2d(y, 3, stride=step, padding=1)
            y = norm(state, f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
            if block == 0:
                if step > 1:
                    x = F.avg_pool2d(x, step, stride=step, ceil_mode=True, count_include_pad=False)
                x = norm(state, f"{name}.downsample.2", F.conv2d(x, state[f"{name}.downsample.1.weight"]))
            x = (x + y).relu()
        maps.append(x)
    return maps, F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
