"""What the values and colours of masks are taken for: every way in which annotation tools write them, read back and
compared with what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scene_files import kinds, mask, picture

from resurge.data.checks import check_data
from resurge.data.coding import Coding
from resurge.data.fix import mend
from resurge.data.reading import Reading
from resurge.data.sources import open_data, open_split
from resurge.data.splits import IGNORE
from resurge.errors import UserError

COLOURS = [(0, 0, 0), (32, 183, 250), (250, 50, 83)]
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbolt head:32,183,250::\nnut:250,50,83::\n"


def drawn(number: int, classes: int = 2) -> np.ndarray:
    """uint8 (30, 40): two rectangles, of the classes 1 and `classes`, that tell the image."""
    values = np.zeros((30, 40), np.uint8)
    values[2 : 8 + number, 3:12] = 1
    values[10:20, 20 : 26 + number] = classes
    return values


def write(
    root: Path, save: Callable[[int, Path], None], folders: tuple[str, str] = ("images", "masks"), count: int = 5
) -> Path:
    """Images 0.png, 1.png, … with masks that `save` writes."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture(root / folders[0] / f"{i}.png", i)
        save(i, root / folders[1] / f"{i}.png")
    return root


def grey(*values: int, classes: int = 2) -> Callable[[int, Path], None]:
    """Saves `drawn` with these values for the classes 0, 1, …"""
    return lambda i, file: Image.fromarray(np.array(values, np.uint8)[drawn(i, classes)]).save(file)


def coloured(i: int, file: Path) -> None:
    Image.fromarray(np.array(COLOURS, np.uint8)[drawn(i)]).save(file)


def with_palette(i: int, file: Path, order: Sequence[int] = (0, 1, 2)) -> None:
    """A palette PNG in which class k has the index `order[k]` and the colour of the class."""
    image = Image.fromarray(np.array(order, np.uint8)[drawn(i)])
    colours = [COLOURS[order.index(index)] for index in range(3)]
    image.putpalette([channel for colour in colours for channel in colour])
    image.save(file)


def require_drawn(root: Path, classes: tuple[str, ...], of: int = 2, reading: Reading = Reading()) -> None:
    """Every mask is read as it was drawn, and the shares that a check reports are those that were drawn."""
    split, names, _ = open_split(root, annotation="maps", reading=reading)
    assert names == classes
    total = np.zeros(len(classes), int)
    for index in range(len(split)):
        number = int(Path(split.ids[index]).stem.split("_")[0])
        assert (split.target(index) == drawn(number, of)).all()
        total += np.bincount(drawn(number, of).reshape(-1), minlength=len(classes))
    report, _ = check_data(root, annotation="maps", reading=reading)
    assert report.stats["pixels"]["all"] == dict(zip(classes, total.tolist(), strict=True))
    assert report.ok
    assert sum(value["share"] for value in report.stats["values"]) == pytest.approx(1, abs=1e-5)


# ------------------------------------------------------------------------------------------------------- grey values


@pytest.mark.parametrize("value", [1, 2, 40, 128, 254, 255])
def test_two_values_are_two_classes(tmp_path: Path, value: int) -> None:
    root = write(tmp_path, grey(0, value, classes=1))
    require_drawn(root, ("background", "foreground"), of=1)
    (root / "classes.txt").write_text("background\ncrack\n")
    require_drawn(root, ("background", "crack"), of=1)


def test_classes_from_one_on(tmp_path: Path) -> None:
    require_drawn(write(tmp_path, grey(1, 2, 3)), ("class 1", "class 2", "class 3"))


