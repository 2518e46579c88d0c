"""What the benchmarks share: two sides timed in turn, the machine they ran on, and a file that grows row by row."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from resurge.files import atomic_write_text


@dataclass(frozen=True)
class Race:
    """Rounds in which both sides ran once each: seconds of (ours, theirs)."""

    rounds: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float:
        """Median over the rounds, ours."""
        return statistics.median(own for own, _ in self.rounds)

    @property
    def their_seconds(self) -> float:
        """Median over the rounds, theirs."""
        return statistics.median(theirs for _, theirs in self.rounds)

    def ratio(self, digits: int = 3) -> dict[str, Any]:
        """`ratio`, the median over rounds of theirs / ours (above 1: ours is faster), and its `quartiles`."""
        ratios = [theirs / own for own, theirs in self.rounds]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return {"ratio": round(middle, digits), "quartiles": [round(low, digits), round(high, digits)]}


def race(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, warm_up: int = 0) -> Race:
    """Run both sides `warm_up` times untimed and `rounds` times timed, the order alternating."""
    for step in (ours, theirs):
        for _ in range(warm_up):
            step()
    times: list[tuple[float, float]] = []
    for i in range(rounds):
        if i % 2:
            other, own = seconds(theirs), seconds(ours)
        else:
            own, other = seconds(ours), seconds(theirs)
        times.append((own, other))
    return Race(tuple(times))


def seconds(step: Callable[[], Any]) -> float:
    """What one call takes."""
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def ratio_cells(row: dict[str, Any], digits: int = 2) -> str:
    """Ratio and quartiles of a row, under `RATIO_HEAD`."""
    low, high = row["quartiles"]
    return f"{row['ratio']:>8.{digits}f}x  {f'{low:.{digits}f} to {high:.{digits}f}':<16}"


RATIO_HEAD = f"{'ratio':>9}  {'quartiles':<16}"


def machine(*packages: str) -> dict[str, Any]:
    """The processor, and the versions of Python and of these packages; of torch also how it computes."""
    found: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
    if "torch" in packages:
        import torch

        found |= {"threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability()}
    return found


@dataclass
class Rows:
    """The rows of a benchmark, written to `path` (None: nowhere) as each is added: what is interrupted keeps them."""

    path: Path | None
    machine: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: dict[str, Any], line: str) -> None:
        """Keep the row, print its line."""
        self.rows.append(row)
        print(line, flush=True)
        if self.path is not None:
            atomic_write_text(self.path, json.dumps({"machine": self.machine, "rows": self.rows}, indent=2) + "\n")
