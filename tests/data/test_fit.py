"""Annotations of pictures that are shown at another size, or turned by EXIF, lie where things are drawn."""

from pathlib import Path

import numpy as np
import pytest
from drawn_scenes import WRITERS, Annotated, draw, seen, write_coco
from PIL import Image

from resurge.data.checks import check_data
from resurge.data.fit import Fit, find_fit, same_shape, size_of
from resurge.data.fix import mend
from resurge.data.images import ImageHeader
from resurge.data.pictures import read_headers
from resurge.data.reading import Reading
from resurge.data.regions import RunLengths, polygons, run_lengths_of
from resurge.data.sources import open_data
from resurge.errors import UserError

TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}  # fmt: skip
ANNOTATION = {"maps": "maps", "nuclei": "masks", "coco": "masks", "rle": "masks"}


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = np.clip(sides, 0, None).prod()
    return both / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - both)


def worst(source: Path, format: str, **reading: str) -> float:
    """The smallest overlap of a box that is trained on, and of a mask's bounds, with what is drawn."""
    bundle = open_data(source, annotation=ANNOTATION.get(format, "boxes"), reading=Reading(**reading))
    found = []
    for split in bundle.splits().values():
        for index in range(len(split)):
            image, target = split.read(index), split.target(index)
            truth = seen(image)
            if format == "maps":
                assert target.shape == (image.height, image.width)
                masks = [target == label for label in (1, 2)]
                boxes = [np.array(run_lengths_of(mask).box()) for mask in masks]
            else:
                boxes = list(target.boxes)
                regions = target.regions or ()
                boxes += [np.array(run_lengths_of(each.decode(image.height, image.width)).box()) for each in regions]
            # Classes of one mask file per object are all alike; the files come in order.
            found += [overlap(box, truth[at % 2]) for at, box in enumerate(boxes)]
            assert len(boxes) >= 2
    return min(found)


def mended(source: Path, out: Path, **reading: str) -> Path:
    """A mended copy with the images in it."""
    _, look = check_data(source, reading=Reading(**reading))
    mend(look, out)
    for file in source.rglob("*.png"):
        copy = out / file.relative_to(source)
        if not copy.exists() and "masks" not in file.parts:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    return out


def said(source: Path, **reading: str) -> dict[str, str]:
    report, _ = check_data(source, reading=Reading(**reading))
    return {finding.kind: finding.severity for finding in report.findings}


def pictures(count: int = 5, tag: int = 1, width: int = 48, height: int = 32, factor: int = 1) -> list[Annotated]:
    """Pictures annotated on what is stored, before they were made smaller by a whole factor."""
    found = []
    for at in range(count):
        pixels, boxes = draw(at, width, height)
        found.append(Annotated(pixels[::factor, ::factor], tag, (width, height), boxes))
    return found


@pytest.mark.parametrize("tag", range(1, 9))
def test_boxes_outlines_and_arrays_turn_as_the_picture_does(tag):
    random = np.random.default_rng(tag)
    for _ in range(20):
        width, height = (int(side) for side in random.integers(3, 40, 2))
        stored = Image.fromarray(random.integers(0, 255, (height, width)).astype(np.uint8))
        upright = stored.transpose(TURNS[tag]) if tag > 1 else stored
        fit = Fit((width, height), upright.size, tag)
        assert (fit.array(np.asarray(stored)) == np.asarray(upright)).all()
        x1, y1 = int(random.integers(width)), int(random.integers(height))
        x2, y2 = int(random.integers(x1, width)) + 1, int(random.integers(y1, height)) + 1
        mask = np.zeros((height, width), dtype=bool)
        mask[y1:y2, x1:x2] = True
        turned = run_lengths_of(fit.array(mask))
        assert fit.box((x1, y1, x2, y2)) == turned.box()
        assert fit.region(run_lengths_of(mask)) == turned
        outline = polygons([[x1, y1, x2, y1, x2, y2, x1, y2]])
        assert fit.region(outline).box() == turned.box()
        assert fit.box((x2, y2, x1, y1)) == (*turned.box()[2:], *turned.box()[:2])  # still without an area


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("tag", [3, 5, 6, 7, 8])
def test_what_was_drawn_on_the_stored_pixels_is_turned(tmp_path, format, tag):
    root = WRITERS[format](tmp_path / "set", pictures(tag=tag))
    is_open = tag == 3 or format == "yolo"
    asked = {"exif": "annotations"} if is_open else {}
    assert worst(root, format, **asked) == 1
    assert said(root, **asked)["turned"] == ("info" if is_open else "warning")
    if is_open:
        assert said(root)["exif-unclear"] == "warning"
        assert "exif-unclear" not in said(root, exif="pictures")
        assert worst(root, format) < 0.99
    copy = mended(root, tmp_path / "out", **asked)
    assert worst(copy, format, exif="pictures") > 0.9999
    assert set(said(copy, exif="pictures")) == {"exif-rotation"}
    assert ("exif-unclear" in said(copy)) == is_open


