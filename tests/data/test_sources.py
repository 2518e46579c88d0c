import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resurge.data.checks import check_data
from resurge.data.sources import open_data, open_split
from resurge.data.splits import stratified, write_split
from resurge.errors import UserError


def make(root: Path, tree: dict[str, int], mode="RGB", size=(40, 36)) -> Path:
    """Class folders with that many images each: {"train/cat": 3, ...}."""
    rng = np.random.default_rng(0)
    for folder, count in tree.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / folder / f"{i}.png")
    return root


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -------------------------------------------------------------------------------------------------------- digits


def test_digits_have_one_split_for_good():
    bundle = open_data("digits", seed=3)
    again = open_data("digits", seed=4)
    assert [len(split) for split in bundle.splits().values()] == [1258, 179, 360]
    assert "1258 for training" in bundle.how
    for name, split in bundle.splits().items():
        assert split.ids == again.splits()[name].ids
    everything = [i for split in bundle.splits().values() for i in split.ids]
    assert len(set(everything)) == 1797
    assert bundle.classes == tuple("0123456789")
    assert max(bundle.test.counts(10)) - min(bundle.test.counts(10)) <= 2
    assert (bundle.in_channels, bundle.train.read(0).mode, bundle.train.read(0).size) == (1, "L", (8, 8))
    assert max(np.asarray(bundle.train.read(i)).max() for i in range(50)) == 255
    # The first and last test images, written down so that no release of any library moves them.
    assert (bundle.test.ids[0], bundle.test.ids[-1]) == ("digit-00010", "digit-01792")


def test_digits_can_be_validated_on_the_test_split():
    bundle = open_data("digits", val="test")
    assert len(bundle.val) == 360
    assert bundle.test is None
    with pytest.raises(UserError, match="own split"):
        open_data("digits", val="somewhere")


# ---------------------------------------------------------------------------------------------------- stratified


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.floats(0.05, 0.95), st.integers(0, 2**40))
def test_the_stratified_split_is_complete_and_fair(labels, fraction, seed):
    kept, held = stratified(labels, fraction, seed)
    assert sorted(kept + held) == list(range(len(labels)))
    assert kept == sorted(kept)
    assert held == sorted(held)
    assert stratified(labels, fraction, seed) == (kept, held)
    all_counts, held_counts = Counter(labels), Counter(labels[i] for i in held)
    for label, count in all_counts.items():
        assert held_counts[label] <= max(count - 1, 0)
        assert held_counts[label] >= (1 if count > 1 else 0)
        if count > 2 / min(fraction, 1 - fraction):
            assert abs(held_counts[label] - fraction * count) <= 0.5


def test_the_split_does_not_change_between_versions():
    assert stratified([0, 1] * 10, 0.2, 7)[1] == [9, 12, 17, 18]


def test_the_split_of_a_class_does_not_depend_on_other_classes():
    _, alone = stratified([3] * 30, 0.3, 5)
    _, both = stratified([3] * 30 + [1] * 50, 0.3, 5)
    assert [i for i in both if i < 30] == alone


# ------------------------------------------------------------------------------------------------------- folders


def test_train_and_val_folders(tmp_path):
    bundle = open_data(make(tmp_path, {"train/dog": 3, "train/cat": 4, "val/cat": 2, "val/dog": 1}))
    assert bundle.classes == ("cat", "dog")
    assert bundle.train.labels == (0, 0, 0, 0, 1, 1, 1)
    assert bundle.train.ids[0] == "train/cat/0.png"
    assert bundle.val.counts(2) == (2, 1)
    assert bundle.test is None
    assert bundle.notes == ()
    assert bundle.train.path(0) == tmp_path / "train/cat/0.png"
    assert bundle.train.read(0).size == (40, 36)
    assert str(tmp_path) not in bundle.how
    assert "cat" in str(bundle.to_json())


@pytest.mark.parametrize("names", [("Train", "Valid"), ("training", "validation"), ("train", "val")])
def test_the_usual_names_of_split_folders(tmp_path, names):
    train, val = names
    bundle = open_data(make(tmp_path, {f"{train}/a": 2, f"{train}/b": 2, f"{val}/a": 1, f"{val}/b": 1, "test/a": 1}))
    assert [len(split) for split in bundle.splits().values()] == [4, 2, 1]


