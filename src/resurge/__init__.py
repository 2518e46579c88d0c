"""The ResNet family on one grammar: a network is a value (`Spec`), a task is a head on a `Backbone`.

>>> import resurge
>>> model = resurge.create_model("resnest50", num_classes=10)

Importing this package imports no torch; the names below do when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resurge.api import create_backbone, create_model, export_weights, get_spec, list_models, load_run, load_weights
    from resurge.infer.predictor import Predictor
    from resurge.optimize.autotune import optimize

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

_ELSEWHERE = {"Predictor": "resurge.infer.predictor", "optimize": "resurge.optimize.autotune"}  # not in resurge.api


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_ELSEWHERE.get(name, "resurge.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