@pytest.mark.parametrize("format", WRITERS)
def test_what_was_drawn_on_the_upright_picture_stays(tmp_path, format):
    made = [Annotated(np.ascontiguousarray(np.rot90(each.pixels)), 6, each.size, each.boxes) for each in pictures()]
    root = WRITERS[format](tmp_path, made)
    assert worst(root, format) == 1
    assert set(said(root)) == {"exif-rotation"} | ({"exif-unclear"} if format == "yolo" else set())


def test_the_user_goes_before_the_sizes(tmp_path):
    # The tool wrote the size as stored, and showed the picture upright.
    made = [Annotated(np.ascontiguousarray(np.rot90(each.pixels)), 6, each.size[::-1], each.boxes)
            for each in pictures()]  # fmt: skip
    root = WRITERS["voc"](tmp_path, made)
    assert worst(root, "voc", exif="pictures") == 1
    assert said(root)["turned"] == "warning"


def test_a_square_picture_follows_those_that_are_not(tmp_path):
    root = WRITERS["coco"](tmp_path, pictures(tag=6) + pictures(2, tag=6, width=48, height=48))
    assert worst(root, "coco") == 1
    assert "exif-unclear" not in said(root)


@pytest.mark.parametrize("format", [name for name in WRITERS if name != "yolo"])
def test_pictures_made_smaller_after_annotating(tmp_path, format):
    root = WRITERS[format](tmp_path / "set", pictures(factor=2))
    assert worst(root, format) == 1
    assert said(root) == {"scaled": "warning"}
    bundle = open_data(root, annotation=ANNOTATION.get(format, "boxes"))
    assert any("5 pictures were annotated at another size" in note for note in bundle.notes)
    assert any("48 x 32 for 24 x 16" in note for note in bundle.notes)
    copy = mended(root, tmp_path / "out")
    assert worst(copy, format) == 1
    assert said(copy) == {}


@pytest.mark.parametrize("size", [(32, 48), (48, 40)])
@pytest.mark.parametrize("format", ["coco", "voc", "maps"])
def test_another_shape_is_refused(tmp_path, format, size):
    made = pictures()
    made[3] = Annotated(draw(3, *size)[0], 1, (48, 32), made[3].boxes)
    root = WRITERS[format](tmp_path / "set", made)
    exchanged = "width and height have changed places" if size == (32, 48) else "which is no scaling of it"
    with pytest.raises(UserError, match=f"3.png.* 48 x 32 pixels, the image has {size[0]} x {size[1]}.*{exchanged}"):
        open_data(root, annotation=ANNOTATION.get(format, "boxes"))
    assert said(root)["mask-size" if format == "maps" else "wrong-size"] == "error"
    copy = mended(root, tmp_path / "out")
    assert sum(open_data(copy, annotation=ANNOTATION.get(format, "boxes")).to_json()["sizes"].values()) == 4


