import os
import pickle
import random
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from resurge.data.images import UnreadableImage, decode, is_image_name, open_image, read_header
from resurge.errors import UserError


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photo(width=40, height=30, seed=0) -> Image.Image:
    """Smooth colours, so that JPEG keeps them nearly as they are."""
    y, x = np.mgrid[0:height, 0:width]
    red, green, blue = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y + seed * 40) * 2 % 256
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))


def bomb_png(width=60_000, height=60_000) -> bytes:
    """A PNG of a few bytes that announces billions of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(50))) + chunk(b"IEND", b"")


def kind_of(source, **options) -> str:
    with pytest.raises(UnreadableImage) as caught:
        open_image(source, **options)
    return caught.value.kind


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(orientation, format):
    upright = photo(32, 16)
    # What a camera that was held the other way stores: the inverse of the turn the tag asks for.
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, format, exif=exif, **({"quality": 95} if format in ("JPEG", "WEBP") else {}))
    image = open_image(data)
    assert image.size == (32, 16)
    assert np.abs(np.asarray(image, int) - np.asarray(upright, int)).mean() < 8
    assert read_header(data, "x").orientation == orientation or format in ("PNG", "TIFF")


def test_damaged_exif_does_not_spoil_the_image():
    data = encode(photo(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xffgarbage")
    assert open_image(data).size == (40, 30)


def test_modes_become_grey_or_rgb():
    rgb = photo()
    grey = rgb.convert("L")
    assert open_image(encode(grey, "PNG")).mode == "L"
    assert open_image(encode(rgb, "PNG")).mode == "RGB"
    assert open_image(encode(rgb.convert("1"), "PNG")).mode == "L"
    assert set(np.unique(np.asarray(open_image(encode(rgb.convert("1"), "PNG"))))) <= {0, 255}
    assert open_image(encode(rgb.quantize(64), "PNG")).mode == "RGB"
    assert open_image(encode(rgb.quantize(64), "GIF")).mode == "RGB"
    assert open_image(encode(rgb.convert("CMYK"), "TIFF")).mode == "RGB"
    assert open_image(encode(rgb.convert("CMYK"), "JPEG")).mode == "RGB"


def test_cmyk_jpeg_keeps_its_colours_roughly():
    image = open_image(encode(Image.new("RGB", (16, 16), (200, 40, 60)).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(np.asarray(image, int).mean((0, 1)) - (200, 40, 60)).max() < 12


def test_transparency_is_laid_over_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[0, 1] = (255, 0, 0, 0)
    pixels[1, 0] = (0, 0, 0, 128)
    image = np.asarray(open_image(encode(Image.fromarray(pixels), "PNG")))
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, 1].tolist() == [255, 255, 255]
    assert abs(int(image[1, 0, 0]) - 127) <= 1
    grey = np.zeros((1, 2, 2), np.uint8)
    grey[0, 0] = (77, 255)
    both = open_image(encode(Image.fromarray(grey), "PNG"))
    assert both.mode == "L"
    assert np.asarray(both).tolist() == [[77, 255]]


def test_transparent_palette_and_colour_key():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    image = np.asarray(open_image(encode(palette, "PNG", transparency=0)))
    assert image.tolist() == [[[255, 255, 255], [200, 100, 50]]]
    keyed = encode(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert np.asarray(open_image(keyed)).min() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparency_is_laid_over_white_band_by_band_as_over_the_whole(mode, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (37, 23, 4), dtype=np.uint8)
    options = {}
    if mode == "P":
        image = Image.fromarray(noise[..., 0], "L").convert("P")
        image.putpalette(noise[..., 1].tobytes()[:768])
        options["transparency"] = noise[..., 2].tobytes()[:256]
    else:
        image = Image.fromarray(noise).convert(mode)
        if mode in ("RGB", "L"):
            options["transparency"] = image.getpixel((3, 30))
    data = encode(image, "PNG", **options)
    layer = Image.open(BytesIO(data)).convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    for band in (1, 23 * 5, 1 << 18):
        monkeypatch.setattr("resurge.data.images._BAND", band)
        found = open_image(data)
        assert found.mode == ("L" if mode in ("LA", "L") else "RGB")
        assert found.tobytes() == whole.convert(found.mode).tobytes()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(format):
    values = np.array([[0, 257, 65535, 32896]], np.uint16)
    assert np.asarray(open_image(encode(Image.fromarray(values), format))).tolist() == [values.tolist()]


def test_floating_point_tiff():
    image = open_image(encode(Image.fromarray(np.array([[-3.0, 0.5, 1e6]], np.float32)), "TIFF"))
    assert np.asarray(image).tolist() == [[[-3.0, 0.5, 1e6]]]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_an_error_and_never_half_an_image(format, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, format)
    assert kind_of(data[: int(len(data) * share)]) in ("truncated", "corrupt", "not-an-image")


def test_truncated_jpeg_is_an_error_even_when_another_library_allowed_it(monkeypatch):
    data = encode(photo(200, 200), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert kind_of(data[: len(data) // 2]) == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_what_is_no_image_is_said(tmp_path):
    text = tmp_path / "cat.jpg"
    text.write_text("404 Not Found")
    assert kind_of(text) == "not-an-image"
    empty = tmp_path / "empty.png"
    empty.touch()
    assert kind_of(empty) == "empty"
    assert kind_of(tmp_path / "none.png") == "missing"
    assert kind_of(tmp_path) == "corrupt"
    with pytest.raises(UserError, match=r"cat\.jpg: is not an image.*404 Not Found"):
        open_image(text)
    assert kind_of(b"\xff\xd8\xff" + bytes(200)) == "corrupt"
    with pytest.raises(UserError, match="bytes 00 01 02"):
        open_image(bytes(range(50)))


def test_postscript_is_never_opened():
    assert kind_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n") == "not-an-image"


def test_no_permission(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    file.write_bytes(encode(photo(), "PNG"))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # chmod does not stop a superuser, under which tests may run
    assert kind_of(file) == "permission"


def test_decompression_bomb_is_refused_by_its_header():
    assert kind_of(bomb_png()) == "too-large"
    with pytest.raises(UserError, match="3,600,000,000 pixels"):
        open_image(bomb_png())
    data = encode(photo(100, 100), "PNG")
    with pytest.raises(UnreadableImage, match="limit of 9,999"):
        decode(data, "a.png", 9_999)
    assert decode(data, "a.png", 10_000)[1].size == (100, 100)


def test_extreme_sizes_are_fine():
    assert open_image(encode(photo(1, 1), "PNG")).size == (1, 1)
    long = encode(Image.new("L", (20_000, 20)), "PNG")
    assert open_image(long).size == (20_000, 20)


def test_above_pillows_own_limit_there_is_neither_warning_nor_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(encode(photo(), "PNG")).size == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_draft_keeps_enough_pixels_and_is_repeatable():
    data = encode(photo(400, 300), "JPEG")
    draft = open_image(data, draft_size=100)
    assert draft.size == (200, 150)
    assert draft.tobytes() == open_image(data, draft_size=100).tobytes()
    assert open_image(data, draft_size=200).size == (400, 300)
    assert open_image(encode(photo(400, 300), "PNG"), draft_size=10).size == (400, 300)


def test_the_error_survives_the_way_from_a_loader_process():
    with pytest.raises(UnreadableImage) as caught:
        decode(b"", "a: b.png")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.kind, copy.name) == (str(caught.value), "empty", "a: b.png")


def test_damaged_bytes_give_an_image_or_the_one_error():
    rng = random.Random(0)
    for format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        good = encode(photo(20, 20), format)
        for _ in range(40):
            data = bytearray(good)
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                image = decode(bytes(data), "a.png", 1_000_000)[1]
            except UnreadableImage:
                continue
            assert image.mode in ("L", "RGB")


def test_image_names():
    assert is_image_name("a/b.JPEG")
    assert is_image_name("x.y.tiff")
    assert not is_image_name(".jpg")
    assert not is_image_name("jpg")
    assert not is_image_name("a.txt")
