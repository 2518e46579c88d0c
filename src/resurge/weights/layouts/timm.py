"""timm's names. Source: timm `models/resnet.py`, `sknet.py`, `res2net.py`, `resnest.py`."""

from __future__ import annotations

from resurge.arch import gates, shortcuts, transforms
from resurge.weights.layouts.tables import (
    DOWN,
    DOWN_AFTER_POOL,
    IMAGENET_STEMS,
    NESTED,
    PLAIN,
    RES2,
    SELECTIVE,
    SPLIT,
    SQUEEZE,
    Layout,
)

LAYOUT = Layout(
    name="timm",
    stems=IMAGENET_STEMS,
    transforms={
        transforms.Conv3x3: PLAIN,
        transforms.Res2: RES2,
        transforms.SelectiveKernel: SELECTIVE,
        transforms.SplitAttention: SPLIT,
    },
    shortcuts={shortcuts.Projection: DOWN, shortcuts.AvgProjection: DOWN_AFTER_POOL},
    gates={gates.NoGate: (), gates.SqueezeExcite: SQUEEZE},
    around={transforms.SelectiveKernel: NESTED},
)