@pytest.mark.parametrize("names", [None, "background\ncrack\n"])
def test_255_beside_1_in_other_files_is_asked_about(tmp_path: Path, names: str | None) -> None:
    def save(i: int, file: Path) -> None:
        grey(0, 255 if i % 2 else 1, classes=1)(i, file)

    root = write(tmp_path, save)
    if names:
        (root / "classes.txt").write_text(names)
    with pytest.raises(UserError, match=r"255 with nothing but 0 in 2 files .*1=name,255=name or --threshold 1"):
        open_data(root, annotation="maps")
    with pytest.raises(UserError, match="255 with nothing but 0"):
        check_data(root, annotation="maps")
    require_drawn(
        root, ("background", "crack"), of=1, reading=Reading(classes=("0=background", "1=crack", "255=crack"))
    )
    reading = Reading(threshold=1, classes=("background", "crack"))
    require_drawn(root, ("background", "crack"), of=1, reading=reading)
    ignoring, _, _ = open_split(root, annotation="maps", reading=Reading(classes=("0=a", "1=b", "255=ignore")))
    assert [int(ignoring.target(i).max()) for i in range(3)] == [1, IGNORE, 1]


def test_255_beside_a_class_in_one_file_is_ignored(tmp_path: Path) -> None:
    split = open_split(write(tmp_path, grey(0, 1, 255)), annotation="maps")
    assert split[1] == ("background", "foreground")
    assert (split[0].target(0) == np.array([0, 1, IGNORE])[drawn(0)]).all()


@pytest.mark.parametrize("values, told", [
    ((0, 1, 3), "have gaps"), ((0, 128, 255), "have gaps"), ((2, 3, 4), "have gaps"),
    ((0, 0, 0), "hold the value 0 only"), ((255, 255, 255), "hold the value 255 only"),
])  # fmt: skip
def test_values_without_a_rule_are_asked_about(tmp_path: Path, values: tuple[int, ...], told: str) -> None:
    with pytest.raises(UserError, match=rf"{told}.*: {values[0]} \(\d.*--classes"):
        open_data(write(tmp_path, grey(*values)), annotation="maps")


def soft(i: int, file: Path, quality: int | None = None) -> None:
    """Background and one class with the soft edges of resizing."""
    sharp = Image.fromarray((drawn(i, 1) * 255).astype(np.uint8))
    sharp.resize((57, 43), Image.Resampling.BILINEAR).resize((40, 30), Image.Resampling.BILINEAR).save(file)


