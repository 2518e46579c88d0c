"""The one resize and normalisation of evaluation, prediction and export of scenes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resurge.data.augmentation import Augmentation
from resurge.data.preprocessing import ScenePreprocessing
from resurge.data.transforms import SceneTransform
from resurge.errors import UserError


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (43, 61, 3), dtype=np.uint8))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1000), st.integers(0, 1000))
def test_the_shape_keeps_the_aspect_within_its_bounds(width, height, short, more):
    pre = ScenePreprocessing(short, short + more)
    h, w = pre.shape(width, height)
    assert max(h, w) <= short + more
    assert min(h, w) <= short
    assert min(h, w) == short or max(h, w) == short + more
    factor = min(short / min(width, height), (short + more) / max(width, height))
    assert abs(h - height * factor) <= max(0.5 + 1e-6, 1 - height * factor)
    assert abs(w - width * factor) <= max(0.5 + 1e-6, 1 - width * factor)


def test_shapes_by_hand():
    coco = ScenePreprocessing(800, 1333)
    assert coco.shape(640, 480) == (800, 1067)
    assert coco.shape(480, 640) == (1067, 800)
    assert coco.shape(4000, 1000) == (333, 1333)
    assert coco.shape(20000, 10) == (1, 1333)
    assert ScenePreprocessing(None, None).shape(123, 45) == (45, 123)
    assert ScenePreprocessing(None, 1000).shape(4000, 3000) == (750, 1000)
    assert ScenePreprocessing(None, 1000).shape(400, 300) == (300, 400)


def test_a_large_image_stays_within_max_size():
    image = Image.new("L", (4000, 3000))
    map = np.zeros((3000, 4000), np.uint8)
    pre = ScenePreprocessing(96, 128, (0.5,), (0.5,), 1)
    assert pre(image).shape == (1, 96, 128)
    for augment in (Augmentation(scale_jitter=(2.0, 4.0)), Augmentation(short_sides=(500,))):
        tensor, target = SceneTransform(pre, augment, "maps")(image, map)
        assert tensor.shape == (1, 96, 128)
        assert target["mask"].shape == (96, 128)


def test_the_resize_is_pillows_antialiased_one():
    image = picture()
    expected = image.resize((31, 22), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(ScenePreprocessing(22, None).fit(image)), np.asarray(expected))


def test_normalising_can_be_undone():
    image = picture()
    pre = ScenePreprocessing(None, None)
    restored = (pre(image).permute(1, 2, 0).numpy() * pre.std + pre.mean) * 255
    np.testing.assert_allclose(restored, np.asarray(image), atol=1e-3)


@pytest.mark.parametrize("short", [None, 320])
def test_preprocessing_survives_json(short):
    pre = ScenePreprocessing(short, 640, (0.1,), (0.2,), 1, "bicubic")
    stored = pre.to_json()
    assert stored["kind"] == "scene"
    assert ScenePreprocessing.from_json(stored) == pre
    for wrong in (stored | {"sort_side": 3}, {**stored, "kind": "other"}, {"kind": "scene", "max_size": 4}):
        with pytest.raises(UserError):
            ScenePreprocessing.from_json(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"short_side": 0}, {"max_size": 0}, {"short_side": 50, "max_size": 40}, {"channels": 2},
        {"interpolation": "bilinaer"}, {"std": (0.0, 1.0, 1.0)},
    ],
)  # fmt: skip
def test_impossible_preprocessing_is_explained(wrong):
    with pytest.raises(UserError):
        ScenePreprocessing(**{"short_side": 30, "max_size": 60} | wrong)
