"""The pages say what is so: links lead somewhere, specs parse, quoted lines, tests and figures exist."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

from resurge.arch.text import WORDS
from resurge.arch.zoo import MODELS, get_spec
from resurge.explain.cost import cost

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FAMILY = ROOT / "docs" / "family.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def fenced(page: Path, kind: str) -> list[list[str]]:
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    return [[line for line in text.splitlines() if line.strip()] for name, text in blocks if name == kind]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_quoted_spec_parses_and_prints(page):
    for block in fenced(page, "spec"):
        for line in block:
            spec = get_spec(line)
            assert get_spec(str(spec)) == spec


def test_the_ways_to_write_a_member_are_one_network():
    blocks = fenced(FAMILY, "spec")
    assert len(blocks) > 10
    for block in blocks:
        assert len(block) == 2
        assert get_spec(block[0]) == get_spec(block[1])


def test_pictures_are_drawings_with_a_name():
    pictures = sorted((ROOT / "docs" / "images").glob("*.svg"))
    assert pictures
    linked = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in pictures:
        assert ElementTree.parse(picture).getroot().find("{http://www.w3.org/2000/svg}title").text
        assert picture.name in linked, f"no page shows {picture.name}"


def test_inline_formulas_survive_markdown():
    # between single dollars, markdown takes the backslash of \, or \{ for its own; and a formula ends with its line
    for page in PAGES:
        assert all(line.count("$") % 2 == 0 for line in prose(page).splitlines()), page.name
        assert not re.findall(r"\$[^$\n]*\\[^A-Za-z\s][^$\n]*\$", re.sub(r"`[^`]*`", "", prose(page))), page.name


def test_the_table_of_words_is_that_of_the_reader():
    def arguments(kind: type) -> str:
        pairs = [(f.name, "" if f.default is MISSING else f"={str(f.default).lower()}") for f in fields(kind)]
        return f"`{', '.join(name + value for name, value in pairs)}`" if pairs else "–"

    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*) \|$", FAMILY.read_text(encoding="utf-8"), re.MULTILINE)
    written = [row for row in rows if row[0] in WORDS]
    assert written == [(axis, word, arguments(kind)) for axis, words in WORDS.items() for word, kind in words.items()]


def family_rows() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", FAMILY.read_text(encoding="utf-8"), re.MULTILINE)
    # a bar inside a cell is escaped, in code too
    cells = {name: [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)] for name, row in rows}
    return {name: cells[name] for name in cells if name in MODELS}


def test_the_table_quotes_every_line_of_the_zoo():
    table = (ROOT / "src" / "resurge" / "arch" / "zoo.yaml").read_text(encoding="utf-8")
    lines = re.findall(r"^  (\w+): (.*)$", table.partition("aliases:")[0], re.MULTILINE)
    assert {name: f"`{line}`" for name, line in lines} == {name: cells[0] for name, cells in family_rows().items()}


@pytest.mark.parametrize("name", ["resnet50a", "seresnet18", "skresnet18", "res2net50_48w_2s", "resnest14"])
def test_the_figures_of_the_table_are_those_of_the_network(name):
    _, parameters, macs, memory, _ = family_rows()[name]
    costs = cost(name).total
    assert int(parameters.replace(",", "")) == costs.parameters
    assert float(macs) == pytest.approx(costs.macs / 1e9, abs=6e-4)
    assert float(memory) == pytest.approx(costs.activation_bytes / 2**20, abs=0.06)


def test_every_test_that_a_page_names_exists():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}
    assert len(named) > 10
    assert not [name for name in sorted(named) if f"def {name}(" not in tests]
