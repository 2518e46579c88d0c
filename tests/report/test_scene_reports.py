"""The pages of detectors, instance segmenters and semantic segmenters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_run import make_scene_run
from report_page import Page, edit

from resurge.errors import UserError
from resurge.report import write_report

COMMON = {"curves", "classes", "wrong", "worst", "best", "network", "cost", "recipe", "data"}
SECTIONS = {
    "detect": COMMON | {"precision", "sizes", "figures"},
    "instances": COMMON | {"precision", "sizes", "figures"},
    "segment": COMMON | {"confusion"},
}
TASKS = ("detect", "instances", "segment")
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\x00\x1b'


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scene_run(task: str, tmp_path: Path) -> Path:
    return make_scene_run(tmp_path / f"{task}-demo", task)


def charts(page: Page) -> list[str]:
    return [attrs.get("aria-label") or "" for tag, attrs in page.tags if tag == "svg"]


def test_the_page_has_every_section(task: str, scene_run: Path) -> None:
    page = Page(write_report(scene_run))
    assert page.ids() == SECTIONS[task]
    pictures = sum((attrs.get("src") or "").startswith("data:image/jpeg") for tag, attrs in page.tags if tag == "img")
    assert pictures == 3 * 3 * 2
    assert "script" not in {tag for tag, _ in page.tags}


def test_headlines(tmp_path: Path) -> None:
    for task, main in (("detect", "Box AP"), ("instances", "Mask AP"), ("segment", "Mean IoU")):
        run = make_scene_run(tmp_path / task, task)
        evaluation = json.loads((run / "evaluation.json").read_text())
        kind = {"detect": "box", "instances": "mask"}.get(task)
        score = evaluation[kind]["ap"] if kind else evaluation["miou"]
        text = Page(write_report(run)).text
        assert f"{main} {100 * score:.2f}\u202f%".replace("\u202f", " ") in text.replace("\u202f", " ")
        assert "of 120 test images" in text


def test_without_an_evaluation_the_scores_of_the_model_stand(task: str, scene_run: Path) -> None:
    (scene_run / "evaluation.json").unlink()
    page = Page(write_report(scene_run))
    assert "50.00" in page.text
    assert not page.ids() & {"best", "worst", "wrong", "classes", "precision"}


def test_every_column_of_the_metrics_is_drawn(task: str, scene_run: Path) -> None:
    drawn = " ".join(charts(Page(write_report(scene_run))))
    terms = {"detect": "rpn box", "instances": "mask", "segment": "aux"}
    assert f"{terms[task]} 0." in drawn
    assert {"detect": "AP50", "instances": "Mask AP", "segment": "Mean IoU"}[task] in drawn


def test_more_terms_than_colours(tmp_path: Path) -> None:
    run = make_scene_run(tmp_path / "run", "detect")
    names = [f"train_loss_{i}" for i in range(9)]
    rows = [",".join(["epoch", "train_loss", *names])]
    rows += [",".join(map(str, [epoch, 45, *range(1, 10)])) for epoch in (1, 2)]
    (run / "metrics.csv").write_text("\n".join(rows))
    (chart,) = [chart for chart in charts(Page(write_report(run))) if chart.startswith("Loss terms")]
    assert chart.count(", ") == 5
    assert "8 9, 7 8" in chart


def test_the_precision_of_few_and_of_many_classes(tmp_path: Path) -> None:
    few = Page(write_report(make_scene_run(tmp_path / "few", "detect")))
    assert "AP50" in few.text
    assert sum("many" in (attrs.get("class") or "") for _, attrs in few.tags) == 0
    many = Page(write_report(make_scene_run(tmp_path / "many", "instances", [f"kind {i}" for i in range(80)])))
    assert "mean of 79 classes" in many.text
    assert sum((attrs.get("class") or "") == "line many" for _, attrs in many.tags) == 2 * 79
    assert "15 weakest of 80" in many.text


def test_confusion_of_pixels_is_in_percent(tmp_path: Path) -> None:
    page = Page(write_report(make_scene_run(tmp_path / "run", "segment")))
    cells = [attrs["title"] or "" for tag, attrs in page.tags if tag == "td" and "title" in attrs]
    assert len(cells) == 16
    assert "Percent of the pixels" in page.text


def test_what_is_undefined_is_a_dash(tmp_path: Path) -> None:
    run = make_scene_run(tmp_path / "run", "detect")
    evaluation = json.loads((run / "evaluation.json").read_text())
    nothing = {key: None for key in evaluation["box"] if key not in ("per_class", "curves")}
    classes = [row | {"ap": None, "ap50": None, "n": 0} for row in evaluation["box"]["per_class"]]
    empty = {"best": [], "worst": [], "wrong": []}
    edit(run / "evaluation.json", box=nothing | {"per_class": classes, "curves": []}, examples=empty, objects=0)
    page = Page(write_report(run))
    assert "precision" not in page.ids()
    assert "sizes" not in page.ids()
    assert "nan" not in page.text.lower()
    assert "None" not in page.text


def test_untrusted_names_are_text(task: str, scene_run: Path) -> None:
    run = make_scene_run(scene_run, task, [EVIL, "b"])
    evaluation = json.loads((run / "evaluation.json").read_text())
    for entries in evaluation["examples"].values():
        for entry in entries:
            entry |= {"id": EVIL, "path": EVIL, "wrong": EVIL}
    edit(run / "evaluation.json", **evaluation | {"split": EVIL, "colours": {EVIL: "#001122", "b": "red;}"}})
    page = Page(write_report(run))
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert "\x00" not in page.source
    assert "alert(1)" in page.text
    assert "red;}" not in page.source


def test_odd_entries_do_not_break_the_page(task: str, scene_run: Path) -> None:
    odd = {
        "ap": "high",
        "per_class": [3, {"class": None}, {}],
        "curves": [7, {"precision": "x"}, {"class": "a", "precision": [1, None, 2, "x"]}],
    }
    edit(
        scene_run / "evaluation.json",
        box=odd,
        mask=odd,
        per_class=[None, {}],
        examples={"best": [{}, None, 3]},
        count="x",
    )
    page = Page(write_report(scene_run))
    assert "best" in page.ids()
    edit(scene_run / "evaluation.json", box=3, mask=[], examples=[], confusion=[[1]])
    write_report(scene_run)


@pytest.mark.parametrize("task, where", [("detect", ("box", "curves")), ("segment", ("examples", "worst"))])
def test_a_field_of_another_kind_is_refused(task: str, where: tuple[str, str], tmp_path: Path) -> None:
    run = make_scene_run(tmp_path / "run", task)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation[where[0]][where[1]] = "oops"
    edit(run / "evaluation.json", **evaluation)
    with pytest.raises(UserError, match=where[1]):
        write_report(run)


def test_a_task_of_another_version_is_refused(tmp_path: Path) -> None:
    run = make_scene_run(tmp_path / "run", "detect")
    edit(run / "model.json", task="detct")
    with pytest.raises(UserError, match="'detect'"):
        write_report(run)


def test_the_cost_of_the_backbone_is_said_to_be_that(task: str, scene_run: Path) -> None:
    text = Page(write_report(scene_run)).text
    assert ("of the backbone, per image" in text) == (task != "segment")
    assert ("beside the backbone" in text) == (task != "segment")


def test_a_run_that_does_not_say_its_task_is_not_taken_for_a_classifier(scene_run: Path) -> None:
    content = json.loads((scene_run / "model.json").read_text())
    del content["task"]
    for lacking in ((), ("head",), ("head", "preprocessing")):
        left = {key: value for key, value in content.items() if key not in lacking}
        (scene_run / "model.json").write_text(json.dumps(left))
        with pytest.raises(UserError, match=r"model\.json does not say its task.*Write \"task\": \"detect\""):
            write_report(scene_run)
