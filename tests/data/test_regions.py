import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as reference

from resurge.data.regions import coco_run_lengths, polygons, run_lengths_of
from resurge.errors import UserError

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(MASKS)
def test_run_lengths_keep_the_mask_and_are_pycocotools(mask):
    region = run_lengths_of(mask)
    assert (region.decode(*mask.shape) == mask).all()
    assert region.counts == reference.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    assert region.area() == mask.sum()
    if mask.any():
        ys, xs = np.nonzero(mask)
        assert region.box() == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
@given(st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 35)), min_size=3, max_size=8))
def test_polygons_are_pycocotools(points):
    outline = [value for point in points for value in point]
    other = [0.0, 0.0, 7.5, 0.0, 7.5, 6.25]
    expected = reference.decode(reference.merge(reference.frPyObjects([outline, other], 30, 40)))
    region = polygons([outline, other])
    assert (region.decode(30, 40) == expected.astype(bool)).all()
    assert region.points() == [outline, other]
    assert pickle.loads(pickle.dumps(region)) == region


def test_both_forms_of_coco_run_lengths():
    plain = {"size": [3, 4], "counts": [2, 4, 6]}
    packed = reference.frPyObjects(plain, 3, 4)
    expected = np.isin(np.arange(12), [2, 3, 4, 5]).reshape(4, 3).T
    for value in (plain, packed, packed | {"counts": packed["counts"].decode()}):
        assert (coco_run_lengths(value).decode(3, 4) == expected).all()


@given(MASKS)
def test_packed_run_lengths_are_counted_right(mask):
    packed = reference.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert (coco_run_lengths(packed).decode(*mask.shape) == mask).all()


@pytest.mark.parametrize(
    "value",
    [
        {"counts": [1, 2]}, {"size": [3, 4]}, {"size": [3, "4"], "counts": [12]}, {"size": [3, 4], "counts": [11]},
        {"size": [3, 4], "counts": [-1, 13]}, {"size": [3, 4], "counts": [6, 6.0]}, {"size": [0, 4], "counts": [0]},
        {"size": [3, 4], "counts": "zzzz"}, {"size": [3, 4], "counts": "P"}, {"size": [300, 400], "counts": "24"},
        {"size": [3, 4], "counts": None}, {"size": [3, 4], "counts": "\x01"},
        {"size": [10**9, 10**9], "counts": [10**18]},
    ],
)  # fmt: skip
def test_damaged_run_lengths_are_refused(value):
    with pytest.raises(ValueError, match="run lengths"):
        coco_run_lengths(value)


@pytest.mark.parametrize("outlines", [[], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, 5, float("nan")]]])
def test_damaged_outlines_are_refused(outlines):
    with pytest.raises(ValueError, match="outline"):
        polygons(outlines)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(UserError, match="4 x 3 pixels, but its image has 5 x 3"):
        run_lengths_of(np.ones((3, 4), dtype=bool)).decode(3, 5)
