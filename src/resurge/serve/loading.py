"""The model to serve, from a folder."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from resurge.errors import UserError
from resurge.serve.contract import Explainer
from resurge.serve.service import Loaded

if TYPE_CHECKING:
    from resurge.infer.predictor import Predictor


log = logging.getLogger("resurge.serve")


def task_of(folder: Path) -> str:
    """The task that `model.json` names, without loading anything; a run that names none classifies.

    Raises:
        UserError: there is no readable `model.json` in the folder.
    """
    path = folder / "model.json"
    try:
        task = json.loads(path.read_text(encoding="utf-8")).get("task", "classify")
    except FileNotFoundError:
        message = f"{folder} has no model.json. Expected what `resurge export` or a finished `resurge train` wrote."
        raise UserError(message) from None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error!r}). Export or train the model anew.") from error
    return str(task)


def loader(folder: str, device: str = "auto", threads: int | None = None) -> Callable[[], Loaded]:
    """A function that loads the model of an export or a run; see `resurge.infer.predictor.Predictor`."""

    def load() -> Loaded:
        from resurge.infer.predictor import Predictor

        predictor = Predictor(folder, device=device, threads=threads)
        for note in predictor.notes:
            log.warning("%s", note)
        return Loaded(predictor, _explainer(predictor))

    return load


def _explainer(predictor: Predictor) -> Explainer | None:
    """What shows where the network of a run looked; an export has no layers to look into."""
    run = predictor.run
    if run is None:
        return None
    from resurge.explain.attention import activation_maps, cam
    from resurge.explain.heat import enlarge, overlay

    model: Any = run.model
    classifier = run.task == "classify"

    def explain(image: Image.Image) -> bytes:
        parameter = next(model.parameters())
        batch = run.preprocessing(image)[None].to(parameter.device)
        shown = run.preprocessing.fit(image) if classifier else image
        heat = cam(model, batch)[0] if classifier else activation_maps(model, batch)[-1][0]
        file = io.BytesIO()
        overlay(enlarge(shown.convert("RGB"), 384, 1024), heat).save(file, "PNG")
        return file.getvalue()

    return explain
