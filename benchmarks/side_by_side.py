"""What the benchmarks share: two sides timed in turn, the machine they ran on, and a file that grows row by row.

The timing is that of `resurge bench`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resurge.bench.output import Rows
from resurge.machine import described as machine
from resurge.optimize import timing

__all__ = ["RATIO_HEAD", "Race", "Rows", "machine", "race", "ratio_cells"]


@dataclass(frozen=True)
class Race:
    """Rounds in which both sides ran once each."""

    times: timing.Race

    @property
    def seconds(self) -> float:
        """Median over the rounds, ours."""
        return self.times.seconds("ours")

    @property
    def their_seconds(self) -> float:
        """Median over the rounds, theirs."""
        return self.times.seconds("theirs")

    def ratio(self, digits: int = 3) -> dict[str, Any]:
        """`ratio`, the median over rounds of theirs / ours (above 1: ours is faster), and its `quartiles`."""
        return self.times.ratio("theirs", "ours").to_json(digits)


def race(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, warm_up: int = 0) -> Race:
    """Run both sides `warm_up` times untimed and `rounds` times timed, the order alternating."""
    return Race(timing.race({"ours": ours, "theirs": theirs}, rounds, warm_up=warm_up))


def ratio_cells(row: dict[str, Any], digits: int = 2) -> str:
    """Ratio and quartiles of a row, under `RATIO_HEAD`."""
    low, high = row["quartiles"]
    return f"{row['ratio']:>8.{digits}f}x  {f'{low:.{digits}f} to {high:.{digits}f}':<16}"


RATIO_HEAD = f"{'ratio':>9}  {'quartiles':<16}"