@pytest.mark.parametrize("size", [(32, 48), (24, 16), (20, 20)])
@pytest.mark.parametrize("format", ["boxes", "coco", "voc"])
def test_sizes_that_are_wrong_alone(tmp_path, format, size):
    """Sides exchanged, or one size for all, beside boxes of the pictures as they are."""
    made = [Annotated(each.pixels, 1, size, each.boxes) for each in pictures(8)]
    root = write_coco(tmp_path / "set", made, "boxes") if format == "boxes" else WRITERS[format](tmp_path / "set", made)
    assert worst(root, format) == 1
    assert said(root) == {"size-alone": "warning"}
    copy = mended(root, tmp_path / "out")
    assert worst(copy, format) == 1
    assert said(copy) == {}


def test_one_mask_of_another_size_is_scaled_or_left_out(tmp_path):
    root = WRITERS["rle"](tmp_path, pictures())
    file = root / "annotations.json"
    small = run_lengths_of(np.ones((8, 12), dtype=bool)).counts.decode("ascii")
    other = run_lengths_of(np.ones((9, 9), dtype=bool)).counts.decode("ascii")
    text = file.read_text()
    first, second = (text.index('"segmentation"', at) for at in (0, text.index('"id": 1,', text.index("annotations"))))
    for at, size, counts in ((second, [9, 9], other), (first, [8, 12], small)):
        end = text.index("}", at)
        text = f'{text[:at]}"segmentation": {{"size": {size}, "counts": "{counts}"{text[end:]}'
    file.write_text(text)
    bundle = open_data(root, annotation="masks")
    (target,) = (split.target(split.ids.index("images/0.png")) for split in bundle.splits().values()
                 if "images/0.png" in split.ids)  # fmt: skip
    assert target.labels.tolist() == [0]
    assert isinstance(target.regions[0], RunLengths)
    assert target.regions[0].area() == 32 * 48
    assert said(root) == {"scaled": "warning", "mask-size": "error"}


def test_shapes():
    assert same_shape((192, 128), (96, 64))
    assert same_shape((1333, 800), (133, 80))  # annotated on a small copy
    assert same_shape((640, 427), (320, 214))
    assert same_shape((640, 427), (320, 213))
    assert not same_shape((640, 427), (320, 216))
    assert not same_shape((5, 3), (40, 30))
    assert not same_shape((96, 64), (64, 96))


def test_a_picture_that_is_nearly_square_goes_by_its_exact_size():
    header = ImageHeader("JPEG", "RGB", (101, 100), 6, False)
    assert find_fit((101, 100), header, None) == (Fit((101, 100), (100, 101), 6), False)
    assert find_fit((100, 101), header, None) == (Fit((100, 101), (100, 101)), False)
    assert find_fit((202, 201), header, None)[1]  # either way but for rounding


def test_tags_are_found_wherever_they_stand(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    (tmp_path / "b.png").write_bytes(data[:at] + data[end:-12] + data[at:end] + data[-12:])
    (tmp_path / "c.png").write_bytes(data[:at] + data[end:])
    (tmp_path / "d.png").write_bytes(b"nothing")
    exif[0x927C] = bytes(40000)  # the notes of a camera, before the size
    Image.fromarray(pixels).save(tmp_path / "f.jpg", exif=exif)
    found = read_headers(tmp_path, ["a.png", "b.png", "c.png", "d.png", "e.png", "f.jpg"])
    assert {name: header.orientation for name, header in found.items()} == {
        "a.png": 6, "b.png": 6, "c.png": 1, "f.jpg": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    "sides, size",
    [
        ((640, 480), (640, 480)),
        (("640", " 480.0 "), (640, 480)),
        ((640.0, 480), (640, 480)),
        ((0, 480), None),
        ((640, None), None),
        (("nan", "inf"), None),
        ((True, 480), None),
        ((640, int("9" * 400)), None),
    ],
)
def test_what_annotations_say_of_sizes(sides, size):
    assert size_of(*sides) == size
