"""Image classification: global pooling and one linear layer on the last map of a backbone."""

from __future__ import annotations

from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.layers import global_pool
from resurge.arch.spec import Spec
from resurge.errors import UserError


class ClassificationHead(nn.Module):
    """(N, C, H, W) -> (N, num_classes)."""

    def __init__(self, channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.drop(global_pool(x).flatten(1)))
        return logits


class ClassificationModel(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, from the last map of any backbone.

    `dropout` is the probability of dropping a pooled feature in training. Raises UserError when it or `num_classes` is
    out of range.
    """

    def __init__(self, backbone: Backbone, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if type(num_classes) is not int or num_classes < 1:
            raise UserError(f"num_classes must be a positive whole number; got {num_classes!r}.")
        if not 0.0 <= dropout < 1.0:
            raise UserError(f"dropout must be a probability from 0 up to, not including, 1; got {dropout!r}.")
        self.backbone = backbone
        self.head = ClassificationHead(backbone.channels[-1], num_classes, dropout)

    @property
    def spec(self) -> Spec:
        return self.backbone.spec

    @property
    def num_classes(self) -> int:
        return self.head.fc.out_features

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> the last map, (N, C, ~H/32, ~W/32)."""
        result: Tensor = self.backbone(x)[-1]
        return result

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x))
        return logits
