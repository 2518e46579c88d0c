"""What the measurements leave: the machine they were made on, and a file that grows row by row."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from resurge.files import atomic_write_text
from resurge.machine import processor


def machine(*packages: str) -> dict[str, Any]:
    """The processor, and the versions of Python and of those packages that are installed; of torch how it computes."""
    found: dict[str, Any] = {"processor": processor(), "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "torch" in packages:
        import torch

        found |= {"threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability()}
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


@dataclass
class Rows:
    """The rows of a benchmark, written to `path` (None: nowhere) as each is added: what is interrupted keeps them.

    said: what else stands in the file, such as the settings.
    """

    path: Path | None
    machine: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    said: Mapping[str, Any] = field(default_factory=dict)

    def add(self, row: dict[str, Any], line: str) -> None:
        """Keep the row, print its line."""
        self.rows.append(row)
        print(line, flush=True)
        self.write()

    def write(self) -> None:
        """Write the file as it is now."""
        if self.path is not None:
            content = {"machine": self.machine, **self.said, "rows": self.rows}
            atomic_write_text(self.path, json.dumps(content, indent=2) + "\n")
