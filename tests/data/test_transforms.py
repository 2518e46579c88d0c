import json
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop, functional, v2

from resurge.data.augmentation import Augmentation
from resurge.data.preprocessing import Preprocessing
from resurge.data.transforms import PaddingCrop, ResizedCrop, TrainTransform
from resurge.errors import UserError


def noise(width, height, mode="RGB", seed=0) -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


GREY = {"mean": (0.3,), "std": (0.4,), "channels": 1}


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (57, 91), (1, 1), (256, 256)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_equals_torchvision_bit_for_bit(size, interpolation):
    pre = Preprocessing(56, 0.875, interpolation=interpolation)
    image = noise(*size)
    fitted = v2.CenterCrop(56)(v2.Resize(64, v2.InterpolationMode(interpolation))(image))
    assert pre.fit(image).tobytes() == fitted.tobytes()
    assert torch.equal(pre(image), functional.normalize(functional.to_tensor(fitted), pre.mean, pre.std))


@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.floats(0.3, 1.0), st.booleans(),
    st.sampled_from("13"),
)  # fmt: skip
@settings(max_examples=60)
def test_any_image_gives_the_promised_shape(width, height, size, crop, squash, channels):
    options = GREY if channels == "1" else {}
    pre = Preprocessing(size, 1.0 if squash else crop, squash=squash, **options)
    for mode in ("RGB", "L"):
        result = pre(noise(width, height, mode))
        assert result.shape == (int(channels), size, size)
        assert result.dtype == torch.float32
        assert result.is_contiguous()
        assert torch.isfinite(result).all()


def test_the_right_size_is_not_resampled():
    image = noise(32, 32)
    for pre in (Preprocessing(32, 1.0), Preprocessing(32, 1.0, squash=True)):
        assert pre.fit(image).tobytes() == image.tobytes()


@pytest.mark.parametrize("size", [(20_000, 10), (10, 20_000), (3000, 1)])
def test_a_strip_does_not_grow_without_bound(size):
    pre = Preprocessing(32, 1.0)
    assert pre(Image.new("RGB", size)).shape == (3, 32, 32)


def test_json_is_exact_both_ways():
    pre = Preprocessing(224, 0.7 + 0.1, (1 / 3, 0.1, 0.2), (0.1, 0.2, 1 / 7), 3, "bicubic")
    again = Preprocessing.from_json(json.loads(json.dumps(pre.to_json())))
    assert again == pre
    assert torch.equal(again(noise(90, 70)), pre(noise(90, 70)))


def test_normalising_can_be_undone():
    pre = Preprocessing(16, 1.0)
    image = noise(16, 16)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (pre.mean, pre.std))
    assert torch.allclose((pre(image) * std + mean) * 255, functional.pil_to_tensor(image).float(), atol=1e-3)


@pytest.mark.parametrize("wrong, message", [
    ({"size": 0}, "at least 1"), ({"size": 8, "crop_pct": 1.5}, "crop_pct"), ({"size": 8, "channels": 2}, "2 numbers"),
    ({"size": 8, "mean": (1,)}, "3 numbers"), ({"size": 8, "interpolation": "bilinaer"}, "Did you mean 'bilinear'"),
    ({"size": 8, "squash": True}, "crop_pct must be 1"), ({"size": 8, "std": (0, 1, 1)}, "above 0"),
])  # fmt: skip
def test_wrong_preprocessing_is_explained(wrong, message):
    with pytest.raises(UserError, match=message):
        Preprocessing(**wrong)


def test_json_with_unknown_or_missing_fields_is_explained():
    with pytest.raises(UserError, match="Did you mean 'crop_pct'"):
        Preprocessing.from_json({"size": 8, "crop_pc": 1})
    with pytest.raises(UserError, match="lacks its size"):
        Preprocessing.from_json({"crop_pct": 1.0})


@pytest.mark.parametrize("wrong, message", [
    ({"auto_augment": "randaugmnet"}, "Did you mean 'randaugment'"), ({"hflip": 2}, "hflip must be at most 1"),
    ({"crop_scale": (0, 1)}, "crop_scale must be above 0"), ({"crop_scale": (0.5, 0.1)}, "from and to"),
    ({"auto_policy": "x"}, "imagenet, cifar10"), ({"auto_magnitude": 31}, "auto_magnitude must be at most 30"),
    ({"pad_crop": -1}, "pad_crop"), ({"crop_ratio": (2, 1)}, "crop_ratio"), ({"affine_scale": 1}, "affine_scale"),
])  # fmt: skip
def test_wrong_augmentation_is_explained(wrong, message):
    with pytest.raises(UserError, match=message):
        Augmentation(**wrong)


