"""The page, in a real browser: images go in as a user brings them, pixels and words are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, browser
from PIL import Image
from serving import FakePredictor, picture, serving

SHOWN = "!document.querySelector('#result').hidden && !document.body.classList.contains('busy')"
WORDS = "document.querySelector('{}').textContent"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as tab:
        yield tab


def colours_differ(first: list[int], second: list[int]) -> bool:
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) > 20


def test_a_classifier(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "bright <b>.png"
    Image.new("RGB", (60, 40), (250, 240, 230)).save(file)
    explained = picture(9, (60, 40))
    with serving(explain=lambda image: explained) as server:
        page.events.clear()
        page.open(server.url)
        page.until(f"{WORDS.format('#model')}.includes('classify · 2 classes · fake, fp32')")
        page.choose("#file", file)
        page.until(SHOWN)
        rows = page.run("[...document.querySelectorAll('#answers li')].map((one) => one.textContent)")
        assert rows == ["bright94.1 %", "dark5.9 %"]
        widths = page.run("[...document.querySelectorAll('.bar div')].map((one) => one.getBoundingClientRect().width)")
        assert widths[0] > 10 * widths[1] > 0
        assert page.run(WORDS.format("#caption")) == "bright <b>.png, 60 × 40"
        assert page.pixel(0.5, 0.5) == [250, 240, 230]
        page.run("document.querySelector('#explain').click()")
        page.until(f"{WORDS.format('#explain')} === 'Show the answer'")
        assert page.pixel(0.5, 0.5) == [9, 9, 9]
        page.run("document.querySelector('#explain').click()")
        page.until(f"{WORDS.format('#explain')} === 'Where did it look?'")
        assert page.pixel(0.5, 0.5) == [250, 240, 230]
        assert page.problems() == []
        assert all(url.startswith((server.url, "blob:")) for url in page.asked_for())


def test_dropped_images_and_wrong_ones(page: Page, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(picture(0))
    bad.write_bytes(b"nothing")
    with serving() as server:
        page.open(server.url)
        page.drop("#drop", bad)
        page.until("!document.querySelector('#problem').hidden")
        assert "is not an image" in page.run(WORDS.format("#problem"))
        page.drop("#drop", good)
        page.until(SHOWN)
        assert page.run("document.querySelector('#problem').hidden")
        assert page.run("document.querySelector('#explain').hidden")
        assert page.run(WORDS.format("#answers")).startswith("dark100.0 %")


def test_boxes_and_masks(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "scene.png"
    Image.new("RGB", (201, 150), (128, 128, 128)).save(file)
    with serving(FakePredictor(task="instances")) as server:
        page.open(server.url)
        page.choose("#file", file)
        page.until(SHOWN)
        assert page.run(WORDS.format("#heading")) == "1 found"
        assert page.pixel(0.9, 0.5) == [128, 128, 128]  # the mask is the left half
        inside = page.pixel(0.2, 0.5)
        assert colours_differ(inside, [128] * 3)
        assert page.pixel(0.48, 0.6) == inside
        assert colours_differ(page.pixel(0.0, 0.5), inside)  # the line of the box
        page.run(
            "(() => {const s = document.querySelector('#score'); s.value = 0.2; s.dispatchEvent(new Event('input'))})()"
        )
        page.until(f"{WORDS.format('#heading')} === '2 found'")
        assert colours_differ(page.pixel(0.2, 0.5), inside)


def test_a_label_map(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "street.png"
    Image.new("RGB", (200, 150), (128, 128, 128)).save(file)
    with serving(FakePredictor(task="segment", classes=("background", "road"))) as server:
        page.events.clear()
        page.open(server.url)
        page.choose("#file", file)
        page.until(SHOWN)
        assert page.pixel(0.2, 0.5) == [128, 128, 128]
        assert colours_differ(page.pixel(0.8, 0.5), [128] * 3)
        assert page.run(WORDS.format("#answers")) == "background50.0 %road50.0 %"
        assert page.problems() == []


def test_the_token_and_the_routes(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(picture(255))
    with serving(token="s3cret") as server:
        page.open(server.url)
        page.until("!document.querySelector('#token-form').hidden")
        page.run(
            "document.querySelector('#token').value = 's3cret'; document.querySelector('#token-form button').click()"
        )
        page.until(f"{WORDS.format('#model')}.startsWith('classify')")
        page.choose("#file", file)
        page.until(SHOWN)
        assert page.run(WORDS.format("#answers")).startswith("bright100.0 %")
        page.events.clear()
        page.open(server.url + "/docs")
        page.until(f"{WORDS.format('#routes')}.includes('POST /predict')")
        assert page.problems() == []
