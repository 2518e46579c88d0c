"""FCN (arXiv:1411.4038), in torchvision's form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.layers import ConvNormAct
from resurge.tasks.segment.settings import Segmenter


class FCNHead(nn.Module):
    """3x3 convolution, then a 1x1 to the classes: (N, cin, h, w) -> (N, num_classes, h, w)."""

    def __init__(self, cin: int, num_classes: int, hidden: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = hidden or max(1, cin // 4)
        self.conv = ConvNormAct(cin, hidden, 3)
        self.drop = nn.Dropout(dropout)
        self.predict = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        logits: Tensor = self.predict(self.drop(self.conv(x)))
        return logits


def build(backbone: Backbone, num_classes: int, settings: Segmenter) -> FCNHead:
    return FCNHead(backbone.channels[-1], num_classes, settings.head_channels, settings.head_dropout)
