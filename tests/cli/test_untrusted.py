"""Files and names of somebody who means harm, on the command line: nothing that a name holds reaches the terminal or a
spreadsheet as a command, and what a file asks for is bounded."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bombs import ALIASES
from hypothesis import given
from hypothesis import strategies as st
from scene_files import healthy_coco
from scene_runs import write_run
from tiny_exports import pictures, write_classifier
from two_classes import write_images

from resurge.cli import main
from resurge.cli.options import log
from resurge.data.sources import open_data
from resurge.data.splits import write_split
from resurge.errors import UserError
from resurge.recipe import Recipe
from resurge.untrusted import from_cell, shown, to_cell

EVIL = "\x1b]0;pwned\x07\x1b[2J\u202efdp\r\n=HYPERLINK(1)"
FORMULA = "=cmd|' /C calc'!A0"
TINY = ["--size", "16", "--steps", "2", "--batch-size", "4", "--workers", "0", "--threads", "1", "--device", "cpu"]

Description = dict[str, Any]


def is_plain(text: str) -> bool:
    """Whether nothing in it moves the cursor, changes colours or turns the direction of writing."""
    return shown(text.replace("\n", "")) == text.replace("\n", "")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose classes have such names."""
    folder = write_classifier(tmp_path_factory.mktemp("runs") / "classifier")
    changed(folder, lambda d: d.update(classes=[FORMULA, EVIL, *d["classes"][2:]]))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with such names, one of them no picture."""
    folder = tmp_path_factory.mktemp("images")
    for name, image in zip(
        (FORMULA.replace("/", "") + ".png", EVIL.replace("/", "") + ".png", "plain.png"), pictures(3), strict=True
    ):
        image.save(folder / name)
    (folder / f"broken{EVIL}.png").write_bytes(b"\x1b[31mno picture")
    return folder


def changed(folder: Path, change: Callable[[Description], object]) -> Path:
    file = folder / "model.json"
    description = json.loads(file.read_text())
    change(description)
    file.write_text(json.dumps(description))
    return folder


# -------------------------------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("options", [(), ("--csv",), ("--top", "2")])
def test_predictions(
    options: tuple[str, ...], classifier: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(classifier), str(images), *options]) == 1
    printed = capsys.readouterr()
    assert is_plain(printed.out)
    assert is_plain(printed.err)
    assert len(printed.out.splitlines()) == 3 + (options == ("--csv",))  # a line for each picture
    assert r"\x1b]0;pwned" in printed.err


def test_predictions_in_json_are_exact(classifier: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(classifier), str(images), "--json", "--top", "9"]) == 1
    found = json.loads(capsys.readouterr().out)["images"]
    assert {Path(each["path"]).name for each in found} == {
        file.name for file in images.iterdir() if "broken" not in file.name
    }
    assert {EVIL, FORMULA} <= {one["class"] for one in found[0]["predictions"]}


def test_predictions_as_a_table_for_a_spreadsheet(
    classifier: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    named = [name for name in sorted(file.name for file in images.iterdir()) if name.startswith("=")]
    assert main(["predict", str(classifier), *named, "--out", str(tmp_path / "found.csv"), "--top", "9"]) == 0
    rows = list(csv.reader(io.StringIO((tmp_path / "found.csv").read_text())))
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert f"'{named[0]}" in cells
    assert f"'{FORMULA}" in cells


def test_objects_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = healthy_coco(tmp_path / "data")
    for file in (root / "annotations").iterdir():
        document = json.loads(file.read_text())
        document["categories"][0]["name"] = document["categories"][1]["name"] = EVIL
        document["images"][0]["file_name"] = f"{EVIL}.png"
        file.write_text(json.dumps(document))
    assert main(["check-data", str(root), "--task", "detect"]) == 1
    printed = capsys.readouterr()
    assert is_plain(printed.out)
    assert "pwned" in printed.out
    assert main(["check-data", str(root / EVIL)]) == 2
    assert is_plain(err := capsys.readouterr().err)
    assert len(err.splitlines()) == 1


def test_a_training_and_what_follows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "data", 6, 0)
    names = [FORMULA.replace("/", ""), EVIL]
    for old, new in zip(("left", "top"), names, strict=True):
        (tmp_path / "data" / old).rename(tmp_path / "data" / new)
    (tmp_path / "data" / EVIL / f"{EVIL}.png").write_bytes(b"no picture")
    (tmp_path / "data" / f"{EVIL}.zip").write_bytes(b"no picture")
    run = tmp_path / "run"
    spec = "resnet18 depths=(1,1,1,1) planes=(8,8,8,8)"
    assert main(["train", "--data", str(tmp_path / "data"), "--out", str(run), "--model", spec, *TINY]) == 0
    for command in (["show", str(run)], ["eval", str(run), "--device", "cpu"], ["report", str(run)]):
        assert main(command) == 0, command
    printed = capsys.readouterr()
    assert is_plain(printed.out)
    assert is_plain(printed.err)
    assert not set("\x1b\x07") & set((run / "report.html").read_text())
    cells = [cell for row in csv.reader(io.StringIO((run / "split.csv").read_text(), newline="")) for cell in row]
    assert f"'{names[0]}" in cells
    assert not [cell for cell in cells if cell.startswith("=")]
    bundle = open_data(run / "split.csv")  # which is read back as it was
    assert bundle.classes == tuple(sorted(names))
    assert len(bundle.train) + len(bundle.val) == 12 + 1


def test_a_split_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("-1", "=x", "'=x", "-none-", "@", "'quoted'"):
        write_images(tmp_path / "two", 2, 0)
        (tmp_path / "two/left").rename(tmp_path / "data" / name)
        shutil.rmtree(tmp_path / "two")
    bundle = open_data(tmp_path / "data")
    write_split(bundle, tmp_path / "split.csv")
    again = open_data(tmp_path / "split.csv")
    assert again.classes == bundle.classes
    assert [again.train.labels, again.val.labels] == [bundle.train.labels, bundle.val.labels]


@given(st.text(alphabet="'=+-@\t\r1.ex", max_size=6))
def test_cells_are_no_formulas_and_come_back(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        assert float(cell) is not None  # a number stays one


def test_a_long_message_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    log("begin " + "x" * 1_000_000 + " end")
    printed = capsys.readouterr().err
    assert len(printed) < 5000
    assert printed.startswith("resurge: begin")
    assert printed.endswith(" end\n")


# ---------------------------------------------------------------------------------------------------- what is asked for

LARGE: dict[str, Callable[[Description], object]] = {
    "channels": lambda d: d.update(in_channels=10**9),
    "channels within the limit": lambda d: d.update(in_channels=4000, spec=d["spec"] + " stem=deep(32768)"),
    "no channels": lambda d: d.update(in_channels=0),
    "classes": lambda d: d.update(classes=["x"] * 3_000_000),
    "size": lambda d: d["preprocessing"].update(size=10**6),
    "size of a crop": lambda d: d["preprocessing"].update(crop_pct=1e-6),
    "a number of many digits": lambda d: d["preprocessing"].update(size=10**400),
    "width": lambda d: d.update(spec="resnet50 planes=(30000,30000,30000,30000)"),
    "depth": lambda d: d.update(spec="resnet50 depths=(60,60,60,60)"),
    "groups": lambda d: d.update(spec=f"resnet50 groups={10**12}"),
    "a number in the text": lambda d: d.update(spec=f"resnet50 groups={'9' * 900}"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_description_that_asks_for_the_memory(
    name: str, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(write_classifier(tmp_path / "run"), LARGE[name])
    assert main(["predict", str(folder), str(images / "plain.png")]) == 2
    printed = capsys.readouterr().err
    assert "model.json" in printed
    assert len(printed) < 5000
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["preprocessing"].update(short_side=10**6, max_size=10**7),
        lambda d: d["preprocessing"].update(max_size=10**6),
        lambda d: d["head_settings"].update(mask_size=10**6),
        lambda d: d["head_settings"].update(box_size=10**5),
        lambda d: d["head_settings"].update(box_size=200, box_channels=10**6),
        lambda d: d["head_settings"].update(anchor_ratios=[1.0] * 10**5),
        lambda d: d["head_settings"].update(fpn_channels=10**6),
    ],
)
def test_the_same_of_a_detector(
    change: Callable[[Description], object], tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(write_run(tmp_path / "run", "instances"), change)
    assert main(["predict", str(folder), str(images / "plain.png")]) == 2
    assert "model.json" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[" * 100_000, '{"spec":' * 50_000, '{"format": ' + "1" * 100_000 + "}", '"' + EVIL])
def test_a_description_that_is_none(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.json").write_text(text)
    assert main(["show", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "damaged or was cut short" in printed
    assert len(printed.splitlines()) == 1


RECIPES = {
    "deep": "[" * 1000,
    "deep mappings": "".join(" " * depth + "a:\n" for depth in range(2000)),
    "aliases": ALIASES + "lr: *i\n",
    "itself": "mean: &a [*a]\n",
    "digits": "lr: " + "1" * 100_000,
    "hexadecimal digits": "seed: 0x" + "1" * 100_000,
    "digits as text": f"lr: '{'1' * 100_000}'",
    "sexagesimal digits": "seed: 1" + ":59" * 50_000,
    "many": f"batch_size: 1{'0' * 200}",
    "a date that is none": "seed: 2001-99-99",
    "an object": "seed: !!python/object/apply:os.system [ls]",
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPES[name])
    assert main(["train", "--recipe", str(tmp_path / "recipe.yaml"), "--print-recipe"]) == 2
    printed = capsys.readouterr().err
    assert len(printed) < 5000
    assert len(printed.splitlines()) == 1


def test_assignments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="lr takes a number"):
        Recipe().override(["lr=0x" + "1" * 4000])
    with pytest.raises(UserError, match="lr takes a number"):
        Recipe().override(["lr=" + "[" * 1000])
