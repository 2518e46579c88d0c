"""Images of other bands than grey or RGB, and of more than 8 bits: from their files to the tensor."""

from __future__ import annotations

import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from band_files import npy, png, tiff, write_classes
from PIL import Image

from resurge.data.augmentation import Augmentation
from resurge.data.bands import Bands, OtherBands
from resurge.data.checks import check_data
from resurge.data.images import UnreadableImage, decode, open_image, read_header
from resurge.data.loading import IndexedDataset, cache
from resurge.data.preprocessing import Preprocessing, ScenePreprocessing, usual_values
from resurge.data.sources import open_data
from resurge.data.splits import IGNORE
from resurge.data.transforms import SceneTransform, TrainTransform
from resurge.errors import UserError

NOISE = np.random.default_rng(0)
FIVE = {"mean": (0.5, 0.4, 0.3, 0.2, 0.1), "std": (0.1, 0.2, 0.3, 0.4, 0.5), "channels": 5}
DEEP = {**FIVE, "depth": "integer", "value_range": (0, 4095)}


def values(kind: str, bands: int, height: int = 21, width: int = 27) -> np.ndarray:
    """(H, W, bands) over a good part of the type's range."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return NOISE.normal(0, 100, (height, width, bands)).astype(dtype)
    low, high = (0, 250) if kind == "u1" else (0 if dtype.kind == "u" else -30_000, 60_000 if kind == "u2" else 30_000)
    return NOISE.integers(low, high, (height, width, bands)).astype(dtype)


def planes_of(picture) -> np.ndarray:
    """(C, H, W), whatever holds it."""
    array = np.asarray(picture)
    if isinstance(picture, Bands):
        return array
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


WAYS = list(itertools.product((False, True), (0, 16), ("<", ">"), (1, 2)))


@pytest.mark.parametrize("planar, tile, order, predictor", WAYS)
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_every_band_of_a_tiff_is_read_as_it_was_written(kind, planar, tile, order, predictor):
    for bands in (1, 2, 4, 5):
        written = values(kind, bands)
        how = (3 if kind[0] == "f" else 2) if predictor == 2 else 1
        extra = (0,) * (bands - 1)
        data = tiff(written, order=order, planar=planar, tile=tile, predictor=how, deflate=how > 1, extra=extra)
        header, picture = decode(data, "x.tif")
        assert (planes_of(picture) == written.transpose(2, 0, 1)).all()
        assert planes_of(picture).dtype == np.dtype(kind)
        assert header == read_header(data, "x.tif")
        assert (header.bands, header.size) == (bands, (27, 21))
        assert header.depth == {"u1": "8-bit", "f4": "float", "f8": "float"}.get(kind, "integer")


def test_eight_bits_in_grey_or_colour_stay_pillows():
    for bands, mode in ((1, "L"), (3, "RGB")):
        written = values("u1", bands)
        for data in (npy(written), tiff(written, extra=(0,) * (bands - 1))):
            picture = open_image(data)
            assert isinstance(picture, Image.Image)
            assert picture.mode == mode
            assert (planes_of(picture) == written.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("kind", ["u2", "i2", "f4", "f8", "i8"])
def test_arrays_are_images(kind):
    written = values(kind, 4)
    for array, bands in ((written, 4), (written[..., 0], 1), (np.asfortranarray(written), 4)):
        header, picture = decode(npy(array), "x.npy")
        assert (header.format, header.bands) == ("NPY", bands)
        assert (planes_of(picture) == written.transpose(2, 0, 1)[:bands]).all()


@pytest.mark.parametrize("array, message", [
    (np.zeros((3, 40, 40), np.uint16), "40 bands"), (np.zeros(5, np.uint16), "an array"),
    (np.zeros((4, 4), complex), "expected numbers"), (np.zeros((4, 4), bool), "expected numbers"),
    (np.zeros((0, 4), np.uint16), "an array"), (np.array([[None]], dtype=object), "expected numbers"),
])  # fmt: skip
def test_arrays_that_are_no_images_are_refused(array, message):
    with pytest.raises(UnreadableImage, match=message):
        open_image(npy(array))


def test_a_file_cut_short_is_an_error():
    for data in (npy(values("u2", 5)), tiff(values("u2", 5)), png(values("u2", 3))):
        for share in (0.3, 0.7, 0.97):
            with pytest.raises(UnreadableImage):
                open_image(data[: int(len(data) * share)])


def test_more_values_than_the_limit_are_refused_before_they_are_read():
    data = npy(np.zeros((1, 1, 1), np.float64)).replace(b"(1, 1, 1)", b"(9999, 9999, 900)"[:9].ljust(9))
    with pytest.raises(UnreadableImage):
        decode(data, "x.npy", max_pixels=100)
    with pytest.raises(UnreadableImage, match="bytes of values"):
        decode(npy(np.zeros((10, 10, 9), np.uint16)), "x.npy", max_pixels=100)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_all_bits_of_a_deep_png_are_kept(bands):
    written = values("u2", bands)
    if bands in (2, 4):
        written[..., -1] = 65535
    picture = open_image(png(written))
    assert (planes_of(picture) == written.transpose(2, 0, 1)[: {2: 1, 4: 3}.get(bands, bands)]).all()


def test_all_bits_of_a_deep_ppm_are_kept():
    written = values("u2", 3)
    data = b"P6 27 21 65535\n" + written.astype(">u2").tobytes()
    assert (planes_of(open_image(data)) == written.transpose(2, 0, 1)).all()


def test_only_what_the_file_calls_transparency_is_laid_over_white():
    written = values("u1", 4)
    assert (planes_of(open_image(tiff(written, photometric=2))) == written.transpose(2, 0, 1)).all()
    assert (planes_of(open_image(tiff(written, photometric=2, extra=(0,)))) == written.transpose(2, 0, 1)).all()
    assert open_image(tiff(written, photometric=2, extra=(2,))).mode == "RGB"
    deep = values("u2", 5)
    deep[..., 4] = NOISE.integers(0, 2, deep.shape[:2]) * 65535
    found = planes_of(open_image(tiff(deep, extra=(0, 0, 0, 2))))
    clear = deep[..., 4] == 0
    assert found.shape[0] == 4
    assert (found[:, clear] == 65535).all()
    assert (found[:, ~clear] == deep.transpose(2, 0, 1)[:4, ~clear]).all()
    for bands in (1, 3):
        keyed = values("u2", bands)
        found = planes_of(open_image(png(keyed, clear=tuple(map(int, keyed[2, 3])))))
        assert (found[:, 2, 3] == 65535).all()
        assert (found[:, 5, 5] == keyed[5, 5]).all()


def test_pages_that_are_not_read_are_said(tmp_path):
    data = write_classes(tmp_path / "data", "xray", {"train": 2, "val": 2}, side=12)
    Image.fromarray(np.zeros((12, 12), np.uint16)).save(
        data / "train/dark/0.tif", save_all=True, append_images=[Image.fromarray(np.ones((12, 12), np.uint16))] * 3
    )
    report, _ = check_data(data)
    assert [found.paths for found in report.findings if found.kind == "pages"] == [("train/dark/0.tif",)]


def test_white_is_zero_and_values_without_data():
    dark = values("u2", 2)
    assert (planes_of(open_image(tiff(dark, photometric=0, extra=(0,)))) == 65535 - dark.transpose(2, 0, 1)).all()
    holes = values("f4", 2)
    holes[3, 4] = -9999
    found = open_image(tiff(holes, no_data="-9999", extra=(0,)))
    assert np.isnan(planes_of(found)[:, 3, 4]).all()
    pre = Preprocessing(8, 1.0, (0.2, 0.3), (0.1, 0.1), 2, depth="float", value_range=(-500, 500), squash=True)
    assert np.isfinite(pre.array(found)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_all_bands_as_it_turns_a_picture(orientation):
    written = values("u1", 4, 6, 9)
    grey = [planes_of(open_image(tiff(written[..., [i]], orientation=orientation)))[0] for i in range(4)]
    found = planes_of(open_image(tiff(written, orientation=orientation, extra=(0, 0, 0))))
    assert (found == np.stack(grey)).all()


# ------------------------------------------------------------------------------------------------- preprocessing


def test_twelve_bits_reach_the_network_with_all_their_levels():
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    pre = Preprocessing(64, 1.0, (0.5,), (0.25,), 1, squash=True, depth="integer", value_range=(0, 4095))
    array = pre.array(open_image(png(ramp[..., None])))
    assert len(np.unique(array)) == 4096
    assert array.dtype == np.float32
    assert array.min() == -2
    assert array.max() == 2


@pytest.mark.parametrize("pre", [
    Preprocessing(16, 0.8, **DEEP), ScenePreprocessing(15, 40, **DEEP), Preprocessing(17, 1.0, squash=True, **DEEP),
    Preprocessing(31, 1.0, interpolation="bicubic", **DEEP),
])  # fmt: skip
def test_each_band_is_resized_as_pillow_resizes_it_alone(pre):
    written = NOISE.integers(0, 4096, (24, 31, 5)).astype(np.uint16)
    array = pre.array(Bands(written.transpose(2, 0, 1)))
    for band in range(5):
        alone = pre.place(Image.fromarray(written[..., band].astype(np.float32) / np.float32(4095)))
        expected = (np.asarray(alone) - np.float32(pre.mean[band])) / np.float32(pre.std[band])
        np.testing.assert_allclose(array[band], expected, atol=1e-6)


def test_the_preprocessing_survives_json():
    pre = Preprocessing(16, 0.8, **DEEP)
    assert pre.to_json()["value_range"] == [0.0, 4095.0]
    assert Preprocessing.from_json(pre.to_json()) == pre
    assert "value_range" not in Preprocessing(16).to_json()
    with pytest.raises(UserError, match="value_range"):
        Preprocessing(16, depth="integer")
    with pytest.raises(UserError, match="value_range"):
        Preprocessing(16, value_range=(0, 1))
    with pytest.raises(UserError, match="from and to"):
        Preprocessing(16, depth="float", value_range=(1, 1))


@pytest.mark.parametrize("pre, picture, message", [
    (Preprocessing(8), Bands(np.zeros((4, 9, 9), np.uint8)), "4 bands of 8 bits.*8 bits in grey or colour"),
    (Preprocessing(8), Bands(np.zeros((1, 9, 9), np.uint16)), "integers of more than 8 bits.*in grey or colour"),
    (Preprocessing(8, **FIVE), Image.new("RGB", (9, 9)), "3 bands of 8 bits.*5 bands of 8 bits"),
    (Preprocessing(8, **FIVE), Bands(np.zeros((4, 9, 9), np.uint8)), "4 bands of 8 bits.*5 bands"),
    (Preprocessing(8, **DEEP), Bands(np.zeros((5, 9, 9), np.uint8)), "5 bands of 8 bits.*5 bands of integers"),
    (Preprocessing(8, **DEEP), Bands(np.zeros((5, 9, 9), np.float32)), "floating point"),
])  # fmt: skip
def test_other_bands_than_the_training_had_are_an_error(pre, picture, message):
    with pytest.raises(OtherBands, match=message):
        pre.array(picture)


def test_pictures_for_people_are_of_eight_bits():
    picture = Bands(NOISE.integers(0, 4096, (5, 20, 30)).astype(np.uint16))
    for pre in (Preprocessing(16, **DEEP), ScenePreprocessing(16, None, **DEEP)):
        assert (pre.shown(picture).mode, pre.shown(picture).size) == ("RGB", (30, 20))
        assert pre.seen(picture).mode == "RGB"
    assert Preprocessing(8).shown(Image.new("L", (3, 3))).mode == "L"


# ------------------------------------------------------------------------------------------------- augmentation

OFF = {"crop_scale": None, "hflip": 0.0}


def test_without_augmentation_training_sees_what_evaluation_sees():
    picture = Bands(NOISE.integers(0, 4096, (5, 24, 31)).astype(np.uint16))
    pre, scene = Preprocessing(16, 0.8, **DEEP), ScenePreprocessing(15, 40, **DEEP)
    assert torch.equal(TrainTransform(pre, Augmentation(**OFF))(picture), pre(picture))
    map = np.zeros((24, 31), np.uint8)
    assert torch.equal(SceneTransform(scene, None, "maps")(picture, map)[0], scene(picture))


@pytest.mark.parametrize("changes", [
    {"hflip": 1.0}, {"vflip": 1.0}, {"crop_scale": (0.2, 0.9)}, {"pad_crop": 3}, {"affine_degrees": 30.0},
    {"random_erasing": 1.0},
])  # fmt: skip
def test_all_bands_move_together(changes):
    """A network of five bands that hold the same sees five times the same, each with its own mean and deviation."""
    band = NOISE.integers(0, 4096, (24, 31)).astype(np.uint16)
    same = {"mean": (0.5,) * 5, "std": (0.25,) * 5, "channels": 5, "depth": "integer", "value_range": (0, 4095)}
    transform = TrainTransform(Preprocessing(16, 1.0, **same), Augmentation(**{**OFF, **changes}))
    torch.manual_seed(3)
    found = transform(Bands(np.stack([band] * 5)))
    assert found.shape == (5, 16, 16)
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert not torch.equal(found, TrainTransform(transform.pre, Augmentation(**OFF))(Bands(np.stack([band] * 5))))


@pytest.mark.parametrize("seed", range(6))
def test_bands_move_as_the_label_map_does(seed):
    """Of a segmenter: a band that holds the labels is still the label map after turns, mirrors and crops."""
    labels = NOISE.integers(0, 4, (24, 31)).astype(np.uint8)
    picture = Bands(np.stack([labels] * 4).astype(np.int32))
    flat = {"mean": (0.0,) * 4, "std": (1.0,) * 4, "channels": 4, "depth": "integer", "value_range": (0, 4)}
    pre = ScenePreprocessing(None, None, **flat)
    augment = Augmentation(crop_size=(20, 20), rotate90=True, hflip=0.5, vflip=0.5)
    torch.manual_seed(seed)
    tensor, target = SceneTransform(pre, augment, "maps")(picture, labels)
    inside = target["mask"] != IGNORE
    for band in tensor:
        assert torch.equal((band * 4)[inside].long(), target["mask"][inside])


def test_color_jitter_changes_brightness_and_contrast_of_each_band():
    picture = Bands(NOISE.integers(1000, 2000, (5, 24, 24)).astype(np.uint16))
    transform = TrainTransform(Preprocessing(24, 1.0, **DEEP), Augmentation(**OFF, color_jitter=0.4))
    transform = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(1)
    found = transform(picture)
    plain = transform.pre(picture)
    assert not torch.equal(found, plain)
    for one, other in zip(found, plain, strict=True):  # an affine map of the values: nothing moves
        assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.9999


def test_changes_of_colours_are_refused():
    for changes in ({"auto_augment": "randaugment"}, {"auto_augment": "trivialaugment"}):
        with pytest.raises(UserError, match="Set auto_augment=none"):
            TrainTransform(Preprocessing(16, **DEEP), Augmentation(**changes))
    with pytest.raises(UserError, match="Set photometric=0"):
        SceneTransform(ScenePreprocessing(16, None, **DEEP), Augmentation(photometric=0.5), "boxes")


# ---------------------------------------------------------------------------------------------------- data sets


def test_the_range_and_each_band_are_measured_on_the_training_images(tmp_path):
    bundle = open_data(write_classes(tmp_path / "data", "spectrum", {"train": 6, "val": 2}))
    assert (bundle.in_channels, bundle.depth) == (5, "float")
    found = usual_values(bundle)
    all_of = np.stack([planes_of(bundle.train.read(i)) for i in range(12)])
    assert found.value_range == (all_of.min(), all_of.max())
    scaled = (all_of.astype(np.float64) - all_of.min()) / (all_of.max() - all_of.min())
    np.testing.assert_allclose(found.mean, scaled.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.std, scaled.std((0, 2, 3)), rtol=1e-5)


def test_means_of_few_images_are_those_of_all_of_them(tmp_path):
    for label, name in enumerate(("black", "white")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("L", (8, 8), 255 * label).save(tmp_path / "train" / name / f"{i}.png")
    assert usual_values(open_data(tmp_path)).mean == (0.5,)


def test_the_cache_keeps_bands(tmp_path):
    bundle = open_data(write_classes(tmp_path / "data", "spectrum", {"train": 2, "val": 2}))
    kept = cache(bundle.train, 10**7)
    (tmp_path / "data/train/dark/0.npy").unlink()
    pre = Preprocessing(8, 1.0, squash=True, **vars(usual_values(bundle)))
    assert IndexedDataset(kept, pre)[0][0].shape == (5, 8, 8)


@pytest.mark.parametrize("kind, said", [
    ("xray", "1 band of integers of more than 8 bits.*0 to 4095, the range of the training images"),
    ("infrared", "4 bands of 8 bits, all of which are used"), ("spectrum", "5 bands of floating point values"),
])  # fmt: skip
def test_check_data_says_what_training_does_with_such_images(tmp_path, kind, said):
    report, _ = check_data(write_classes(tmp_path / "data", kind, {"train": 4, "val": 2}))
    assert report.ok
    text = "\n".join(report.lines())
    assert "nothing wrong found" not in text
    (note,) = report.notes
    assert re.search(said, note)


@pytest.mark.parametrize("other", [
    png(np.zeros((9, 9, 3), np.uint16)), tiff(np.zeros((9, 9, 4), np.uint8), extra=(0, 0, 0)),
    npy(np.zeros((9, 9), np.float32)),
], ids=["bands", "bits", "float"])  # fmt: skip
def test_images_of_several_kinds_are_an_error_that_names_the_files(tmp_path, other):
    data = write_classes(tmp_path / "data", "xray", {"train": 4, "val": 2})
    (data / "train/dark/other.tif").write_bytes(other)
    with pytest.raises(UserError, match=r"train/bright/.*other\.tif has|other\.tif has .*; train/"):
        open_data(data)
    report, _ = check_data(data)
    assert not report.ok
    (found,) = [finding for finding in report.findings if finding.kind == "mixed-bands"]
    assert found.paths == ("train/dark/other.tif",)
    assert report.refusal == found.stop


def test_an_image_of_another_kind_stops_a_training_when_its_turn_comes(tmp_path):
    """It was not among the headers that were looked at, or was replaced since: never another image in its place."""
    bundle = open_data(write_classes(tmp_path / "data", "xray", {"train": 4, "val": 2}))
    pre = Preprocessing(8, 1.0, squash=True, **vars(usual_values(bundle)))
    (tmp_path / "data" / bundle.train.ids[3]).write_bytes(npy(np.zeros((9, 9, 2), np.uint16)))
    with pytest.raises(UserError, match=rf"{Path(bundle.train.ids[3]).name}: the image has 2 bands"):
        IndexedDataset(bundle.train, pre)[3]


def test_arrays_beside_pictures_are_no_images(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (i, i, 90)).save(tmp_path / "train" / name / f"{i}.png")
            (tmp_path / "train" / name / f"{i}.npy").write_bytes(npy(np.zeros(512, np.float32)))
    bundle = open_data(tmp_path)
    assert len(bundle.train) + len(bundle.val) == 6
    assert any("6 files that are no images were ignored" in note for note in bundle.notes)
