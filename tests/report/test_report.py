"""The page that a run directory becomes: complete, self-contained, safe, and with missing pieces left out."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_run import make_run
from report_page import Page, edit

from resurge.errors import UserError
from resurge.report import write_report

SECTIONS = {
    "curves", "confusion", "classes", "calibration", "mistakes", "maps", "network", "cost", "recipe", "data",
}  # fmt: skip


def test_the_page_has_every_section(run_dir: Path) -> None:
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    page = Page(path)
    assert page.ids() == SECTIONS
    for expected in (
        "digits-demo",
        "2.35 M",
        "label_smoothing: 0.1",
        "fixed split",
        "Most confused",
        "receptive field",
    ):
        assert expected.lower() in page.text.lower()


def test_the_headline_is_the_evaluated_score_with_its_interval(run_dir: Path) -> None:
    edit(run_dir / "evaluation.json", top1=0.9861)
    text = Page(write_report(run_dir)).text
    assert "98.61 %" in text
    # Wilson, n = 360, p = 0.9861: computed by hand from the formula.
    assert "96.8 % to 99.4 %" in text


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(run_dir: Path) -> None:
    page = Page(write_report(run_dir))
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    for _, attributes in page.tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#"))
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_the_page_suits_phones_and_dark_rooms(run_dir: Path) -> None:
    page = Page(write_report(run_dir))
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert "prefers-color-scheme: dark" in page.source


@pytest.mark.parametrize(
    "missing, section",
    [
        ("metrics.csv", "curves"),
        ("recipe.yaml", "recipe"),
        ("explain/network.svg", "network"),
        ("explain/cost.json", "cost"),
        ("evaluation.json", "confusion"),
    ],
)
def test_a_missing_file_leaves_out_its_section(run_dir: Path, missing: str, section: str) -> None:
    (run_dir / missing).unlink()
    ids = Page(write_report(run_dir)).ids()
    assert section not in ids
    assert "data" in ids


def test_a_run_with_nothing_but_its_model_has_a_page(run_dir: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "model.json").write_text((run_dir / "model.json").read_text())
    text = Page(write_report(bare)).text
    assert "98.00 %" in text  # the score in model.json


def test_missing_thumbnails_leave_the_words(run_dir: Path) -> None:
    for picture in (run_dir / "explain").glob("*.png"):
        picture.unlink()
    page = Page(write_report(run_dir))
    assert "mistakes" in page.ids()
    assert sum(tag == "img" for tag, _ in page.tags) == 1  # the network's diagram


def test_untrusted_names_are_text(run_dir: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\x00\x1b'
    edit(run_dir / "model.json", classes=[evil] * 10, spec=evil, data={"name": evil, evil: [evil, {evil: evil}]})
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    for row in evaluation["per_class"]:
        row["class"] = evil
    for mistake in evaluation["mistakes"]:
        mistake |= {"id": evil, "path": evil, "true": evil, "predicted": evil}
    edit(run_dir / "evaluation.json", **evaluation | {"split": evil})
    (run_dir / "recipe.yaml").write_text(evil)
    edit(run_dir / "explain" / "cost.json", rows=[{"name": evil, "shape": [evil]}], input=[evil])
    page = Page(write_report(run_dir))
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert "\x00" not in page.source
    assert "alert(1)" in page.text


def test_pictures_outside_the_run_are_not_taken_along(run_dir: Path) -> None:
    secret = b"\x89PNG\r\n\x1a\nnobody's business"
    (run_dir.parent / "secret.png").write_bytes(secret)
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    outside = str(run_dir.parent / "secret.png")
    for name, mistake in zip(
        ("../secret.png", outside, "explain/../../secret.png"), evaluation["mistakes"], strict=False
    ):
        mistake["thumbnail"] = mistake["overlay"] = name
    edit(run_dir / "evaluation.json", **evaluation)
    source = write_report(run_dir).read_text()
    assert base64.b64encode(secret).decode() not in source


def test_a_file_that_is_no_picture_is_left_out(run_dir: Path) -> None:
    (run_dir / "explain" / "mistake_0.png").write_text("<html>not a picture</html>")
    write_report(run_dir)
    images = [attrs["src"] for tag, attrs in Page(run_dir / "report.html").tags if tag == "img"]
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", src or "") for src in images)


@pytest.mark.parametrize("name", ["model.json", "evaluation.json", "explain/cost.json"])
def test_a_file_cut_short_is_named(run_dir: Path, name: str) -> None:
    path = run_dir / name
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match=Path(name).name):
        write_report(run_dir)
    assert not (run_dir / "report.html").exists()


def test_an_unfinished_run_says_how_to_go_on(run_dir: Path) -> None:
    (run_dir / "model.json").unlink()
    with pytest.raises(UserError, match="--resume"):
        write_report(run_dir)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["[]", '"text"', "3"])
def test_json_of_another_kind_is_refused(run_dir: Path, content: str) -> None:
    (run_dir / "evaluation.json").write_text(content)
    with pytest.raises(UserError, match="JSON object"):
        write_report(run_dir)


@pytest.mark.parametrize("key", ["per_class", "confusion", "mistakes", "reliability"])
def test_a_field_of_another_kind_is_refused(run_dir: Path, key: str) -> None:
    edit(run_dir / "evaluation.json", **{key: "oops"})
    with pytest.raises(UserError, match=key):
        write_report(run_dir)


def test_odd_entries_do_not_break_the_page(run_dir: Path) -> None:
    edit(
        run_dir / "evaluation.json",
        per_class=[{"class": "a"}, 7, {"class": None, "n": "many", "f1": None}],
        confusion=[[1, 2], [3]],
        mistakes=[{}, None, {"confidence": "high", "thumbnail": 3}],
        reliability=[{"confidence": 2, "accuracy": 0.5, "n": 3}, {"n": None}],
        ece=float("nan"),
    )
    page = Page(write_report(run_dir))
    assert "confusion" not in page.ids()
    assert "mistakes" in page.ids()
    assert not any("Reliability" in (attrs.get("aria-label") or "") for _, attrs in page.tags)


def test_metrics_with_gaps_nan_and_a_row_cut_short(run_dir: Path) -> None:
    (run_dir / "metrics.csv").write_text(
        "epoch,lr,train_loss,val_loss\n0,0.1,2.5,\n1,0.1,nan,1.5\n2,0.05,inf,1.2\n3,0.0"
    )
    page = Page(write_report(run_dir))
    labels = [attrs.get("aria-label") or "" for tag, attrs in page.tags if tag == "svg"]
    assert any("training 2.5, validation 1.2" in label for label in labels)
    drawn = [attrs["points"] or "" for tag, attrs in page.tags if tag == "polyline"]
    assert drawn
    assert not any("nan" in points or "inf" in points for points in drawn)


def test_many_classes_show_the_confused_pairs_and_the_weakest(tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "many", [f"kind {i}" for i in range(100)])))
    tables = [attrs for tag, attrs in page.tags if tag == "table"]
    assert all("heat" not in (attrs.get("class") or "") for attrs in tables)
    assert "15 weakest of 100" in page.text
    assert "Taken for" in page.text


def test_the_confusion_matrix_shows_every_count(run_dir: Path) -> None:
    page = Page(write_report(run_dir))
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    told = [attrs["title"] or "" for tag, attrs in page.tags if tag == "td" and "title" in attrs]
    assert len(told) == 100
    assert told[11].startswith(f"1 taken for 1: {evaluation['confusion'][1][1]} of 36")


def test_importing_and_writing_needs_no_torch(run_dir: Path) -> None:
    code = (
        "import sys; from resurge.report import write_report; write_report(sys.argv[1]);"
        "heavy = {'torch', 'torchvision', 'lightning_fabric', 'numpy', 'matplotlib', 'sklearn', 'PIL'};"
        "heavy &= set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_dir)],
        env={"PYTHONPATH": str(source), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_run_older_than_the_tasks_is_a_classifiers(run_dir: Path) -> None:
    whole = write_report(run_dir).read_text()
    content = json.loads((run_dir / "model.json").read_text())
    del content["task"]
    (run_dir / "model.json").write_text(json.dumps(content))
    assert write_report(run_dir).read_text() == whole
