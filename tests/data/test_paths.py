"""How annotations call files, and which files are meant."""

import pytest

from resurge.data.paths import found_names, listed_name

NAMES = {
    r"images\train\0.png": "images/train/0.png",
    '"./images/a b.png" ': "images/a b.png",
    ".\\images\\0.png": "images/0.png",
    "/data/upload/3/1a2b3c4d-my%20photo.png": "1a2b3c4d-my photo.png",
    "/data/local-files/?d=set/my%20photo.png": "set/my photo.png",
    "http://localhost:8080/data/local-files/?d=set/0.png": "set/0.png",
    "images/http://localhost:8080/data/upload/12/0.png": "0.png",
    "file:///home/else/0.png": "home/else/0.png",
    "s3://bucket/set/0.png": "set/0.png",
    "100%.png": "100%.png",
}


@pytest.mark.parametrize("text", NAMES)
def test_what_annotations_call_a_file(text):
    assert listed_name(text) == NAMES[text]


def files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    "name, file",
    [
        ("images\\train\\0.png", "images/train/0.png"),
        ("data/images/train/0.png", "images/train/0.png"),
        ("D:\\set\\images\\train\\0.png", "images/train/0.png"),
        ("/home/else/images/train/0.PNG", "images/train/0.png"),
        ("train/0.png", "images/train/0.png"),
        ("../images/train/0.png", "images/train/0.png"),
        ("Images/Train/0.png", "images/train/0.png"),
        ("/data/upload/1/1a2b3c4d-u%CC%88ber.png", "images/über.png"),
        ("0.png", None),  # which one?
        ("test/0.png", None),
        ("gone.png", None),
    ],
)
def test_the_file_that_is_meant(tmp_path, name, file):
    files(tmp_path, "images/train/0.png", "images/val/0.png", "images/über.png")
    assert found_names(tmp_path, [name]) == ({name: file} if file else {})


def test_what_another_name_has_is_not_taken(tmp_path):
    files(tmp_path, "a/0.png", "a\\1.png", "b/2.png")
    # The real name wins; a file is meant once.
    assert found_names(tmp_path, ["a/0.png", "x/a/0.png", "a\\1.png", "x/b/2.png", "y/b/2.png"]) == {}
    assert found_names(tmp_path, ["a/0.png", ".\\a\\0.png"]) == {".\\a\\0.png": "a/0.png"}


def test_other_folders_before_all_names(tmp_path):
    files(tmp_path, "images/0.png", "images/1.png", "more/1.png", "images/2.png")
    assert found_names(tmp_path, ["set/0.png", "set/1.png"]) == {"set/0.png": "images/0.png"}
    assert found_names(tmp_path, ["set/0.png", "images/2.png"]) == {}  # some are where they are said to be
    assert found_names(tmp_path, ["a/0.png", "b/0.png"]) == {}
