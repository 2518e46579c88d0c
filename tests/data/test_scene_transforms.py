"""Pictures, boxes, masks and label maps move together: against loops over pixels and corners, and by property."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scene_files import no_objects

from resurge.data.augmentation import Augmentation
from resurge.data.preprocessing import ScenePreprocessing
from resurge.data.splits import IGNORE, Objects
from resurge.data.transforms import Geometry, SceneTransform, draw_geometry
from resurge.errors import UserError

GREY = {"mean": (0.5,), "std": (0.5,), "channels": 1}
EXACT = ScenePreprocessing(None, None, interpolation="nearest", **GREY)
WIDTH, HEIGHT = 61, 43


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Pixels:
    """A region that is given by its pixels."""

    mask: np.ndarray

    def decode(self, height, width):
        assert self.mask.shape == (height, width)
        return self.mask


def objects_of(masks, crowd=()) -> Objects:
    """Objects 0, 1, … with these masks (H, W) and their exact boxes."""
    boxes = np.array([naive_box(mask) for mask in masks], np.float32).reshape(-1, 4)
    n = len(masks)
    crowds = np.isin(np.arange(n), crowd)
    area = np.array([mask.sum() for mask in masks], np.float32)
    return Objects(boxes, np.arange(n), crowds, area, tuple(Pixels(mask) for mask in masks))


def rectangle(x1, y1, x2, y2, width=WIDTH, height=HEIGHT) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def picture(width=WIDTH, height=HEIGHT, channels=1, seed=0) -> Image.Image:
    shape = (height, width) if channels == 1 else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def naive_box(mask):
    """(x1, y1, x2, y2) of the true pixels, or None."""
    ys, xs = np.nonzero(np.asarray(mask))
    return (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None


def naive_source(geometry: Geometry, row, column, width, height):
    """The pixel (row, column) of the original that an output pixel shows, or None for padding; backwards, step by
    step."""
    h, w = geometry.size
    turned = (h, w) if geometry.turns % 2 == 0 else (w, h)
    if geometry.crop is not None:
        row, column = row + geometry.crop[0], column + geometry.crop[1]
    if row >= turned[0] or column >= turned[1]:
        return None
    if geometry.vflip:
        row = turned[0] - 1 - row
    if geometry.hflip:
        column = turned[1] - 1 - column
    for turn in range(geometry.turns):
        # A quarter against the clock takes what is on the right to the top; undone one turn at a time.
        across = (h, w) if (geometry.turns - turn - 1) % 2 == 0 else (w, h)
        row, column = column, across[1] - 1 - row
    return int((row + 0.5) * height / h), int((column + 0.5) * width / w)


def naive_move(values: np.ndarray, geometry: Geometry, fill: int) -> np.ndarray:
    height, width = values.shape
    shape = geometry.size if geometry.turns % 2 == 0 else geometry.size[::-1]
    if geometry.crop is not None:
        shape = geometry.crop[2:]
    out = np.full(shape, fill, values.dtype)
    for row in range(shape[0]):
        for column in range(shape[1]):
            source = naive_source(geometry, row, column, width, height)
            if source is not None:
                out[row, column] = values[source]
    return out


@st.composite
def geometries(draw):
    size = draw(st.tuples(st.integers(20, 90), st.integers(20, 90)))
    turns = draw(st.integers(0, 3))
    h, w = size if turns % 2 == 0 else size[::-1]
    crop = None
    if draw(st.booleans()):
        height, width = draw(st.integers(5, 100)), draw(st.integers(5, 100))
        top = draw(st.integers(0, max(h - height, 0)))
        left = draw(st.integers(0, max(w - width, 0)))
        crop = (top, left, height, width)
    return Geometry(size, turns, draw(st.booleans()), draw(st.booleans()), crop)


@st.composite
def rectangles(draw, width=WIDTH, height=HEIGHT):
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))


# ------------------------------------------------------------------------------------------------ against loops


@given(geometries())
@settings(max_examples=40)
def test_pictures_masks_and_label_maps_move_as_a_loop_over_pixels_says(geometry):
    values = np.random.default_rng(1).integers(0, 200, (HEIGHT, WIDTH), dtype=np.uint8)
    expected = naive_move(values, geometry, IGNORE)
    np.testing.assert_array_equal(geometry.mask(values, IGNORE).numpy(), expected)
    shown = np.asarray(geometry.image(Image.fromarray(values), EXACT))
    np.testing.assert_array_equal(shown, expected[: shown.shape[0], : shown.shape[1]])
    assert (expected != IGNORE).sum() == shown.size
    assert geometry.shape == expected.shape


@given(geometries(), rectangles())
@settings(max_examples=150)
def test_a_box_is_that_of_its_mask(geometry, corners):
    agree = box_agrees(geometry, corners, geometry)
    assert agree is None or agree


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((60, 80), hflip=True), Geometry((60, 80), vflip=True), Geometry((60, 80), turns=1),
        Geometry((60, 80), crop=(9, 7, 40, 50)), Geometry((100, 80)),
    ],
)  # fmt: skip
def test_boxes_that_missed_a_step_of_their_masks_do_not_agree(geometry):
    still = Geometry((60, 80))
    assert box_agrees(geometry, (5, 9, 20, 41), geometry)
    assert not box_agrees(geometry, (5, 9, 20, 41), still)


def box_agrees(for_mask, corners, for_box):
    """Whether a rectangle's box moved by one geometry is that of its mask moved by the other, within a pixel; None
    when nothing is left of the mask."""
    mask = for_mask.mask(rectangle(*corners), 0).numpy()
    box = for_box.boxes(torch.tensor([corners], dtype=torch.float32), WIDTH, HEIGHT)[0].tolist()
    found = naive_box(mask)
    return None if found is None else bool(np.abs(np.subtract(found, box)).max() <= 1)


def test_corners_by_hand():
    boxes = torch.tensor([[10.0, 5.0, 30.0, 20.0]])  # of an image 60 wide and 40 high

    def moved(**steps):
        return Geometry(**{"size": (40, 60)} | steps).boxes(boxes, 60, 40)[0].tolist()

    assert moved() == [10, 5, 30, 20]
    assert moved(size=(80, 30)) == [5, 10, 15, 40]
    assert moved(hflip=True) == [30, 5, 50, 20]
    assert moved(vflip=True) == [10, 20, 30, 35]
    assert moved(turns=1) == [5, 30, 20, 50]
    assert moved(turns=2) == [30, 20, 50, 35]
    assert moved(turns=3) == [20, 10, 35, 30]
    assert moved(crop=(10, 12, 5, 100)) == [0, 0, 18, 5]


def test_boxes_beyond_the_image_are_clipped():
    boxes = torch.tensor([[-5.0, -5.0, 10.0, 10.0], [50.0, 30.0, 99.0, 99.0], [70.0, 50.0, 99.0, 99.0]])
    clipped = Geometry((40, 60)).boxes(boxes, 60, 40)
    assert clipped.tolist() == [[0, 0, 10, 10], [50, 30, 60, 40], [60, 40, 60, 40]]
    assert type(clipped) is torch.Tensor


# --------------------------------------------------------------------------------------------------- the sizes


def test_multi_scale_draws_every_side_of_the_list_and_no_other():
    augment = Augmentation(short_sides=(30, 40, 50), hflip=0)
    seen = {draw_geometry(ScenePreprocessing(99, 100), augment, WIDTH, HEIGHT).size for _ in range(60)}
    assert seen == {(30, 43), (40, 57), (50, 71)}


def test_large_scale_jitter_gives_one_size_at_scales_over_the_whole_range():
    pre, augment = ScenePreprocessing(64, 64, **GREY), Augmentation(scale_jitter=(0.5, 2.0), crop_size=(64, 64))
    factors = [max(draw_geometry(pre, augment, WIDTH, HEIGHT).size) / 64 for _ in range(300)]
    assert 0.49 < min(factors) < 0.6
    assert 1.9 < max(factors) < 2.01
    assert 1.15 < np.mean(factors) < 1.35  # uniform, so 1.25
    assert len({draw_geometry(pre, augment, WIDTH, HEIGHT).crop[:2] for _ in range(60)}) > 10
    for _ in range(10):
        tensor, target = SceneTransform(pre, augment, "boxes")(picture(), objects_of([rectangle(5, 5, 50, 40)]))
        assert tensor.shape == (1, 64, 64)
        assert len(target["boxes"]) <= 1


def test_flips_and_turns_occur_as_often_as_asked():
    augment = Augmentation(hflip=0.25, vflip=0.5, rotate90=True)
    drawn = [draw_geometry(EXACT, augment, WIDTH, HEIGHT) for _ in range(800)]
    assert abs(np.mean([g.hflip for g in drawn]) - 0.25) < 0.06
    assert abs(np.mean([g.vflip for g in drawn]) - 0.5) < 0.06
    assert np.abs(np.bincount([g.turns for g in drawn]) / 800 - 0.25).max() < 0.06
    assert not any(draw_geometry(EXACT, Augmentation(hflip=0), WIDTH, HEIGHT).hflip for _ in range(20))


# --------------------------------------------------------------------------------------------------- objects


EVERYTHING = Augmentation(
    short_sides=(30, 60),
    scale_jitter=(0.5, 2.0),
    rotate90=True,
    hflip=0.5,
    vflip=0.5,
    crop_size=(40, 55),
    photometric=0.5,
)


@given(st.integers(0, 2**32), st.lists(rectangles(), max_size=4))
@settings(max_examples=80)
def test_after_any_augmentation_boxes_labels_and_masks_belong_together(seed, corners):
    objects = objects_of([rectangle(*c) for c in corners])
    pre = ScenePreprocessing(40, 80, **GREY)
    with seeded(seed):
        tensor, target = SceneTransform(pre, EVERYTHING, "masks")(picture(), objects)
    with seeded(seed):
        geometry = draw_geometry(pre, EVERYTHING, WIDTH, HEIGHT)
    assert tensor.shape == (1, 40, 55)
    assert target["masks"].shape == (len(target["labels"]), 40, 55)
    assert target["boxes"].shape == (len(target["labels"]), 4)
    assert target["masks"].dtype == torch.uint8
    for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
        assert (box[2:] - box[:2] >= 1).all()
        assert np.abs(np.subtract(naive_box(mask), box.tolist())).max() <= 1
        expected = naive_move(objects.regions[label].mask, geometry, 0)
        np.testing.assert_array_equal(mask.numpy().astype(bool), expected)


@pytest.mark.parametrize("augment", [None, Augmentation(), EVERYTHING])
@pytest.mark.parametrize("task", ["boxes", "masks"])
def test_an_image_without_objects_is_a_valid_sample(task, augment):
    _, target = SceneTransform(ScenePreprocessing(40, 80, **GREY), augment, task)(picture(), no_objects())
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].shape == (0,)
    assert target["labels"].dtype == torch.int64
    assert task == "boxes" or (target["masks"].shape[0] == 0 and target["masks"].shape[1] > 1)


def test_crowds_and_objects_of_less_than_a_pixel_are_left_out():
    masks = [rectangle(1, 1, 20, 20), rectangle(5, 5, 6, 30), rectangle(30, 8, 50, 30), rectangle(9, 9, 40, 40)]
    objects = objects_of(masks, crowd=(2,))
    objects.boxes[3] = (9, 9, 9, 40)  # a box without width, as annotations have them
    for task in ("boxes", "masks"):
        whole, halved = (SceneTransform(pre, None, task)(picture(), objects)[1]
                         for pre in (EXACT, replace(EXACT, max_size=(WIDTH + 1) // 2)))  # fmt: skip
        assert whole["labels"].tolist() == [0, 1]
        assert halved["labels"].tolist() == [0]


def test_an_object_of_one_pixel_lives_while_its_pixel_does():
    objects = objects_of([rectangle(7, 9, 8, 10)])
    _, target = SceneTransform(EXACT, None, "masks")(picture(), objects)
    assert target["boxes"].tolist() == [[7, 9, 8, 10]]
    assert target["masks"].sum() == 1
    assert target["masks"][0, 9, 7] == 1
    doubled = ScenePreprocessing(2 * HEIGHT, None, **GREY)
    assert SceneTransform(doubled, None, "masks")(picture(), objects)[1]["masks"].sum() == 4


def test_what_a_crop_leaves_of_a_slanting_object_has_a_box_of_its_own():
    diagonal = np.zeros((40, 40), bool)
    for i in range(40):
        diagonal[i, max(i - 1, 0) : i + 2] = True
    objects = objects_of([diagonal])
    transform = SceneTransform(EXACT, Augmentation(hflip=0, crop_size=(12, 12)), "masks")
    pre_boxes = empty = 0
    for seed in range(60):
        with seeded(seed):
            _, target = transform(Image.new("L", (40, 40)), objects)
        empty += not len(target["labels"])
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            assert tuple(box.tolist()) == naive_box(mask)
            pre_boxes += box.tolist() != [0, 0, 12, 12]
    assert empty  # the clipped box alone is always the whole crop
    assert pre_boxes


def test_masks_are_decoded_only_of_objects_that_are_left():
    decoded = []

    @dataclass(frozen=True)
    class Counted(Pixels):
        def decode(self, height, width):
            decoded.append(naive_box(self.mask))
            return self.mask

    masks = [rectangle(0, 0, 5, 5, 100, 100), rectangle(90, 90, 99, 99, 100, 100)]
    objects = replace(objects_of(masks), regions=tuple(Counted(mask) for mask in masks))
    transform = SceneTransform(EXACT, Augmentation(hflip=0, crop_size=(20, 20)), "masks")
    for seed in range(40):
        with seeded(seed):
            transform(Image.new("L", (100, 100)), objects)
    assert len(decoded) < 40
    decoded.clear()
    SceneTransform(EXACT, None, "boxes")(Image.new("L", (100, 100)), objects)
    assert not decoded


# ------------------------------------------------------------------------------------------------- label maps


@given(st.integers(0, 2**32))
@settings(max_examples=40)
def test_label_maps_keep_to_their_classes_and_are_ignored_outside(seed):
    map = np.random.default_rng(0).choice([0, 3, 7, IGNORE], (HEIGHT, WIDTH)).astype(np.uint8)
    pre = ScenePreprocessing(40, 80, **GREY)
    with seeded(seed):
        tensor, target = SceneTransform(pre, EVERYTHING, "maps")(picture(), map)
    with seeded(seed):
        geometry = draw_geometry(pre, EVERYTHING, WIDTH, HEIGHT)
    assert target["mask"].shape == tensor.shape[1:] == (40, 55)
    assert target["mask"].dtype == torch.int64
    np.testing.assert_array_equal(target["mask"].numpy(), naive_move(map, geometry, IGNORE))
    h, w = geometry.size if geometry.turns % 2 == 0 else geometry.size[::-1]
    assert (target["mask"][h:] == IGNORE).all()
    assert (target["mask"][:, w:] == IGNORE).all()
    assert not tensor[:, h:].any()
    assert not tensor[:, :, w:].any()


def test_the_map_stays_where_the_picture_is():
    """A bright square that is class 1: after resizing, bilinear brightness above one half marks the same pixels."""
    map = np.zeros((90, 90), np.uint8)
    map[30:60, 21:66] = 1
    image = Image.fromarray(map * 255)
    for side in (45, 64, 133):
        tensor, target = SceneTransform(ScenePreprocessing(side, None, **GREY), None, "maps")(image, map)
        assert ((tensor[0] > 0) != (target["mask"] == 1)).float().mean() < 0.002


# ------------------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_without_augmentation_a_picture_is_exactly_that_of_evaluation(channels, mode, interpolation):
    image = picture(channels=3).convert(mode)
    values = {} if channels == 3 else GREY
    pre = ScenePreprocessing(30, 40, interpolation=interpolation, **values)
    objects = objects_of([rectangle(3, 3, 30, 30)])
    for augment in (None, Augmentation(hflip=0.0)):
        tensor, _ = SceneTransform(pre, augment, "boxes")(image, objects)
        assert torch.equal(tensor, pre(image))
    assert tensor.shape == (channels, 28, 40)
    assert tensor.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_pixels_and_nothing_else(channels):
    pre = ScenePreprocessing(None, None) if channels == 3 else EXACT
    image, objects = picture(channels=channels), objects_of([rectangle(3, 4, 30, 30)])
    plain, _ = SceneTransform(pre, None, "boxes")(image, objects)
    for augment in (Augmentation(hflip=0, photometric=1.0), Augmentation(hflip=0, color_jitter=0.4)):
        tensor, target = SceneTransform(pre, augment, "boxes")(image, objects)
        assert target["boxes"].tolist() == [[3, 4, 30, 30]]
        assert tensor.shape == plain.shape
        assert not torch.equal(tensor, plain)


# --------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "wrong",
    [
        {"short_sides": (0,)}, {"scale_jitter": (2.0, 1.0)}, {"scale_jitter": (0.0, 1.0)}, {"crop_size": (0, 5)},
        {"scale_jitter": (1, 2, 3)},
        {"hflip": 1.5}, {"vflip": -1}, {"photometric": 2}, {"color_jitter": -0.1}, {"crop_size": (5,)},
    ],
)  # fmt: skip
def test_impossible_augmentation_is_explained(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_targets_that_do_not_fit_are_explained():
    objects = objects_of([rectangle(1, 1, 9, 9)])
    with pytest.raises(UserError, match="boxes only"):
        SceneTransform(EXACT, None, "masks")(picture(), replace(objects, regions=None))
    with pytest.raises(UserError, match=f"61 x 44.*upright, {WIDTH} x {HEIGHT}.*check-data"):
        SceneTransform(EXACT, None, "maps")(picture(), np.zeros((44, 61), np.uint8))
