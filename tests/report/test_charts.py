"""Charts and numbers of the report."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest

from resurge.quantities import duration, memory, number_of, per_second, percent, quantity
from resurge.report.charts import (
    MAX_POINTS,
    Chart,
    Series,
    line_chart,
    precision_recall_chart,
    reliability_chart,
    ticks,
)
from resurge.report.page import data_uri


@pytest.mark.parametrize(
    "low, high",
    [(0.0, 1.0), (0.12, 2.37), (0.9871, 0.9872), (3.0, 3.0), (0.0, 0.0), (1e-7, 3e-6), (-4.0, 9.0), (0.0, 1e9)],
)
def test_ticks_enclose_the_values_evenly(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low + 1e-12
    assert found[-1] >= high - 1e-12
    assert 2 <= len(found) <= 8
    steps = [b - a for a, b in pairwise(found)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def points_of(chart: Chart) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in shape.attributes["points"].split())]
        for shape in chart.shapes
        if shape.tag == "polyline"
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


def test_the_reliability_of_a_calibrated_network_lies_on_the_diagonal() -> None:
    chart = reliability_chart([(0.25, 0.25, 10), (0.75, 0.75, 90)])
    (diagonal,) = [shape.attributes for shape in chart.shapes if shape.attributes.get("class") == "diagonal"]
    x1, y1, x2, y2 = (float(diagonal[name]) for name in ("x1", "y1", "x2", "y2"))
    (line,) = points_of(chart)
    for x, y in line:
        assert y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=0.1)
    heights = [float(shape.attributes["height"]) for shape in chart.shapes if shape.tag == "rect"]
    assert heights[1] == pytest.approx(9 * heights[0], rel=0.01)


def test_more_classes_than_colours_have_their_mean_in_colour() -> None:
    chart = precision_recall_chart("Box", [(f"class {i}", [1.0, i / 9]) for i in range(10)])
    assert chart.keys == [("mean of 10 classes", "s1")]
    assert points_of(chart)[-1][-1] == pytest.approx((348.0, 99.0))  # half of the height


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
    assert [per_second(rate) for rate in (0.0312, 0.96, 4.2, 9.96, 1234)] == ["0.031", "0.96", "4.2", "10", "1,234"]
    assert [number_of(count, "class", "classes") for count in (0, 1, 2_000)] == [
        "0 classes",
        "1 class",
        "2,000 classes",
    ]
