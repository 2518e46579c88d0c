"""The ResNet family on one grammar: a network is a value (`Spec`), a task is a head on a `Backbone`.

>>> import resurge
>>> model = resurge.create_model("resnest50", num_classes=10)

Importing this package imports no torch; the names below do when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resurge.api import create_backbone, create_model, get_spec, list_models, load_run
    from resurge.infer.predictor import Predictor
    from resurge.optimize.autotune import optimize
    from resurge.weights.checkpoint import export_weights, load_weights

__version__ = "0.1.0"

__all__ = [
    "Predictor",
    "__version__",
    "create_backbone",
    "create_model",
    "export_weights",
    "get_spec",
    "list_models",
    "load_run",
    "load_weights",
    "optimize",
]

_HOME = {
    "Predictor": "resurge.infer.predictor",
    "create_backbone": "resurge.api",
    "create_model": "resurge.api",
    "export_weights": "resurge.weights.checkpoint",
    "get_spec": "resurge.api",
    "list_models": "resurge.api",
    "load_run": "resurge.api",
    "load_weights": "resurge.weights.checkpoint",
    "optimize": "resurge.optimize.autotune",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
