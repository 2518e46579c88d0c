"""The names in the authors' code.

Sources: zhanghang1989/ResNeSt `resnest/torch/models/{resnet,splat}.py`; Res2Net/Res2Net-PretrainedModels `res2net.py`,
`res2net_v1b.py`, `res2next.py`.
"""

from __future__ import annotations

from resurge.arch import shortcuts, transforms
from resurge.weights.layouts.tables import DOWN, DOWN_AFTER_POOL, IMAGENET_STEMS, PLAIN, RES2, SPLIT, Layout

LAYOUT = Layout(
    name="official",
    stems=IMAGENET_STEMS,
    transforms={transforms.Conv3x3: PLAIN, transforms.Res2: RES2, transforms.SplitAttention: SPLIT},
    shortcuts={shortcuts.Projection: DOWN, shortcuts.AvgProjection: DOWN_AFTER_POOL},
)
