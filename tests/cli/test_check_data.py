import json

import pytest
from scene_files import mask, picture, voc_xml, write_pairs, write_voc

from resurge.cli import main

OBJECTS = {"a": [("dog", 1, 1, 9, 9), ("dog", 4, 4, 4, 4)], "b": [("dog", 1, 1, 9, 9)]}


def test_faults_are_named_and_mended(tmp_path, capsys):
    root = write_voc(tmp_path / "set", OBJECTS, {"train": ["a"], "val": ["b"]})
    assert main(["check-data", str(root), "--task", "detect"]) == 1
    assert "JPEGImages/a.jpg, object 2: the box has no area" in capsys.readouterr().out
    assert main(["check-data", str(root), "--fix", str(tmp_path / "out")]) == 1
    text = capsys.readouterr().out
    assert f"mended copy in {tmp_path / 'out'}" in text
    assert "Annotations/a.xml: 1 box(es) without area removed" in text
    (tmp_path / "out/JPEGImages").symlink_to(root / "JPEGImages")
    assert main(["check-data", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stats"]["objects"] == 2
    assert main(["check-data", str(root), "--fix", str(tmp_path / "out")]) == 2
    assert "not empty" in capsys.readouterr().err


def test_figures_as_json(tmp_path, capsys):
    root = write_pairs(tmp_path / "set")
    assert main(["check-data", str(root), "--json", "--fix", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stats"]["pixels"]["train"] == {"class 0": 900, "class 1": 900, "class 2": 900}
    assert found["fixed"]["folder"] == str(tmp_path / "out")
    assert found["fixed"]["changes"][0].startswith("nothing needed mending")


@pytest.mark.parametrize("words, message", [
    (["--task", "detct"], "detect"), (["--fix", "out"], "none that are apart from its images"),
])  # fmt: skip
def test_what_is_refused(tmp_path, capsys, words, message):
    assert main(["check-data", "digits", *words]) == 2
    assert message in capsys.readouterr().err


def found(root, capsys) -> tuple[str, dict]:
    """The line that says what was found, and the JSON."""
    main(["check-data", str(root)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  found ")]
    main(["check-data", str(root), "--json"])
    return "".join(lines), json.loads(capsys.readouterr().out)


def test_what_the_data_are_for_is_found_and_said(tmp_path, capsys):
    line, report = found(write_voc(tmp_path / "boxes", OBJECTS), capsys)
    assert line == "  found boxes in the format voc, for --task detect"
    assert (report["task"], report["annotation"]) == ("detect", "boxes")
    line, report = found(write_pairs(tmp_path / "maps"), capsys)
    assert line == "  found maps in the format pairs, for --task segment"
    assert (report["task"], report["annotation"]) == ("segment", "maps")
    for i in range(4):
        picture(tmp_path / f"pets/{'ab'[i % 2]}/{i}.png", i)
    line, report = found(tmp_path / "pets", capsys)
    assert line == "  found labels in the format folder, for --task classify"
    assert (report["task"], report["annotation"], report["notes"]) == ("classify", "labels", [])


def test_a_folder_that_is_two_things_says_so(tmp_path, capsys):
    for i in range(4):
        picture(tmp_path / f"pets/{'ab'[i % 2]}/{i}.png", i)
        (tmp_path / f"pets/{'ab'[i % 2]}/{i}.xml").write_text(voc_xml([("dog", 1, 1, 9, 9)]))
    line, report = found(tmp_path / "pets", capsys)
    assert "found boxes in the format voc" in line
    assert report["notes"][0] == "the folder also has folders that may be classes (a, b), for --task classify"
    root = write_voc(tmp_path / "both", OBJECTS)
    for stem in "ab":
        mask(root / f"SegmentationClass/{stem}.png", 1)
    _, report = found(root, capsys)
    assert "also looks like data in the format voc_segmentation, for --task segment" in report["notes"][0]


def test_annotations_that_are_not_known_are_named(tmp_path, capsys):
    for i in range(4):
        picture(tmp_path / f"set/images/{i}.png", i)
    (tmp_path / "set/notes.json").write_text('{"pictures": []}')
    assert main(["check-data", str(tmp_path / "set")]) == 1
    said = capsys.readouterr().out
    assert "set has 1 file that may be annotations, such as notes.json, in no format that is known (COCO" in said
    assert main(["train", "--data", str(tmp_path / "set"), "--task", "classify", "--out", str(tmp_path / "run")]) == 2
    assert "such as notes.json, in no format that is known (COCO" in capsys.readouterr().err


@pytest.mark.parametrize("task, hint", [
    ("classify", "It looks like data in the format voc, for --task detect or --task instances."),
    ("segment", "has objects but no class for every pixel"),
])  # fmt: skip
def test_training_for_another_task_says_what_the_data_are(tmp_path, capsys, task, hint):
    root = write_voc(tmp_path / "boxes", OBJECTS)
    (root / "JPEGImages").rename(root / "images")
    assert main(["train", "--data", str(root), "--task", task, "--out", str(tmp_path / "run")]) == 2
    assert hint in capsys.readouterr().err


def test_classes_for_another_task_are_called_so(tmp_path, capsys):
    for i in range(4):
        picture(tmp_path / f"pets/{'ab'[i % 2]}/{i}.png", i)
    assert main(["train", "--data", str(tmp_path / "pets"), "--task", "detect", "--out", str(tmp_path / "run")]) == 2
    assert "It looks like data in the format folder, for --task classify." in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("path,label\npets/a/0.png,a\n")
    assert main(["check-data", str(tmp_path / "t.csv"), "--task", "segment"]) == 2
    assert "It looks like data in the format csv, for --task classify." in capsys.readouterr().err
