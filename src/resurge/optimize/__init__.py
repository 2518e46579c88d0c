"""Exact rewriting of trained networks, and the choice of the fastest form on a machine.

`resurge.optimize(model, example)` is a public function with the name of this package, which Python puts in its place
when a module of the package is imported first. The package is therefore callable and does what the function does.
"""

import inspect
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `resurge.optimize.autotune.optimize`."""
        from resurge.optimize.autotune import optimize

        return optimize(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        from resurge.optimize.autotune import optimize

        return inspect.signature(optimize)


sys.modules[__name__].__class__ = _Callable
