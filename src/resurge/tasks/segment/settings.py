"""The numbers of a semantic segmenter's heads, as recipes state them. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from resurge.config import Section, option
from resurge.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Segmenter(Section):
    """A semantic segmenter: how fine its map is and what its loss is made of."""

    output_stride: int = option(8, "stride of the last feature map: 4, 8, 16 or 32", low=4, high=32)
    aux_weight: float = option(0.5, "weight of the auxiliary loss on stage 3; 0: no auxiliary head", low=0)
    head_channels: int | None = option(None, "channels inside the head; null: the head's usual number", low=1)
    head_dropout: float = option(0.1, "dropout before the head's last convolution", low=0, below=1)
    atrous_rates: tuple[int, ...] = option(
        (), "DeepLabV3: rates of the dilated branches; empty: 12, 24, 36 at stride 8 and half of it at 16", low=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_stride & (self.output_stride - 1):
            raise UserError(f"output_stride must be 4, 8, 16 or 32, not {self.output_stride}.")
