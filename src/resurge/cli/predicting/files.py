"""Names for the pictures that are written beside each other, one for each picture that was read."""

from __future__ import annotations

import re
from pathlib import Path


class Names:
    """Gives each picture a file name of its own in one folder, made of its own name."""

    def __init__(self, suffix: str = ".png") -> None:
        self.suffix = suffix
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, path: Path) -> str:
        """The name for the picture at `path`; the same for the same path, another for every other one."""
        if str(path) not in self._given:
            stem = re.sub(r"[^\w.-]+", "_", path.stem) or "image"
            name, number = f"{stem}{self.suffix}", 1
            while name.casefold() in self._taken:  # some file systems take A.png and a.png for one
                number += 1
                name = f"{stem}-{number}{self.suffix}"
            self._taken.add(name.casefold())
            self._given[str(path)] = name
        return self._given[str(path)]
