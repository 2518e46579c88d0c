"""What a `Predictor` takes: paths, PIL images, arrays, lists of them; and what it says of anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_runs import write_run

import resurge
from resurge.data.images import open_image
from resurge.errors import UserError


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> resurge.Predictor:
    return resurge.Predictor(write_run(tmp_path_factory.mktemp("run") / "segment", "segment"), "cpu")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def test_every_form_of_an_image_has_the_same_result(
    predictor: resurge.Predictor, picture: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    ((whole),) = predictor(path)
    forms = [str(path), tmp_path, path.read_bytes(), Image.open(path), Image.fromarray(picture), picture]
    for form in forms:
        (result,) = predictor(form)
        assert np.array_equal(result.label_map, whole.label_map)
    assert len(predictor(iter(forms))) == len(predictor(forms, batch_size=4)) == len(predictor.predict(forms)) == 6
    assert predictor([]) == predictor.predict([]) == []
    assert predictor(picture[:, :, 0])[0].label_map.shape == predictor(picture[:, :, :1])[0].label_map.shape == (40, 60)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK"])
def test_an_image_of_pillow_is_what_its_file_is(
    mode: str, predictor: resurge.Predictor, picture: np.ndarray, tmp_path: Path
) -> None:
    image = Image.fromarray(picture).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(128)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    assert np.array_equal(predictor(image)[0].label_map, predictor(path)[0].label_map)


def test_deep_images_are_for_networks_of_such(predictor: resurge.Predictor, picture: np.ndarray) -> None:
    deep = picture[:, :, 0].astype(np.uint16) * 250
    for given in (deep, Image.fromarray(deep), Image.fromarray(deep.astype(np.float32))):
        with pytest.raises(UserError, match=r"1 band of .*; the network was trained on images of 8 bits"):
            predictor(given)


def test_an_image_of_pillow_is_turned_upright(
    predictor: resurge.Predictor, picture: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert predictor(image)[0].label_map.shape == predictor(image.convert("RGB"))[0].label_map.shape == (60, 40)
    upright = open_image(tmp_path / "a.png")
    assert predictor(upright)[0].label_map.shape == upright.size[::-1] == (60, 40)  # and not turned twice


@pytest.mark.parametrize(
    "given, told",
    [
        (np.zeros((4, 4, 3)), "3 bands of floating point values; the network was trained on images of 8 bits"),
        (np.zeros((3, 8, 8), np.uint8), "array (3, 8, 8) of uint8"),
        (np.zeros((0, 8, 3), np.uint8), "without pixels"),
        (torch.zeros(3, 8, 8), "got torch.Tensor. Call .permute(1, 2, 0).numpy()"),
        (7, "got int"),
        (["a missing.png"], "a missing.png: there is no such file"),
        ([None], "got NoneType"),
    ],
)
def test_anything_else_is_said_to_be_wrong(given: object, told: str, predictor: resurge.Predictor) -> None:
    with pytest.raises(UserError) as raised:
        predictor(given)
    assert told in str(raised.value)


def test_a_picture_is_no_run(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.jpg")
    with pytest.raises(UserError, match=r"x\.jpg is a file.*called with images"):
        resurge.Predictor(tmp_path / "x.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        next(iter(resurge.infer.pictures.opened(tmp_path / "empty")))
