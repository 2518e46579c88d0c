"""Times of several candidates that run in turn, and statistics of them.

The speed of a machine changes from one second to the next. What is compared therefore runs in *interleaved rounds*: in
each round every candidate runs, another one first each time, and a ratio is taken within the round. The figure is the
median of these ratios, with their quartiles beside it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], float]

SLOT = 0.1  # seconds that a turn should last: one run of a small network is too short to be told from noise
MOST = 50  # runs in a turn, whatever they last
PAUSE = 0.01  # seconds before a turn, in which the threads of the one before stop waiting for more


@dataclass(frozen=True)
class Ratio:
    """Median over the rounds, and the quartiles."""

    median: float
    low: float
    high: float

    def to_json(self, digits: int = 3) -> dict[str, float | list[float]]:
        """`ratio` and `quartiles`."""
        return {"ratio": round(self.median, digits), "quartiles": [round(self.low, digits), round(self.high, digits)]}


@dataclass(frozen=True)
class Race:
    """Seconds of single runs: for each candidate a tuple per round, in the order in which they were run."""

    times: Mapping[str, tuple[tuple[float, ...], ...]]

    def by_round(self, name: str) -> tuple[float, ...]:
        """Seconds of one run, the mean of each round."""
        return tuple(statistics.fmean(each) for each in self.times[name])

    def seconds(self, name: str) -> float:
        """Seconds of one run, the median over the rounds."""
        return statistics.median(self.by_round(name))

    def ratio(self, over: str, under: str) -> Ratio:
        """Time of `over` / time of `under`: above 1, `under` is the faster one."""
        found = [a / b for a, b in zip(self.by_round(over), self.by_round(under), strict=True)]
        low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
        return Ratio(middle, low, high)

    def single(self, name: str) -> tuple[float, ...]:
        """Seconds of every run."""
        return tuple(value for each in self.times[name] for value in each)

    def fastest(self, names: Sequence[str]) -> str:
        """The candidate with the shortest median."""
        return min(names, key=self.seconds)


def race(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    slot: float = 0.0,
    pause: float = 0.0,
    clock: Clock = time.perf_counter,
) -> Race:
    """Run everything in turn.

    Args:
        runs: what to run, by name.
        rounds: how often each has its turn; the first one of a round is another in each.
        warm_up: runs of each before the first round, not counted.
        slot: seconds a turn should last; what takes less is run several times in its turn, after one more that is not
            counted: it finds in the caches what the one before left there.
        pause: seconds of rest before a turn.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    many = {name: _repeats(run, slot, clock) for name, run in runs.items()}
    names = list(runs)
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            if pause:
                time.sleep(pause)
            if many[name] > 1:
                runs[name]()
            times[name].append(tuple(seconds(runs[name], clock) for _ in range(many[name])))
    return Race({name: tuple(each) for name, each in times.items()})


def seconds(run: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """What one call takes."""
    begin = clock()
    run()
    return clock() - begin


def _repeats(run: Callable[[], object], slot: float, clock: Clock) -> int:
    if not slot:
        return 1
    once = seconds(run, clock)
    return max(1, min(MOST, math.ceil(slot / once))) if once else MOST


def latencies(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds: median, 90th and 99th percentile of single runs, and how many runs they are of."""
    found = {f"p{percent}": round(1000 * float(np.percentile(values, percent)), 2) for percent in (50, 90, 99)}
    return {**found, "runs": len(values)}
