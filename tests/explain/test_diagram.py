"""Diagrams: they say what is computed, nothing runs out of its box, and a new idea still draws."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor, nn

from resurge.arch.contracts import Site
from resurge.arch.zoo import MODELS, get_spec
from resurge.errors import UserError
from resurge.explain.diagram import Diagrams
from resurge.explain.scene import Line, Rect, Scene, Sign, Text, text_width

SVG = "{http://www.w3.org/2000/svg}"


def words(scene: Scene) -> list[str]:
    return [shape.text for shape in scene.shapes if isinstance(shape, Text)]


def signs(scene: Scene) -> list[str]:
    return [shape.sign for shape in scene.shapes if isinstance(shape, Sign) and shape.sign]


@pytest.mark.parametrize(
    "name", ["resnet50", "resnest50", "res2net50_26w_4s", "skresnext50_32x4d", "senet154", "resnet20_cifar"]
)
def test_everything_stays_on_the_page_and_text_in_its_box(name: str) -> None:
    diagrams = Diagrams(name)
    for scene in (diagrams.blocks(2), diagrams.network()):
        boxes = [shape for shape in scene.shapes if isinstance(shape, Rect) and shape.paint is not None]
        for shape in scene.shapes:
            match shape:
                case Rect(x, y, w, h):
                    assert x >= 0 and y >= 0 and x + w <= scene.width and y + h <= scene.height  # noqa: PT018
                case Line(points):
                    assert all(0 <= x <= scene.width and 0 <= y <= scene.height for x, y in points)
                case Text(x, y, text, size, _, "middle", bold):
                    around = [box for box in boxes if box.x <= x <= box.x + box.w and box.y < y < box.y + box.h]
                    for box in around:
                        half = text_width(text, size, bold) / 2
                        assert box.x <= x - half and x + half <= box.x + box.w  # noqa: PT018


@pytest.mark.parametrize("name", ["resnet50", "resnest50_fast_4s2x40d", "res2net50_14w_8s", "skresnet18", "seresnet50"])
def test_boxes_do_not_overlap(name: str) -> None:
    scene = Diagrams(name).blocks(2)
    boxes = [shape for shape in scene.shapes if isinstance(shape, Rect) and shape.paint is not None]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            apart = a.x + a.w <= b.x or b.x + b.w <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
            assert apart, (a, b)


def test_a_resnest_block_shows_its_parts() -> None:
    scene = Diagrams("resnest50").blocks(2)
    said = words(scene)
    for expected in ("split attention, R = 2", "split 1", "split 2", "128 → 256", "2 groups", "softmax over R = 2"):
        assert said.count(expected) == 2, expected  # the entry block and the later ones
    assert said.count("average pool") == 2  # of the shortcut and of the transform, in the entry block only
    assert "256 × 56 × 56" in said
    assert "512 × 28 × 28" in said
    assert said.count("identity") == 1
    assert signs(scene) == ["×", "×", "+", "+"] * 2


def test_res2net_carries_in_later_blocks_only() -> None:
    scene = Diagrams("res2net50_26w_4s").blocks(3)
    # two carries and the residual sum in later blocks, the residual sum alone in the first
    assert signs(scene).count("+") == 1 + 3
    assert words(scene).count("conv 3 × 3") == 6
    assert {"x4", "y4", "Res2, scale 4"} <= set(words(scene))


def test_other_members() -> None:
    assert words(Diagrams("skresnext50_32x4d").blocks(1)).count("32 groups, dilation 2") == 2
    assert "squeeze-excite" in words(Diagrams("seresnet50").blocks(1))
    assert "zero padding" in words(Diagrams("resnet20_cifar").blocks(2))
    assert "stride 2" in words(Diagrams("resnet50a").blocks(2))
    depthwise = get_spec("resnet50").but(transform=type(get_spec("resnet50").transform)(depthwise=True))
    assert "depthwise" in words(Diagrams(depthwise).blocks(1))
    dilated = words(Diagrams("resnet50", output_stride=8).blocks(4))
    assert "dilation 4" in dilated
    assert "2048 × 28 × 28" in dilated


def test_every_named_model_draws() -> None:
    seen = set()
    for spec in MODELS.values():
        kinds = (spec.stem, spec.block, spec.transform, spec.gate, spec.shortcut)
        if kinds not in seen:
            seen.add(kinds)
            small = spec.but(depths=(1, 2, *(1 for _ in spec.depths[2:])))
            for scene in Diagrams(small, (64, 64)).all(10)[::2]:
                ET.fromstring(scene.to_svg())
    assert len(seen) > 15


class Swap(nn.Module):
    """A transform that no table knows."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.conv = nn.Conv2d(site.cin, site.cout, 3, site.stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x).flip(1)
        return y


@dataclass(frozen=True)
class Swapping:
    order: str = "<back & forth>"

    def build(self, site: Site) -> nn.Module:
        return Swap(site)


def test_an_unknown_choice_draws_as_a_box_with_its_settings() -> None:
    spec = get_spec("resnet50").but(transform=Swapping())
    scene = Diagrams(spec.but(depths=(2, 2, 2, 2))).blocks(1)
    assert {"Swapping", "order = <back & forth>", "36,864 parameters"} <= set(words(scene))
    root = ET.fromstring(scene.to_svg())
    assert any(text.text == "order = <back & forth>" for text in root.iter(f"{SVG}text"))


@dataclass(frozen=True)
class Plain:
    """A block that is no residual unit."""

    expansion: int = 1

    def build(self, site: Site, *, width: int, transform: object, gate: object, shortcut: object) -> nn.Module:
        return nn.Conv2d(site.cin, site.cout, 3, site.stride, 1)


def test_an_unknown_block_draws() -> None:
    scene = Diagrams(get_spec("resnet18").but(block=Plain())).blocks(2)
    assert {"Plain", "expansion = 1", "128 × 28 × 28"} <= set(words(scene))


def test_the_network_names_its_stages() -> None:
    said = words(Diagrams("resnext50_32x4d").network(37))
    assert "stage 3: 6 × bottleneck" in said
    assert "planes 256, width 512, 32 groups" in said
    assert "2048 → 37" in said
    assert "3 × 224 × 224" in said
    headless = words(Diagrams("resnet18").network(None))
    assert "linear" not in headless


def test_svg_is_well_formed_and_alone() -> None:
    root = ET.fromstring(Diagrams("resnest50").blocks(1).to_svg())
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}title") is not None
    assert not [element for element in root.iter() if element.tag in (f"{SVG}script", f"{SVG}image", f"{SVG}use")]


@pytest.mark.parametrize("suffix", [".svg", ".png", ".PNG"])
def test_files_by_suffix(tmp_path: Path, suffix: str) -> None:
    scene = Diagrams("resnest14", (64, 64)).blocks(1)
    path = scene.save(tmp_path / f"block{suffix}")
    if suffix == ".svg":
        assert path.read_text().startswith("<svg")
        return
    with Image.open(path) as image:
        assert image.width == pytest.approx(2 * scene.width, abs=2)
        # something is drawn, on white paper
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert len(image.getcolors(1 << 20) or []) > 20


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.svg or \.png"):
        Diagrams("resnet18").network().save(tmp_path / "block.pdf")
    with pytest.raises(UserError, match="stages 1 to 4"):
        Diagrams("resnet18").blocks(5)
    with pytest.raises(UserError, match="resnet18"):
        Diagrams("resnet81")
