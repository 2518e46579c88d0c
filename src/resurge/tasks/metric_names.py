"""What the figures of a training are called where they are shown. No torch here."""

from __future__ import annotations

NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "box_ap": "box AP",
    "box_ap50": "box AP50",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
}


def percent_text(values: dict[str, float | None], before: str = "") -> str:
    """ "top-1 97.22 %, top-5 99.10 %" of shares in 0..1; what is undefined is left out."""
    return ", ".join(
        f"{before}{NAMES.get(name, name)} {100 * value:.2f} %"
        for name, value in values.items()
        if value is not None and value == value
    )
