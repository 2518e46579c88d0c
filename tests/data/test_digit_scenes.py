import csv
import hashlib
import json
import pickle

import numpy as np
import pytest
from scene_files import masks_of

from resurge.data.formats.digits import COUNTS, DIGITS, SEED, SIDE, compose, digit_splits
from resurge.data.sources import open_data, open_split
from resurge.data.splits import write_split
from resurge.errors import UserError


def test_boxes_masks_and_maps_are_of_the_same_pixels():
    scenes, maps = open_data("digits", annotation="masks"), open_data("digits", annotation="maps")
    for name, split in scenes.splits().items():
        assert len(split) == len(maps.splits()[name]) == COUNTS[name]
        for index in range(0, len(split), 17):
            objects, label_map = split.target(index), maps.splits()[name].target(index)
            masks = masks_of(objects, SIDE, SIDE)
            assert masks.sum(0).max() == 1  # what is covered belongs to the digit in front alone
            assert ((label_map > 0) == masks.any(0)).all()
            for box, label, mask, area in zip(objects.boxes, objects.labels, masks, objects.area, strict=True):
                ys, xs = np.nonzero(mask)
                assert tuple(box) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
                assert (label_map[mask] == label + 1).all()
                assert area == mask.sum() > 20
            image = split.read(index)
            assert (image.mode, image.size) == ("RGB", (SIDE, SIDE))
            assert (np.asarray(image) == np.asarray(maps.splits()[name].read(index))).all()


def test_boxes_come_without_masks():
    bundle = open_data("digits", annotation="boxes")
    assert bundle.train.target(0).regions is None
    assert (bundle.train.target(5).boxes == open_data("digits", annotation="masks").train.target(5).boxes).all()


def test_a_scene_depends_on_its_seed_alone():
    digits = digit_splits()["val"]
    one, same, other = compose(digits, SEED, 1, 3), compose(digits, SEED, 1, 3), compose(digits, SEED, 1, 4)
    assert (one.pixels == same.pixels).all()
    assert (one.masks == same.masks).all()
    assert (one.pixels != other.pixels).any()
    assert (np.asarray(open_data("digits", annotation="boxes", seed=9).val.read(3)) == one.pixels).all()


def test_scenes_are_what_they_were():
    # Written down so that no release changes the embedded data unseen; labels do not hang on rounding.
    labels = [objects.labels.tolist() for objects in open_data("digits", annotation="boxes").val.objects]
    assert hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:16] == "887c9991b24c7772"


def test_scenes_vary():
    bundle = open_data("digits", annotation="boxes")
    objects = bundle.train.objects
    counts = np.bincount(np.concatenate([one.labels for one in objects]), minlength=10)
    assert counts.min() > 0.7 * counts.mean()
    assert {len(one) for one in objects} == {2, 3}
    sides = np.concatenate([one.boxes[:, 3] - one.boxes[:, 1] for one in objects])
    assert sides.max() > 1.3 * np.median(np.sort(sides)[:100])
    touching = sum(
        (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
        for one in objects for i, a in enumerate(one.boxes) for b in one.boxes[:i]
    )  # fmt: skip
    assert touching > 100


def test_no_digit_is_in_two_splits(monkeypatch):
    ids = [set(split.ids) for split in digit_splits().values()]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    assert {name: set(split.ids) for name, split in open_data("digits").splits().items()} == {
        name: set(split.ids) for name, split in digit_splits().items()
    }


def test_what_a_run_keeps(tmp_path):
    bundle = open_data("digits", annotation="maps")
    assert bundle.classes == ("background", *DIGITS)
    kept = json.loads(json.dumps(bundle.to_json()))
    assert kept["sizes"] == COUNTS
    assert (bundle.in_channels, bundle.default_size) == (3, SIDE)
    write_split(bundle, tmp_path / "split.csv")
    with (tmp_path / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(COUNTS.values())
    assert rows[0] == {"path": "train-scene-0000", "split": "train"}
    again = pickle.loads(pickle.dumps(bundle.val))
    assert (again.target(3) == bundle.val.target(3)).all()
    assert (again.select([3]).target(0) == bundle.val.target(3)).all()


def test_splits_to_evaluate_on():
    assert len(open_split("digits", annotation="boxes")[0]) == COUNTS["test"]
    assert len(open_split("digits", annotation="boxes", split="val", classes=DIGITS)[0]) == COUNTS["val"]
    bundle = open_data("digits", annotation="boxes", val="test")
    assert (len(bundle.val), bundle.test) == (COUNTS["test"], None)
    with pytest.raises(UserError, match="own split"):
        open_data("digits", annotation="boxes", val="elsewhere")
    with pytest.raises(UserError, match="other classes"):
        open_split("digits", annotation="boxes", classes=("a", "b"))
    with pytest.raises(UserError, match="is already split"):
        open_split("digits", annotation="boxes", split="all")
    with pytest.raises(UserError, match="unknown annotation 'detct'"):
        open_data("digits", annotation="detct")
