"""Answers without torch say what torch says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from resurge.data.preprocessing import Preprocessing, ScenePreprocessing
from resurge.tasks.classify.predict import Classified
from resurge.tasks.detect.predict import Found
from resurge.tasks.segment.metrics import enlarged_classes as with_torch
from resurge.tasks.segment.predict import LabelMap, enlarged_classes


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
@pytest.mark.parametrize(
    "seen",
    [
        Preprocessing(24),
        Preprocessing(24, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.123, 0.45, 0.6789)),
        Preprocessing(17, 1.0, (0.305,), (0.377,), 1, squash=True),
        ScenePreprocessing(31, 40),
        ScenePreprocessing(None, None, (0.3,), (0.7,), 1, "nearest"),
        ScenePreprocessing(64, 90, interpolation="lanczos"),
    ],
)
def test_arrays_are_the_tensors_to_the_bit(seen: Preprocessing | ScenePreprocessing, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    array, tensor = seen.array(image), seen(image)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert np.array_equal(array, tensor.numpy())


@pytest.mark.parametrize("size", [(5, 7), (40, 60), (9, 7), (3, 4), (300, 500)])
def test_label_maps_are_enlarged_as_in_evaluation(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=(6, 5, 7)).astype(np.float32) * 4
    labels, shares = enlarged_classes(values, size)
    expected, confidence = with_torch(torch.from_numpy(values), size)
    assert labels.dtype == np.uint8
    assert (labels == expected.numpy()).mean() > 0.999  # where two classes are level, rounding decides
    np.testing.assert_allclose(shares, confidence.numpy(), atol=1e-5)


def test_a_wrong_enlargement_is_seen() -> None:
    values = np.random.default_rng(0).normal(size=(6, 5, 7)).astype(np.float32) * 4
    labels, _ = enlarged_classes(values, (40, 60))
    nearest = values.argmax(0).repeat(8, 0).repeat(9, 1)[:, :60]
    assert (labels == nearest).mean() < 0.95


def test_classes_come_best_first() -> None:
    logits = np.array([1.0, 3.0, -2.0, 3.0], dtype=np.float32)
    answer = Classified.of(logits, ("a", "b", "c", "d"))
    assert answer.names == ("b", "d", "a", "c")
    np.testing.assert_allclose(sorted(answer.scores), sorted(torch.from_numpy(logits).softmax(0).numpy()), rtol=1e-6)
    assert list(answer.to_json(top=1)["predictions"][0]) == ["class", "score"]
    assert len(answer.to_json(())["predictions"]) == 4
    assert Classified.of(np.array([1e4, 0], dtype=np.float32), ("a", "b")).scores.tolist() == [1, 0]


def test_plain_data() -> None:
    nothing = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int), [])
    assert nothing.to_json(("a",)) == {"objects": [], "best_left_out": None}
    assert len(nothing) == 0
    assert list(nothing.decoded() or ()) == []
    mask = {"size": [2, 2], "counts": b"04"}
    one = Found(np.array([[0, 1.234, 2, 3]]), np.array([0.5]), np.array([1]), [mask])
    (thing,) = one.to_json(("a", "b"))["objects"]
    assert thing == {"class": "b", "score": 0.5, "box": [0, 1.23, 2, 3], "mask": {"size": [2, 2], "counts": "04"}}
    labels = LabelMap(np.array([[1, 1, 0]], dtype=np.uint8), 0.9)
    assert [entry["class"] for entry in labels.to_json(("a", "b", "c"))["classes"]] == ["b", "a"]
