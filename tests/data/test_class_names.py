"""Where the names of classes come from, and that they stay what they are."""

import pytest
from scene_files import write_yolo

from resurge.data.sources import open_data
from resurge.errors import UserError

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