def test_train_and_test_without_val_holds_out_and_keeps_test(tmp_path):
    make(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 3})
    bundle = open_data(tmp_path, seed=5, val_fraction=0.3)
    assert [len(split) for split in bundle.splits().values()] == [14, 6, 6]
    assert "seed 5" in bundle.how
    assert not set(bundle.train.ids) & set(bundle.val.ids)
    same, other = open_data(tmp_path, seed=5, val_fraction=0.3), open_data(tmp_path, seed=6, val_fraction=0.3)
    assert same.val.ids == bundle.val.ids != other.val.ids
    on_test = open_data(tmp_path, val="test")
    assert (len(on_test.train), len(on_test.val), on_test.test) == (20, 6, None)


def test_class_folders_alone_are_split_and_the_split_can_be_written_and_read(tmp_path):
    make(tmp_path / "data", {"a": 10, "b": 6, "b/deeper": 4})
    bundle = open_data(tmp_path / "data", seed=1)
    assert bundle.train.counts(2) == (8, 8)
    assert bundle.val.counts(2) == (2, 2)
    write_split(bundle, tmp_path / "run" / "split.csv")
    again = open_data(tmp_path / "run" / "split.csv")
    assert again.classes == bundle.classes
    for name, split in bundle.splits().items():
        assert [p.name for p in map(Path, again.splits()[name].ids)] == [Path(i).name for i in split.ids]
        assert again.splits()[name].labels == split.labels
        assert again.splits()[name].read(0).tobytes() == split.read(0).tobytes()


def test_validation_elsewhere(tmp_path):
    make(tmp_path, {"here/a": 2, "here/b": 2, "there/a": 1, "there/b": 1})
    bundle = open_data(tmp_path / "here", val=tmp_path / "there")
    assert (len(bundle.train), len(bundle.val)) == (4, 2)
    file = table(tmp_path / "v.csv", "path,label\nthere/b/0.png,b\n")
    bundle = open_data(tmp_path / "here", val=file)
    assert bundle.val.labels == (1,)
    assert "no validation images of a" in bundle.notes[0]


def test_a_class_may_be_called_train(tmp_path):
    bundle = open_data(make(tmp_path, {"train": 4, "bus": 4}))
    assert bundle.classes == ("bus", "train")


def test_sidecars_and_hidden_files_are_passed_over_and_others_noted(tmp_path):
    make(tmp_path, {"a": 3, "b": 3})
    for name in (".DS_Store", "Thumbs.db", "a/notes.txt", "a/labels.csv", "b/._1.png", "README", "a/meta.json"):
        (tmp_path / name).write_text("x")
    make(tmp_path, {".ipynb_checkpoints": 2, "a/.hidden": 2})
    bundle = open_data(tmp_path)
    assert bundle.classes == ("a", "b")
    assert len(bundle.train) + len(bundle.val) == 6
    assert bundle.notes == ()
    (tmp_path / "b" / "movie.mp4").write_text("x")
    assert "b/movie.mp4" in open_data(tmp_path).notes[0]


def test_links_that_go_round_end(tmp_path):
    make(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "elsewhere.png").write_bytes((tmp_path / "a/0.png").read_bytes())
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    bundle = open_data(tmp_path)
    assert len(bundle.train) + len(bundle.val) == 7


def test_channels_and_size_come_from_the_images(tmp_path):
    assert open_data(make(tmp_path / "g", {"a": 2, "b": 2}, "L")).in_channels == 1
    bundle = open_data(make(tmp_path / "c", {"a": 2, "b": 2}, size=(70, 90)))
    assert (bundle.in_channels, bundle.default_size) == (3, 64)
    assert open_data(make(tmp_path / "t", {"a": 2, "b": 2}, size=(1, 1))).default_size == 32
    assert open_data(make(tmp_path / "p", {"a": 2, "b": 2}, size=(300, 200))).default_size == 224


