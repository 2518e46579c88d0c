"""Charts and numbers of the report."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from resurge.report.charts import MAX_POINTS, Series, _ticks, line_chart, reliability_chart
from resurge.report.markup import Markup, data_uri, duration, escape, join, memory, percent, quantity, tag


@pytest.mark.parametrize(
    "low, high",
    [(0.0, 1.0), (0.12, 2.37), (0.9871, 0.9872), (3.0, 3.0), (0.0, 0.0), (1e-7, 3e-6), (-4.0, 9.0), (0.0, 1e9)],
)
def test_ticks_enclose_the_values_evenly(low: float, high: float) -> None:
    ticks = _ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 8
    steps = [b - a for a, b in pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def points_of(chart: str) -> list[list[tuple[float, float]]]:
    root = ET.fromstring(chart)
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]
        for line in root.iter("polyline")
    ]


def test_a_line_chart_keeps_order_and_stays_inside() -> None:
    chart = line_chart("Loss", [Series("training", "s1", [(0, 4.0), (1, 2.0), (2, 1.0)])])
    assert chart is not None
    ((first, second, third),) = points_of(chart)
    assert first[0] < second[0] < third[0]
    assert first[1] < second[1] < third[1]  # y grows downwards
    assert all(0 <= x <= 360 and 0 <= y <= 220 for x, y in (first, second, third))


def test_one_epoch_and_none() -> None:
    assert line_chart("Loss", [Series("training", "s1", [])]) is None
    chart = line_chart("Loss", [Series("training", "s1", [(0, 1.0)]), Series("validation", "s2", [])])
    assert chart is not None
    assert len(points_of(chart)) == 1


def test_long_trainings_are_thinned_but_end_where_they_end() -> None:
    points = [(float(e), math.exp(-e / 900)) for e in range(5000)]
    chart = line_chart("Loss", [Series("training", "s1", points)])
    assert chart is not None
    (drawn,) = points_of(chart)
    assert len(drawn) <= MAX_POINTS + 1
    assert drawn[-1][0] == pytest.approx(348.0)


def test_reliability_leaves_out_empty_and_impossible_bins() -> None:
    assert reliability_chart([(0.5, 0.5, 0), (1.5, 0.5, 3), (math.nan, 0.1, 2)]) is None
    chart = reliability_chart([(0.5, 0.4, 10), (0.9, 0.95, 90), (0.2, 0.2, 0)])
    assert chart is not None
    (line,) = points_of(chart)
    assert len(line) == 2


def test_only_markup_goes_through_unescaped() -> None:
    assert tag("p", "<b>", title='"') == '<p title="&quot;">&lt;b&gt;</p>'
    assert tag("p", Markup("<b>"), None, ["x", 3]) == "<p><b>x3</p>"
    assert tag("img", src="x", hidden=True, alt=None) == '<img src="x" hidden>'
    assert join("a", [tag("i"), None]) == "a<i></i>"
    assert escape("\x07\udcff") == "\ufffd\ufffd"


def test_data_uri_knows_pictures_by_their_content() -> None:
    assert (data_uri(b"\x89PNG\r\n\x1a\n123") or "").startswith("data:image/png;")
    assert (data_uri(b"\xff\xd8\xff123") or "").startswith("data:image/jpeg;")
    assert (data_uri(b"  <svg></svg>") or "").startswith("data:image/svg+xml;")
    assert data_uri(b"GIF89a") is None
    assert data_uri(b"") is None


def test_numbers_for_people() -> None:
    assert re.sub(r"\s", " ", quantity(25_557_032)) == "25.6 M"
    assert re.sub(r"\s", " ", quantity(999_600)) == "1.00 M"
    assert re.sub(r"\s", " ", quantity(5.371e9)) == "5.37 G"
    assert quantity(432) == "432"
    assert re.sub(r"\s", " ", memory(1536)) == "1.5 KiB"
    assert re.sub(r"\s", " ", percent(0.98611, 2)) == "98.61 %"
    assert percent(math.nan) == "–"
    assert re.sub(r"\s", " ", duration(59.7)) == "1 min 00 s"
    assert re.sub(r"\s", " ", duration(12_345)) == "3 h 25 min"
