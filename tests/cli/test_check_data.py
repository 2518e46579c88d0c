import json

import pytest
from scene_files import write_pairs, write_voc

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
