"""What is known of one file of trained weights, and the text that names such a file. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from resurge.errors import UserError

HUB_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of trained weights, where it is, and what its numbers expect.

    Attributes:
        kind: "hub" (a repository of huggingface.co) or "url".
        location: `owner/name` on the hub, or the whole address.
        file: the file's name, on the hub and in the cache.
        sha256: hexadecimal SHA-256 of the file or its first digits; empty when nobody published one.
        revision: branch, tag or commit on the hub; empty means the newest.
        label: which training the weights are from, in the words of those who published them.
        licence: licence of the weights as published; "see repository" where none is stated for them.
        layout: the names its state dict uses, one of `resurge.weights.layouts.naming.LAYOUTS`.
        top1: published top-1 accuracy of exactly this file in per cent, if any.
        size: side of the square crop, in pixels, that evaluation uses.
        crop_pct: crop side divided by the short side of the resized image.
        interpolation: "bilinear" or "bicubic".
        mean, std: of the normalisation, RGB, for pixels in 0..1.
    """

    kind: str
    location: str
    file: str
    sha256: str = ""
    revision: str = ""
    label: str = ""
    licence: str = "see repository"
    layout: str = "auto"
    top1: float | None = None
    size: int = 224
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __str__(self) -> str:
        return f"hub:{self.location}" if self.kind == "hub" else self.location


def parse_source(text: str) -> Source:
    """Read `hub:owner/name[@revision][:file]` or an `http(s)://` address.

    Raises:
        UserError: the text is neither.
    """
    if text.startswith(("http://", "https://")):
        name = PurePosixPath(unquote(urlsplit(text).path)).name
        if not name:
            raise UserError(f"expected the address of a file of weights, got {text!r}, which names no file.")
        # File names of PyTorch's convention, NAME-PREFIX.pth, carry the first 8 digits of their SHA-256.
        prefix = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", name)
        return Source(kind="url", location=text, file=name, sha256=prefix.group(1) if prefix else "")
    hub = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([\w./-]+))?", text)
    if hub is None:
        raise UserError(
            f"expected hub:owner/name (or hub:owner/name@revision:file) or an http(s) address, got {text!r}."
        )
    return Source(kind="hub", location=hub.group(1), revision=hub.group(2) or "", file=hub.group(3) or HUB_FILE)