EVERYTHING = {
    "crop": Augmentation(),
    "cifar": Augmentation(crop_scale=None, pad_crop=4),
    "affine": Augmentation(
        crop_scale=None, hflip=0.0, vflip=0.5, affine_degrees=10, affine_translate=0.1, affine_scale=0.1, affine_shear=5
    ),
    "jitter": Augmentation(crop_scale=None, color_jitter=0.4),
    "erase": Augmentation(random_erasing=0.9),
    **{auto: Augmentation(auto_augment=auto) for auto in ("none", "autoaugment", "randaugment", "trivialaugment")},
    "cifar10 policy": Augmentation(crop_scale=None, auto_augment="autoaugment", auto_policy="cifar10"),
}


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("channels", [1, 3])
def test_training_is_random_by_torchs_generator_alone(name, channels):
    pre = Preprocessing(24, 1.0, **(GREY if channels == 1 else {}))
    transform = pickle.loads(pickle.dumps(TrainTransform(pre, EVERYTHING[name])))
    results = []
    for image in (noise(40, 30), noise(40, 30, "L"), noise(24, 24)):
        for attempt in range(2):
            torch.manual_seed(3)
            random.seed(attempt)
            np.random.seed(attempt)
            before = random.getstate(), np.random.get_state()[1].tolist()
            results.append(torch.stack([transform(image) for _ in range(12)]))
            assert (random.getstate(), np.random.get_state()[1].tolist()) == before
        assert results[-1].shape == (12, channels, 24, 24)
        assert torch.equal(results[-1], results[-2])
        assert len({result.numpy().tobytes() for result in results[-1]}) > 1 or image.mode == "L"


def test_without_augmentation_training_sees_what_evaluation_sees():
    pre = Preprocessing(24, 0.8)
    for image in (noise(40, 30), noise(10, 200, "L")):
        assert torch.equal(TrainTransform(pre, Augmentation(crop_scale=None, hflip=0.0))(image), pre(image))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 10**6))
@settings(max_examples=80)
def test_the_crop_lies_inside_and_has_the_wanted_area_and_aspect(width, height, seed):
    crop = ResizedCrop(8, (0.2, 0.9), (0.5, 2.0), "bilinear")
    torch.manual_seed(seed)
    left, top, w, h = crop.rectangle(width, height)
    assert left >= 0
    assert top >= 0
    assert w >= 1
    assert h >= 1
    assert left + w <= width
    assert top + h <= height
    if min(width, height) > 100 and max(width, height) < 1.5 * min(width, height):
        assert 0.19 < w * h / (width * height) < 0.91
        assert 0.48 < w / h < 2.08
    assert crop(Image.new("L", (width, height))).size == (8, 8)


def test_crops_are_spread_like_torchvisions():
    crop = ResizedCrop(8, (0.08, 1.0), (3 / 4, 4 / 3), "bilinear")
    reference = RandomResizedCrop(8, (0.08, 1.0), (3 / 4, 4 / 3))
    image = torch.zeros(3, 200, 300)
    ours = torch.tensor([crop.rectangle(300, 200) for _ in range(3000)]).double()
    drawn = [reference.get_params(image, list(reference.scale), list(reference.ratio)) for _ in range(3000)]
    theirs = torch.tensor(drawn).double()[:, [1, 0, 3, 2]]  # (top, left, height, width) in our order
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 6).all()
    assert ((ours.std(0) - theirs.std(0)).abs() < 6).all()


def test_padding_crop_reaches_every_offset_and_fills_with_the_mean():
    image = Image.fromarray(np.full((6, 6), 200, np.uint8))
    step = PaddingCrop(2, (9,))
    seen = set()
    for _ in range(400):
        result = np.asarray(step(image))
        rows, columns = np.flatnonzero((result == 200).any(1)), np.flatnonzero((result == 200).any(0))
        seen.add((rows[0], rows[-1], columns[0], columns[-1]))
        assert set(np.unique(result)) <= {9, 200}
    assert len(seen) == 25


def test_flip_has_its_probability():
    image = Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8))
    flip = TrainTransform(Preprocessing(2, 1, (0.5,), (0.5,), 1), Augmentation(crop_scale=None, hflip=0.3))
    share = np.mean([flip(image)[0, 0, 0].item() > 0 for _ in range(2000)])
    assert 0.26 < share < 0.34
