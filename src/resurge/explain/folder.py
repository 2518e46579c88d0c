"""The files that a run directory holds in `explain/` for its report."""

from __future__ import annotations

import json
from pathlib import Path

from resurge.arch.spec import Spec
from resurge.arch.zoo import get_spec
from resurge.explain.cost import cost
from resurge.explain.diagram import block_scene, network_scene
from resurge.files import atomic_write_text


def write_network_files(
    run_dir: str | Path,
    model: str | Spec,
    *,
    size: tuple[int, int],
    in_channels: int = 3,
    num_classes: int | None = 1000,
) -> list[Path]:
    """Write `explain/network.svg`, `explain/block_stage2.svg` and `explain/cost.json` into a run directory.

    The second stage stands for the others: its first block strides and changes the channels, which that of the first
    stage does not, and the later ones differ in numbers only. A network of one stage shows that one.

    Raises:
        UserError: no such model, a size it cannot take, or a file cannot be written.
    """
    spec, folder = get_spec(model), Path(run_dir) / "explain"
    stage = min(2, len(spec.depths))
    network = network_scene(spec, size=size, in_channels=in_channels, num_classes=num_classes)
    block = block_scene(spec, stage, size=size, in_channels=in_channels)
    report = cost(spec, size, in_channels, num_classes)
    written = [network.save(folder / "network.svg"), block.save(folder / f"block_stage{stage}.svg")]
    table = folder / "cost.json"
    atomic_write_text(table, json.dumps(report.to_json(), indent=1) + "\n")
    return [*written, table]
