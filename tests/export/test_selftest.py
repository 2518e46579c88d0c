"""The self-test compares all that an export puts out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scene_runs import write_run

from resurge.errors import UserError
from resurge.export import exporting
from resurge.export.consistency import differing
from resurge.export.exporting import export
from resurge.export.settings import ExportSettings

Outputs = dict[str, np.ndarray]
SIZES = np.array([[60, 80]])


def objects() -> Outputs:
    """Three objects of one image and a place that is not taken."""
    boxes = np.array([[2, 3, 30, 40], [20, 10, 70, 50], [40, 5, 78, 58], [0, 0, 0, 0]], dtype=np.float32)
    masks = np.zeros((1, 4, 8, 8), dtype=np.float32)
    masks[0, :3, 1:7, 1:7] = 0.9
    return {
        "boxes": boxes[None],
        "scores": np.array([[0.9, 0.5, 0.2, 0]], dtype=np.float32),
        "labels": np.array([[0, 1, 1, -1]]),
        "masks": masks,
    }


def changed(name: str, change: Callable[[Any], Any]) -> Outputs:
    found = objects()
    found[name] = change(found[name])
    return found


def test_objects_in_another_order_are_the_same() -> None:
    order = [2, 0, 1, 3]
    assert (
        differing(objects(), {name: values[:, order] for name, values in objects().items()}, "fp32", {}, SIZES) is None
    )


@pytest.mark.parametrize(
    "name, change, told",
    [
        ("boxes", lambda boxes: boxes + np.float32(0.5), "boxes of objects are 0.5 pixels apart"),
        ("boxes", lambda boxes: boxes + np.float32(9), "of which 0 are the same"),
        ("scores", lambda scores: scores * np.float32(0.99), "scores of objects are 0.009 apart"),
        ("labels", lambda labels: 1 - labels, "are the same"),
        ("masks", lambda masks: np.roll(masks, 3, axis=2), "masks of an object overlap by 0"),
        ("scores", lambda scores: scores * 0, "3 objects here and 0 there"),
    ],
)
def test_what_differs_of_objects_is_told(name: str, change: Callable[[Any], Any], told: str) -> None:
    assert told in str(differing(objects(), changed(name, change), "fp32", {}, SIZES))


def test_candidates_are_suppressed_before() -> None:
    said = {"suppression": {"score": 0.3, "overlap": 0.5, "most": 10, "smallest": 0.0}}
    here = {name: values for name, values in objects().items() if name != "masks"}
    weak = here | {"labels": np.array([[0, 1, 0, -1]])}  # of a candidate that is not kept
    assert differing(here, weak, "fp32", said, SIZES) is None
    assert differing(here, here | {"labels": np.array([[1, 1, 1, -1]])}, "fp32", said, SIZES) is not None


def test_maps_and_logits() -> None:
    noise = np.random.default_rng(0)
    classes = noise.integers(0, 3, (2, 50, 50)).astype(np.uint8)
    here = {"classes": classes, "confidence": noise.uniform(0.4, 1, classes.shape).astype(np.float32)}
    one = classes.copy()
    one[0, 0, 0] += 1
    assert differing(here, here | {"classes": one}, "fp32", {}) is None
    assert "2 % of the pixels" in str(
        differing(here, here | {"classes": np.where(np.arange(50) < 1, 9, classes)}, "fp32", {})
    )
    wrong = here["confidence"] + np.float32(0.01)
    assert "confidence are 0.01 apart" in str(differing(here, here | {"confidence": wrong}, "fp32", {}))
    assert differing(here, here | {"confidence": wrong}, "int8", {}) is None
    logits = {"logits": noise.standard_normal((2, 5)).astype(np.float32)}
    assert differing(logits, logits, "fp32", {}) is None
    assert differing(logits, {"logits": logits["logits"] * np.float32(np.nan)}, "fp32", {}) is not None
    assert "puts out" in str(differing(logits, {"logits": logits["logits"][:1]}, "fp32", {}))


@pytest.mark.filterwarnings("ignore")  # the exporters and runtimes warn of themselves
def test_a_process_that_says_something_else_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, real, asked = write_run(tmp_path / "run", "segment"), exporting.self_test, []

    def lying(folder: Path, questions: Any, check: Any) -> Any:
        def passed_on(images: np.ndarray, sizes: np.ndarray, outputs: Outputs) -> None:
            asked.append(set(outputs))
            with pytest.raises(UserError, match="gives other outputs when run on its own"):
                check(images, sizes, outputs | {"classes": outputs["classes"] ^ 1})
            check(images, sizes, outputs | {"confidence": outputs["confidence"][:, ::-1]})

        return real(folder, questions, passed_on)

    monkeypatch.setattr(exporting, "self_test", lying)
    with pytest.raises(UserError, match="gives other outputs when run on its own"):
        export(run, tmp_path / "out", ExportSettings("torch", decide=True))
    assert asked[0] == {"classes", "confidence"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
