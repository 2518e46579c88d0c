"""JSON on standard output."""

from __future__ import annotations

import json
import math


def print_json(value: object) -> None:
    """Indented, in the order given. Not-a-number and infinity, which JSON has not, become null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
