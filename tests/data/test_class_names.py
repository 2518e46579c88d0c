"""Where the names of classes come from, and that they stay what they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scene_files import annotation, coco_document, picture, write_coco, write_nuclei, write_pairs, write_voc, write_yolo

from resurge.data.annotations import Annotation
from resurge.data.class_names import given_classes, written_out
from resurge.data.reading import Reading
from resurge.data.sources import open_data, open_split
from resurge.data.splits import DataBundle
from resurge.errors import UserError
from resurge.recipe import Recipe

LINES = "0 0.5 0.5 0.5 0.5\n1 0.2 0.2 0.1 0.1"


@pytest.mark.parametrize("text, names", [
    ("[no, yes]", ("no", "yes")), ("[010, 1e3]", ("010", "1e3")), ("{0: null, 1: true}", ("null", "true")),
    ("\n  - 2024-01-02\n  - 1_000", ("2024-01-02", "1_000")), ("['on', ~]\nnc: 2", ("on", "~")),
])  # fmt: skip
def test_names_in_yaml_stay_text(tmp_path, text, names):
    write_yolo(tmp_path, {f"train/{i}": LINES for i in range(3)}, names=())
    (tmp_path / "data.yaml").write_text(f"train: images/train\nnames: {text}\n")
    assert open_data(tmp_path, annotation="boxes").classes == names


@pytest.mark.parametrize("text, message", [
    ("[bolt, bolt]", "'bolt' more than once"), ("[bolt, nut]\nnc: 3", "nc: 3, but names 2 classes"),
    ("[bolt, [nut]]", "must be a list of class names"), ("{0: a, 00: b}", "without gaps"),
])  # fmt: skip
def test_names_in_yaml_that_contradict_themselves(tmp_path, text, message):
    write_yolo(tmp_path, {f"train/{i}": LINES for i in range(3)}, names=())
    (tmp_path / "data.yaml").write_text(f"train: images/train\nnames: {text}\n")
    with pytest.raises(UserError, match=message):
        open_data(tmp_path, annotation="boxes")


# -------------------------------------------------------------------------------------------- --classes and rename


def written(kind: str, root: Path) -> Path:
    """A small data set of each format with the classes cat and dog, or without names."""
    if kind == "coco":
        return write_coco(root, coco_document([annotation(1, 10), annotation(2, 20, 7), annotation(3, 30)]))
    if kind == "voc":
        return write_voc(root, {stem: [("cat", 2, 2, 9, 9), ("dog", 3, 3, 20, 20)] for stem in "abc"})
    if kind.startswith("yolo"):
        return write_yolo(root, dict.fromkeys("abc", LINES), ("cat", "dog") if kind == "yolo" else ())
    if kind == "maps":
        write_pairs(root, ("train",), classes=2)
        (root / "classes.txt").write_text("cat\ndog\n")
        return root
    if kind == "masks":
        return write_nuclei(root)
    for i in range(4):
        picture(root / ("cat", "dog")[i % 2] / f"{i}.png", i)
    return root


ANNOTATION = {"coco": "boxes", "voc": "boxes", "yolo": "boxes", "yolo without names": "boxes",
              "masks": "masks", "maps": "maps", "folders": "labels"}  # fmt: skip


def labels_of(bundle: DataBundle[Any]) -> Counter[str]:
    """How often each class is drawn."""
    counted: Counter[str] = Counter()
    for split in (bundle.train, bundle.val):
        for index in range(len(split)):
            target = split.labels[index] if bundle.annotation == "labels" else split.target(index)
            target = target.labels if bundle.annotation in ("boxes", "masks") else np.asarray(target).reshape(-1)
            counted.update(bundle.classes[label] for label in target.tolist() if label != 255)
    return counted


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo", "maps", "folders"])
def test_classes_are_renamed_joined_and_ordered(tmp_path: Path, kind: str) -> None:
    root, annotation = written(kind, tmp_path / "set"), ANNOTATION[kind]

    def opened(**reading: Any) -> DataBundle[Any]:
        return open_data(root, annotation=annotation, reading=Reading(**reading))

    plain = labels_of(opened())
    assert min(plain["cat"], plain["dog"]) > 0
    renamed = opened(rename=("cat=no",))
    assert "cat" not in renamed.classes
    assert labels_of(renamed)["no"] == plain["cat"]
    if kind != "folders":  # a classifier needs two classes
        joined = opened(rename=("cat=dog",))
        assert labels_of(joined)["dog"] == plain["cat"] + plain["dog"]
        assert joined.classes.count("dog") == 1
    if kind != "maps":
        ordered = opened(classes=("dog", "bird", "cat"))
        assert ordered.classes == ("dog", "bird", "cat")
        assert labels_of(ordered) == plain
        with pytest.raises(UserError, match=r"--classes leaves out .*'cat'"):
            opened(classes=("dog", "bird"))
    with pytest.raises(UserError, match=r"rename: there is no class 'cta'.*Did you mean 'cat'"):
        opened(rename=("cta=x",))


@pytest.mark.parametrize("kind, names", [("yolo without names", ("0", "1")), ("masks", ("object",))])
def test_classes_without_names_get_them_in_order(tmp_path: Path, kind: str, names: tuple[str, ...]) -> None:
    root, given = written(kind, tmp_path / "set"), ("bolt", "nut")[: len(names)]
    plain = open_data(root, annotation=ANNOTATION[kind])
    assert plain.classes == names
    assert f"classes without names are called {', '.join(names)}" in plain.how
    bundle = open_data(root, annotation=ANNOTATION[kind], reading=Reading(classes=given))
    assert bundle.classes == given
    assert "without names" not in bundle.how
    assert labels_of(bundle) == {new: labels_of(plain)[old] for new, old in zip(given, names, strict=True)}
    split, _, _ = open_split(root, annotation=ANNOTATION[kind], classes=given)
    assert sorted({int(label) for i in range(len(split)) for label in split.target(i).labels}) == list(
        range(len(given))
    )
    with pytest.raises(UserError, match="names 1: x"):
        open_data(
            written("yolo without names", tmp_path / "other"), annotation="boxes", reading=Reading(classes=("x",))
        )


def test_the_data_science_bowl_s_masks_are_nuclei(tmp_path: Path) -> None:
    assert open_data(write_nuclei(tmp_path / "stage1_train"), annotation="masks").classes == ("nucleus",)
    renamed = open_data(tmp_path / "stage1_train", annotation="masks", reading=Reading(rename=("nucleus=cell",)))
    assert renamed.classes == ("cell",)


def test_validation_is_renamed_too_and_may_lack_the_class(tmp_path: Path) -> None:
    root = written("voc", tmp_path / "set")
    val = write_voc(tmp_path / "val", {"x": [("dog", 2, 2, 9, 9)], "y": [("dog", 2, 2, 9, 9)]})
    bundle = open_data(root, annotation="boxes", val=val, reading=Reading(rename=("cat=tom", "dog=rex")))
    assert bundle.classes == ("tom", "rex")
    assert bundle.val.target(0).labels.tolist() == [1]
    split, _, _ = open_split(
        val, annotation="boxes", classes=bundle.classes, reading=Reading(rename=("cat=tom", "dog=rex"))
    )
    assert split.target(0).labels.tolist() == [1]


@pytest.mark.parametrize("task", ["labels", "maps"])
def test_the_embedded_data_can_be_renamed(task: Annotation) -> None:
    plain = open_data("digits", annotation=task)
    bundle = open_data("digits", annotation=task, reading=Reading(rename=(f"{plain.classes[3]}=three",)))
    assert bundle.classes == (*plain.classes[:3], "three", *plain.classes[4:])
    if task == "labels":
        joined = open_data("digits", reading=Reading(rename=("1=0",)))
        assert labels_of(joined)["0"] == labels_of(plain)["0"] + labels_of(plain)["1"]
    else:
        with pytest.raises(UserError, match="not be joined"):
            open_data("digits", annotation=task, reading=Reading(rename=("1=0",)))


@pytest.mark.parametrize("given, told", [
    (("a", "1=b"), "with every name or with none"), (("a", "a"), "'a' more than once"), (("x=b",), "value=name"),
    (("1=a", "1=b"), "two classes the same value"), (("none.txt",), "none.txt"),
])  # fmt: skip
def test_lists_that_are_none(given: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        given_classes(given)


def test_a_file_of_classes_is_written_out(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("no\nb=c\n")
    assert written_out((str(tmp_path / "classes.txt"),)) == ("0=no", "1=b=c")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nsky:0,0,0::\n__ignore__:1,2,3::\n")
    coloured = written_out((str(tmp_path / "labelmap.txt"),))
    assert coloured == ("#000000=sky", "#010203=ignore")
    table = given_classes(coloured)
    assert table is not None
    assert table.colours == {0: 0, 0x010203: 255}
    assert written_out(("a", "b")) == ("a", "b")


@pytest.mark.parametrize("text, classes", [
    ("reading:\n  classes: [no, 010, 1e3, null, (a)]", ("no", "010", "1e3", "null", "(a)")),
    ("classes: yes,2024-01-02", ("yes", "2024-01-02")), ("reading: {rename: [no=off]}", ()),
])  # fmt: skip
def test_names_in_recipes_stay_text(text: str, classes: tuple[str, ...]) -> None:
    recipe = Recipe.from_yaml(text)
    assert recipe.reading.classes == classes
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    if classes:
        listed = f"[{', '.join(classes)}]"
        assert Recipe().override([f"classes={listed}"]).reading.classes == classes