FOLDER_ERRORS = {
    "empty folder": ({}, "is empty"),
    "folders without images": ({"a": 0, "b": 0}, "no image in any"),
    "images without classes": ({"": 3}, "no class folders"),
    "an empty class": ({"a": 3, "b": 0}, "'b' has no images"),
    "an empty class of train": ({"train/a": 3, "train/b": 3, "train/c": 0, "val/a": 1}, "'c' has no images"),
    "a single class": ({"a": 3}, "single class, 'a'"),
    "one image": ({"a": 1}, r"single class, 'a' \(1 image\)"),
    "one image a class": ({"a": 1, "b": 1}, "no class has two images"),
    "a class training lacks": ({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dogs": 1}, "Did you mean 'dog'"),
    "no train": ({"val/a": 2, "val/b": 2}, "hold val only"),
    "splits without classes": ({"train": 3, "val": 3}, "no class folders"),
    "val without classes": ({"train/a": 2, "train/b": 2, "val": 3}, "val has no class folders"),
}


@pytest.mark.parametrize("name", FOLDER_ERRORS)
def test_folders_that_cannot_be_trained_on_are_explained(tmp_path, name):
    tree, message = FOLDER_ERRORS[name]
    with pytest.raises(UserError, match=message):
        open_data(make(tmp_path, tree))


def test_a_class_without_validation_images_is_a_note(tmp_path):
    bundle = open_data(make(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1}))
    assert "no validation images of b" in bundle.notes[0]


def test_other_wrong_sources_are_explained(tmp_path, monkeypatch):
    make(tmp_path / "photos", {"a": 2, "b": 2})
    with pytest.raises(UserError, match="Did you mean 'photos'"):
        open_data(tmp_path / "phots")
    with pytest.raises(UserError, match="in no format of annotations that is known"):
        open_data(table(tmp_path / "x.dat", "x"))
    for name, annotation in (("x.zip", "labels"), ("x.tar", "boxes"), ("x.tgz", "maps")):
        with pytest.raises(UserError, match=rf"x\.{name[2:]} is an archive\. Unpack it"):
            open_data(table(tmp_path / name, "x"), annotation=annotation)
    with pytest.raises(UserError, match="fraction"):
        open_data(tmp_path / "photos", val_fraction=1.5)
    with pytest.raises(UserError, match="nor a file or folder"):
        open_data(tmp_path / "photos", val=tmp_path / "nowhere")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who may not read it
    with pytest.raises(UserError, match="may not be read"):
        open_data(tmp_path / "photos")


# ----------------------------------------------------------------------------------------------------------- csv


def test_csv_with_splits(tmp_path):
    make(tmp_path, {"x": 6})
    rows = ["0.png,b,train", "1.png,a,train", "2.png,a,train", "3.png,b,valid", "4.png,a,test", "5.png,b,TRAIN"]
    lines = ["\ufefffile;Class;set", *("x/" + row.replace(",", ";") for row in rows), "", ""]
    file = table(tmp_path / "d.csv", "\n".join(lines))
    bundle = open_data(file)
    assert bundle.classes == ("a", "b")
    assert bundle.train.ids == ("x/0.png", "x/1.png", "x/2.png", "x/5.png")
    assert bundle.train.labels == (1, 0, 0, 1)
    assert bundle.val.labels == (1,)
    assert bundle.test.labels == (0,)
    assert bundle.train.read(0).size == (40, 36)


def test_csv_without_splits_is_split(tmp_path):
    make(tmp_path, {"x": 12})
    file = table(tmp_path / "d.csv", "path,label\n" + "".join(f"x/{i}.png,{(2, 10)[i % 2]}\n" for i in range(12)))
    bundle = open_data(file, seed=3)
    assert bundle.classes == ("2", "10")  # numbers in their own order
    assert (len(bundle.train), len(bundle.val)) == (10, 2)


CSV_ERRORS = {
    "empty": ("", "is empty"),
    "header only": ("path,label\n", "no rows"),
    "no label column": ("path,kind\nx/0.png,a\n", "no column 'label'"),
    "no path column": ("pth,label\nx/0.png,a\n", "no column 'path'.*Did you mean 'pth'"),
    "missing file": ("path,label\nx/0.png,a\nx/9.png,b\n", r"line 3.*no file.*1 of 2"),
    "empty label": ("path,label\nx/0.png,\n", "line 2: the label is empty"),
    "short line": ("path,label,split\nx/0.png,a\n", "line 2: 2 fields"),
    "twice": ("path,label\nx/0.png,a\nx/./0.png,b\n", "line 3.*line 2"),
    "wrong split": ("path,label,split\nx/0.png,a,tran\n", "'tran' is unknown"),
    "negative label": ("path,label\nx/0.png,0\nx/1.png,-1\n", "-1 is out of range"),
    "single class": ("path,label\nx/0.png,a\nx/1.png,a\n", "single class"),
    "label unknown to training": (
        "path,label,split\nx/0.png,cat,train\nx/1.png,dog,train\nx/2.png,dogs,val\n", "line 4.*Did you mean 'dog'",
    ),
    "half of the splits": ("path,label,split\nx/0.png,a,train\nx/1.png,b,\n", "unknown"),
    "no training lines": ("path,label,split\nx/0.png,a,val\n", "no images to train on"),
}  # fmt: skip


@pytest.mark.parametrize("name", CSV_ERRORS)
def test_wrong_tables_are_explained(tmp_path, name):
    make(tmp_path, {"x": 3})
    text, message = CSV_ERRORS[name]
    with pytest.raises(UserError, match=message):
        open_data(table(tmp_path / "d.csv", text))


def test_a_table_that_is_no_text_is_explained(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(UserError, match="not a UTF-8"):
        open_data(tmp_path / "d.csv")
    with pytest.raises(UserError, match="no file"):
        open_data(tmp_path / "e.csv")


def listed(root: Path, text: str, encoding: str = "utf-8") -> Path:
    make(root, {"x": 6})
    (root / "d.csv").write_bytes(text.encode(encoding))
    return root / "d.csv"


NAMED = [f"x/{i}.png" for i in range(6)]
TABLES = {
    "floats of pandas": ("path,label", "{name},{number}.0", "utf-8", ("0", "1", "2"), "float-labels"),
    "one column per class": (",filename,rust,Crack", "{i},{name},{even},{odd}", "utf-8", ("Crack", "rust"), "one-hot"),
    "UTF-16": ("path\tlabel", "{name}\tfür {number}", "utf-16", ("für 0", "für 1", "für 2"), ""),
    "Windows-1252": ("path,label", "{name},für {number}", "cp1252", ("für 0", "für 1", "für 2"), "encoding"),
    "a choice of Label Studio": ("annotator,choice,image", "1,{number},/data/upload/4/1a2b3c4d-{i}.png", "utf-8",
                                 ("0", "1", "2"), "other-name"),
    "folds": ("path,label,fold", "{name},{number},{i}", "utf-8", ("0", "1", "2"), "folds"),
    "backslashes": ("path,label", ".\\X\\{i}.png,{number}", "utf-8-sig", ("0", "1", "2"), "other-name"),
    "a class with a comma": ("path,label", '{name},"Po, {number}"', "utf-8", ("Po, 0", "Po, 1", "Po, 2"), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_odd_tables_are_read(tmp_path, name):
    header, row, encoding, classes, kind = TABLES[name]
    lines = [row.format(name=name, i=i, number=i % 3, even=(i + 1) % 2, odd=i % 2) for i, name in enumerate(NAMED)]
    file = listed(tmp_path, "\n".join([header, *lines]), encoding)
    split, found, _ = open_split(file)
    assert found == classes
    assert sorted(split.ids) == NAMED
    wanted = [("rust", "Crack")[i % 2] if len(classes) == 2 else classes[i % 3] for i in range(6)]
    assert [found[label] for label in split.labels] == wanted
    report, _ = check_data(file, annotation="labels")
    assert [finding.kind for finding in report.findings if finding.kind != "duplicate"] == ([kind] if kind else [])


SEVERAL = {
    "a bar": "path,label\nx/0.png,crack|rust\nx/1.png,crack\n",
    "bars alone": "path,label\nx/0.png,crack|rust\nx/1.png,rust|ok\n",
    "a comma": 'path,label\nx/0.png,"crack, rust"\nx/1.png,crack\n',
    "a list": "path;label\nx/0.png;['crack']\nx/1.png;['rust']\n",
    "rows": "path,label\nx/0.png,crack\nx\\0.png,rust\n",
    "columns": "path,crack,rust\nx/0.png,1,1\nx/1.png,0,1\n",
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_labels_are_refused_in_a_sentence(tmp_path, name):
    with pytest.raises(UserError, match=r"line [23].*several labels per image are not supported yet\. Leave one"):
        open_data(listed(tmp_path, SEVERAL[name]))


def test_no_column_that_is_1(tmp_path):
    with pytest.raises(UserError, match="line 2: the label is empty"):
        open_data(listed(tmp_path, "path,a,b\nx/0.png,0,0\nx/1.png,0,1\n"))


def test_a_table_of_boxes_is_called_so(tmp_path):
    file = listed(tmp_path, "filename,width,height,class,xmin,ymin,xmax,ymax\nx/0.png,40,36,a,1,1,9,9\n")
    with pytest.raises(UserError, match=r"lists boxes \(xmin, .* It looks like data in the format csv_boxes, for anno"):
        open_data(file)


# ----------------------------------------------------------------------------------------------------- real data


def test_the_real_photos(real_data):
    folder = real_data / "imagenette"
    if not (folder / "train").is_dir():
        pytest.skip("Imagenette is not unpacked")
    bundle = open_data(folder)
    assert [len(split) for split in bundle.splits().values()] == [1500, 400]
    assert bundle.train.counts(10) == (150,) * 10
    assert (bundle.in_channels, bundle.default_size, bundle.notes) == (3, 224, ())
    modes = Counter(bundle.val.read(i).mode for i in range(0, 400, 5))
    assert set(modes) <= {"RGB", "L"}


def test_the_real_cifar_photos(real_data):
    folder = real_data / "cifar10"
    if not (folder / "train").is_dir():
        pytest.skip("JPEG CIFAR-10 is not unpacked")
    bundle = open_data(folder, seed=0)
    assert [len(split) for split in bundle.splits().values()] == [45_000, 5_000, 10_000]
    assert bundle.default_size == 32
    assert len(open_split(folder, classes=bundle.classes)[0]) == 10_000


# ---------------------------------------------------------------------------------------------------- open_split


def test_evaluation_takes_test_before_val_and_a_flat_folder_whole(tmp_path):
    make(tmp_path / "s", {"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 2, "test/a": 1, "test/b": 1})
    assert len(open_split(tmp_path / "s")[0]) == 2
    assert len(open_split(tmp_path / "s", split="val")[0]) == 4
    assert len(open_split(tmp_path / "s", split="train")[0]) == 6
    make(tmp_path / "f", {"b": 3, "c": 2})
    split, classes, what = open_split(tmp_path / "f", classes=("a", "b", "c"))
    assert (split.labels, classes) == ((1, 1, 1, 2, 2), ("a", "b", "c"))
    assert what == "all images of f (the folder f)"
    with pytest.raises(UserError, match="'b'"):
        open_split(tmp_path / "f", classes=("a", "c"))
    assert len(open_split(tmp_path / "f", split="train", val_fraction=0.4)[0]) == 3
    with pytest.raises(UserError, match="Did you mean 'train'"):
        open_split(tmp_path / "f", split="trian")


def test_evaluation_of_the_digits_and_of_a_table(tmp_path):
    assert len(open_split("digits")[0]) == 360
    make(tmp_path, {"x": 4})
    file = table(tmp_path / "d.csv", "path,label\n" + "".join(f"x/{i}.png,{'ab'[i % 2]}\n" for i in range(4)))
    assert len(open_split(file)[0]) == 4
    with pytest.raises(UserError, match="not one of training's"):
        open_split(file, classes=("b", "c"))


@pytest.mark.parametrize("label", ["--1", "9" * 5000])
def test_labels_that_only_look_like_numbers_are_names(tmp_path, label):
    make(tmp_path, {"a": 2, "b": 2})
    rows = [f"a/{i}.png,{label}\nb/{i}.png,2\n" for i in range(2)]
    assert open_data(table(tmp_path / "t.csv", "path,label\n" + "".join(rows))).num_classes == 2


def test_the_line_of_a_wrong_entry_counts_line_breaks_in_names(tmp_path):
    make(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "new\nline.png")
    file = table(tmp_path / "t.csv", 'path,label\n"a/new\nline.png",x\nb/0.png,\n')
    with pytest.raises(UserError, match="line 4: the label is empty"):
        open_data(file)
