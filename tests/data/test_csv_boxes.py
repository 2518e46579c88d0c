"""Tables of boxes: what is wrong with them, and mended copies."""

import pytest
from scene_files import kinds, picture

from resurge.data.checks import check_data
from resurge.data.fix import mend
from resurge.data.sources import open_data, open_split
from resurge.errors import UserError

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def write(root, text, count=3):
    for i in range(count):
        picture(root / f"{i}.png", i)
    (root / "boxes.csv").write_text(text)
    return root


def test_faults_are_found_and_mended(tmp_path):
    root = write(
        tmp_path / "set",
        HEADER + "0.png,40,30,cat,1,1,9,9\n0.png,40,30,dog,20,5,60,20\n0.png,40,30,cat,5,5,5,9\n"
        "1.png,40,30,dog,a,1,9,9\n1.png,40,30,dog,2,2,8,8\n2.png,40,30,,,,,\ngone.png,40,30,cat,1,1,9,9\n",
    )
    report, data = check_data(root)
    assert kinds(report) == {"box-beyond", "empty-box", "bad-object", "missing-file", "no-objects"}
    assert any("0.png, line 4: the box has no area (5, 5, 5, 9)" in line for line in report.lines())
    assert "boxes.csv: " in "\n".join(mend(data, tmp_path / "out"))
    assert (tmp_path / "out/boxes.csv").read_text() == (
        HEADER + "0.png,40,30,cat,1,1,9,9\n0.png,40,30,dog,20,5,40,20\n1.png,40,30,dog,2,2,8,8\n2.png,40,30,,,,,\n"
    )


def test_shares_are_mended_as_shares(tmp_path):
    root = write(
        tmp_path / "set",
        "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n0,/m/1,0.5,1,0.2,0.7,0\n0,/m/2,-0.5,0.5,0.2,0.5,1\n1,/m/1,0.1,0.2,0.1,0.2,0\n",
    )
    split, classes, _ = open_split(root, annotation="boxes")
    assert classes == ("/m/1", "/m/2")
    assert split.target(0).boxes.tolist() == [[20, 6, 40, 21], [0, 6, 20, 15]]
    assert split.target(0).crowd.tolist() == [False, True]
    mend(check_data(root)[1], tmp_path / "out")
    assert "0,/m/2,0,0.5,0.2,0.5,1" in (tmp_path / "out/boxes.csv").read_text()


@pytest.mark.parametrize(
    "text, message",
    [
        ("filename,xmin,ymin,xmax,ymax\n0.png,1,1,9,9\n", "names no class for its boxes"),
        (HEADER.replace("class", "class,split") + "0.png,40,30,cat,1,1,1,9,9\n", "the split '1' is unknown"),
        (HEADER + "0.png,40,30,cat\n", "line 2: 4 fields, but the header names 8"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        open_data(write(tmp_path, text), annotation="boxes")


def test_two_tables_for_one_part(tmp_path):
    write(tmp_path, HEADER + "0.png,40,30,cat,1,1,9,9\n")
    (tmp_path / "more.csv").write_text(HEADER + "1.png,40,30,cat,1,1,9,9\n")
    with pytest.raises(UserError, match=r"two tables of boxes for all images: boxes\.csv and more\.csv"):
        open_data(tmp_path, annotation="boxes")