@pytest.mark.parametrize("names", [(), ("background", "crack")])
def test_soft_edges_need_a_threshold(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write(tmp_path, soft)
    with pytest.raises(UserError, match=r"0 \(\d.*(threshold 128|threshold makes two)"):
        open_data(root, annotation="maps", reading=Reading(classes=names))
    if names:
        report, _ = check_data(root, annotation="maps", reading=Reading(classes=names))
        assert "index-out-of-range" in kinds(report)
    split, classes, _ = open_split(root, annotation="maps", reading=Reading(classes=names, threshold=128))
    assert classes == (names or ("background", "foreground"))
    report, _ = check_data(root, annotation="maps", reading=Reading(classes=names, threshold=128))
    coded = [(each["value"], each["class"]) for each in report.stats["values"]]
    assert coded == list(zip(("below 128", "from 128"), classes, strict=True))
    for i in range(5):
        both = (split.target(i) == 1) & (drawn(i, 1) == 1)
        assert both.sum() / ((split.target(i) == 1) | (drawn(i, 1) == 1)).sum() >= 0.9


def test_a_threshold_that_divides_nothing_is_refused(tmp_path: Path) -> None:
    """Masks of 0 and 1 are not all background to a network whose masks had soft edges."""
    root = write(tmp_path, lambda i, file: mask(file, drawn(i) > 0))
    with pytest.raises(UserError, match=r"no value from 128 on, .*: 0 .*Give a --threshold above 0, and"):
        open_split(root, annotation="maps", classes=("background", "foreground"), reading=Reading(threshold=128))
    require_drawn(tmp_path, ("background", "foreground"), of=1, reading=Reading(threshold=1))


def test_a_lossy_format_needs_a_threshold(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for i in range(4):
        picture(tmp_path / f"images/{i}.jpg", i)
        Image.fromarray((drawn(i, 1) * 255).astype(np.uint8)).save(tmp_path / f"masks/{i}.jpg", quality=95)
    with pytest.raises(UserError, match=r"is a JPEG, which changes values.*--threshold 128"):
        open_data(tmp_path, annotation="maps")
    require_drawn(tmp_path, ("background", "foreground"), of=1, reading=Reading(threshold=128))


def test_values_are_listed_in_their_order(tmp_path: Path) -> None:
    write(tmp_path, lambda i, file: mask(file, np.arange(1200).reshape(30, 40) % 12))
    report, _ = check_data(tmp_path, annotation="maps", reading=Reading(classes=tuple("abcdefghijkl"), rename=("c=k",)))
    assert [each["value"] for each in report.stats["values"]] == [*"012", "10", *"3456789", "11"]


def test_a_mask_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    root = write(tmp_path, grey(0, 1, 2))
    (root / "masks/3.png").write_bytes((root / "masks/3.png").read_bytes()[:60])
    bundle = open_data(root, annotation="maps")
    assert len(bundle.train) + len(bundle.val) == 4
    assert "1 image is without a readable mask and left out: images/3.png" in bundle.notes
    for i in range(5):
        (root / f"masks/{i}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no mask of .* can be read, the first: .*0\.png: the file is empty"):
        open_data(root, annotation="maps")


def test_numbers_of_objects_are_no_classes(tmp_path: Path) -> None:
    def save(i: int, file: Path) -> None:
        values = np.zeros((30, 40), np.uint8)
        for k in range(1 + i):
            values[3 : 9 + i, 7 * k + 2 : 7 * k + 6] = k + 1
        Image.fromarray(values).save(file)

    root = write(tmp_path, save)
    with pytest.raises(UserError, match=r"number the objects .*annotation='masks' or annotation='boxes'.*--classes"):
        open_data(root, annotation="maps")
    report, data = check_data(root)
    assert (data.source.format, report.stats["objects"], report.stats["masks"]) == ("instance_maps", 15, True)
    split, classes, _ = open_split(root, annotation="masks")
    assert classes == ("object",)
    objects = split.target(3)
    assert objects.boxes.tolist() == [[7 * k + 2, 3, 7 * k + 6, 12] for k in range(4)]
    assert objects.area.tolist() == [36] * 4
    assert open_data(root, annotation="boxes", reading=Reading(classes=("cell",))).classes == ("cell",)
    (root / "classes.txt").write_text("".join(f"class {k}\n" for k in range(6)))
    assert open_data(root, annotation="maps").num_classes == 6
    assert check_data(root)[1].source.format == "pairs"


# ------------------------------------------------------------------------------------------------- colours, palettes


@pytest.mark.parametrize("folders", [("images", "masks"), ("JPEGImages", "SegmentationClass")])
@pytest.mark.parametrize("save", [coloured, with_palette, lambda i, file: with_palette(i, file, (2, 0, 1))])
def test_colours_with_a_labelmap(tmp_path: Path, save: Callable[[int, Path], None], folders: tuple[str, str]) -> None:
    root = write(tmp_path, save, folders)
    (root / "labelmap.txt").write_text(LABELMAP)
    require_drawn(root, ("background", "bolt head", "nut"))


@pytest.mark.parametrize("name, text", [
    ("label_colors.txt", "0 0 0\tbackground\n32 183 250\tbolt head\n250 50 83\tnut\n"),
    ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\nbolt head, 32, 183, 250\nnut,250,50,83\n"),
])  # fmt: skip
def test_colours_with_other_tables(tmp_path: Path, name: str, text: str) -> None:
    root = write(tmp_path, coloured)
    (root / name).write_text(text)
    require_drawn(root, ("background", "bolt head", "nut"))


def test_grey_masks_among_colours(tmp_path: Path) -> None:
    """An image without objects has a mask that is black all over, and a class may be grey or white."""

    def save(i: int, file: Path) -> None:
        Image.fromarray(np.array([(0, 0, 0), (255, 255, 255)], np.uint8)[drawn(i, 1)]).save(file)

    root = write(tmp_path / "two", save)
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\ncrack:255,255,255::\nrest:0,0,0::\n")
    split, classes, _ = open_split(root, annotation="maps")
    assert classes == ("crack", "rest")
    assert (split.target(0) == 1 - drawn(0, 1)).all()
    root = write(tmp_path / "three", coloured)
    (root / "labelmap.txt").write_text("\n".join(reversed(LABELMAP.splitlines()[1:])))
    Image.new("RGB", (40, 30)).save(root / "masks/0.png")
    split, classes, _ = open_split(root, annotation="maps")
    assert (classes[2], split.target(0).tolist()) == ("background", np.full((30, 40), 2).tolist())


def test_a_background_that_is_not_listed(tmp_path: Path) -> None:
    root = write(tmp_path, grey(0, 1, 2))
    (root / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="if 0 is the background, name it too: --classes background,a,b"):
        open_data(root, annotation="maps")


def test_colours_without_a_table(tmp_path: Path) -> None:
    root = write(tmp_path, coloured)
    with pytest.raises(UserError, match=r"hold colours.* #20b7fa \(32, 183, 250\).*labelmap\.txt.*--classes"):
        open_data(root, annotation="maps")
    given = Reading(classes=("#000000=background", "#20b7fa=bolt head", "#FA3253=nut"))
    require_drawn(root, ("background", "bolt head", "nut"), reading=given)
    with pytest.raises(UserError, match=r"5 masks have colours .* #fa3253 \(\d"):
        open_data(root, annotation="maps", reading=Reading(classes=given.classes[:2]))


def test_palettes_that_differ(tmp_path: Path) -> None:
    root = write(tmp_path, lambda i, file: with_palette(i, file, (0, 1, 2) if i % 2 else (0, 2, 1)))
    with pytest.raises(UserError, match="palettes that differ"):
        open_data(root, annotation="maps")
    (root / "labelmap.txt").write_text(LABELMAP)
    require_drawn(root, ("background", "bolt head", "nut"))


# ------------------------------------------------------------------------------------------------------- class files


@pytest.mark.parametrize("name, text", [
    ("classes.txt", "a\nb\nc\n"), ("class_names.txt", "__ignore__\na\nb\nc\n"), ("labels.txt", "0 a\n1 b\n2 c\n"),
    ("labelmap.txt", "# label:color_rgb:parts:actions\na:::\nb:::\nc:::\n"), ("codes.txt", "a\nb\nc"),
    ("_classes.csv", "Pixel Value, Class\n0, a\n1, b\n2, c\n"),
    ("dataset.json", '{"labels": {"a": 0, "b": 1, "c": 2}}'),
    ("dataset.json", '{"labels": {"0": "a", "1": "b", "2": "c"}}'),
])  # fmt: skip
def test_class_files(tmp_path: Path, name: str, text: str) -> None:
    root = write(tmp_path, grey(0, 1, 2))
    (root / name).write_text(text)
    require_drawn(root, ("a", "b", "c"))


def test_values_of_a_class_file(tmp_path: Path) -> None:
    root = write(tmp_path, grey(0, 50, 100))
    (root / "_classes.csv").write_text("Pixel Value, Class\n0, a\n50, b\n100, c\n")
    require_drawn(root, ("a", "b", "c"))
    require_drawn(root, ("x", "y", "z"), reading=Reading(classes=("0=x", "50=y", "100=z")))


@pytest.mark.parametrize("folder", ["VOC2012", "data"])
def test_voc_s_names_are_for_voc(tmp_path: Path, folder: str) -> None:
    root = write(tmp_path / folder, with_palette, ("JPEGImages", "SegmentationClass"))
    names = ("background", "aeroplane", "bicycle") if folder == "VOC2012" else ("class 0", "class 1", "class 2")
    assert open_split(root, annotation="maps")[1][:3] == names
    (root / "class_names.txt").write_text("_background_\ncrack\nspalling\n")
    require_drawn(root, ("_background_", "crack", "spalling"))


@pytest.mark.parametrize("part", ["train", ""])
def test_masks_beside_their_images(tmp_path: Path, part: str) -> None:
    for i in range(4):
        picture(tmp_path / part / f"{i}.jpg", i)
        mask(tmp_path / part / f"{i}_mask.png", np.array([0, 3, 7])[drawn(i)])
    (tmp_path / part / "_classes.csv").write_text("Pixel Value, Class\n0, background\n3, bolt head\n7, nut\n")
    bundle = open_data(tmp_path, annotation="maps")
    assert bundle.classes == ("background", "bolt head", "nut")
    for index, name in enumerate(bundle.train.ids):
        assert (bundle.train.target(index) == drawn(int(Path(name).stem))).all()


def test_a_mended_copy_has_the_same_classes(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"set/train/{i}.jpg", i)
        mask(tmp_path / f"set/train/{i}_mask.png", np.array([0, 50, 99])[drawn(i)])
    (tmp_path / "set/train/_classes.csv").write_text("Pixel Value, Class\n0, sky\n50, bolt\n")
    report, data = check_data(tmp_path / "set", annotation="maps")
    assert "index-out-of-range" in kinds(report)
    with pytest.raises(UserError, match=r"none of _classes\.csv \(0, 50 and 255 \(ignored\)\): 99 \("):
        open_data(tmp_path / "set", annotation="maps")
    assert data is not None
    mend(data, tmp_path / "out")
    for i in range(4):
        (tmp_path / f"set/train/{i}.jpg").rename(tmp_path / f"out/train/{i}.jpg")
    split, classes, _ = open_split(tmp_path / "out", annotation="maps", split="val")
    assert classes == ("sky", "bolt")
    assert (split.target(0) == np.array([0, 1, IGNORE])[drawn(int(Path(split.ids[0]).stem))]).all()


# ------------------------------------------------------------------------------- other data than that of the training


@pytest.mark.parametrize("values", [(0, 1), (0, 128), (0, 255)])
@pytest.mark.parametrize("there", [(0, 1), (0, 255)])
def test_two_classes_in_another_coding(tmp_path: Path, values: tuple[int, int], there: tuple[int, int]) -> None:
    training = write(tmp_path / "train", grey(*values, classes=1))
    other = write(tmp_path / "other", grey(*there, classes=1))
    bundle = open_data(training, annotation="maps", val=other)
    assert (bundle.val.target(0) == drawn(0, 1)).all()
    coding = Coding.from_json(bundle.to_json()["values"], bundle.classes)
    split, _, what = open_split(other, annotation="maps", classes=bundle.classes, coding=coding)
    assert (split.target(0) == drawn(0, 1)).all()
    assert (f"{there[1]} foreground" in what) == (there != (0, 1) or there != values)
    assert any("other values than" in note for note in bundle.notes) == (there != values)
    report, _ = check_data(training, annotation="maps", val=other)
    assert report.stats["pixels"]["all"]["foreground"] == report.stats["pixels"]["val"]["foreground"] > 0


@pytest.mark.parametrize("values", [(0, 1, 0), (0, 0, 0), (0, 0, 2)])
def test_classes_that_do_not_occur(tmp_path: Path, values: tuple[int, ...]) -> None:
    bundle = open_data(write(tmp_path / "train", grey(0, 1, 2)), annotation="maps")
    coding = Coding.from_json(bundle.to_json()["values"], bundle.classes)
    other = write(tmp_path / "other", grey(*values))
    split, _, _ = open_split(other, annotation="maps", classes=bundle.classes, coding=coding)
    assert (split.target(1) == np.array(values)[drawn(1)]).all()


def test_other_values_than_the_training_s(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    other = write(tmp_path / "255", grey(0, 255, classes=1))
    with pytest.raises(UserError, match="255 with nothing but 0"):
        open_split(other, annotation="maps", classes=names, coding=Coding({0: 0, 1: 1, 2: 2}))
    reading = Reading(classes=("0=a", "255=c"))
    split, _, _ = open_split(other, annotation="maps", classes=names, reading=reading)
    assert (split.target(0) == 2 * drawn(0, 1)).all()
    more = write(tmp_path / "more", grey(0, 1, 7))
    with pytest.raises(UserError, match=r"class indices that are none of the run \(0 to 2 and 255 \(ignored\)\): 7 \("):
        open_split(more, annotation="maps", classes=names, coding=Coding({0: 0, 1: 1, 2: 2}))
