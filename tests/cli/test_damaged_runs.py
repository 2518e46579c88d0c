"""Run directories whose description was damaged: each command says so in one line, and ends with code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resurge.cli import main

WHOLE = {
    "format": 1,
    "spec": "resnet18",
    "task": "detect",
    "in_channels": 3,
    "classes": ["red", "green"],
    "preprocessing": {"kind": "scene"},
}


@pytest.mark.parametrize("field", ["classes", "preprocessing", "in_channels"])
def test_show_explains_a_field_of_another_kind(field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.json").write_text(json.dumps(WHOLE))
    assert main(["show", str(tmp_path)]) == 0
    capsys.readouterr()
    (tmp_path / "model.json").write_text(json.dumps({**WHOLE, field: None}))
    assert main(["show", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert f"model.json is damaged: {field} is None" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
