"""Turns, their order, and what is said of made-up times; no real time is measured."""

from __future__ import annotations

import pytest

from resurge.optimize import timing
from resurge.optimize.timing import Race, latencies, race


class Machine:
    """A clock that only moves when something runs; keeps the order of what ran."""

    def __init__(self, **takes: float) -> None:
        self.now, self.ran, self.takes = 0.0, [], takes

    def runs(self):
        return {name: lambda name=name: self._run(name) for name in self.takes}

    def _run(self, name):
        self.ran.append(name)
        self.now += self.takes[name]

    def clock(self):
        return self.now


def test_each_round_begins_with_another_one():
    machine = Machine(a=1.0, b=2.0, c=3.0)
    found = race(machine.runs(), 4, warm_up=1, clock=machine.clock)
    assert "".join(machine.ran) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert found.times == {"a": ((1.0,),) * 4, "b": ((2.0,),) * 4, "c": ((3.0,),) * 4}


def test_short_runs_are_repeated_and_the_first_of_a_turn_is_not_counted():
    machine = Machine(a=0.04, b=0.3)
    found = race(machine.runs(), 1, warm_up=0, slot=0.1, clock=machine.clock)
    # one run each to see how long it takes; three of the short one fill the slot, after one that does not count
    assert "".join(machine.ran) == "ab" + "aaaa" + "b"
    assert [len(each) for each in (*found.times["a"], *found.times["b"])] == [3, 1]


def test_a_turn_is_bounded():
    machine = Machine(a=0.0)
    race(machine.runs(), 1, warm_up=0, slot=0.1, clock=machine.clock)
    assert len(machine.ran) == 2 + timing.MOST


def test_the_ratio_is_the_median_of_the_rounds_own():
    # ours is slow in the second round, and so is the peer: the machine was
    found = Race({"ours": ((1.0,), (10.0,), (1.0,)), "peer": ((2.0,), (21.0,), (1.9,))})
    ratio = found.ratio("peer", "ours")
    assert ratio.median == 2.0
    assert (ratio.low, ratio.high) == pytest.approx((1.9, 2.1))
    assert ratio.to_json() == {"ratio": 2.0, "quartiles": [1.9, 2.1]}
    assert found.seconds("ours") == 1.0
    assert found.fastest(["peer", "ours"]) == "ours"


def test_one_round_has_quartiles_too():
    assert Race({"a": ((1.0,),), "b": ((3.0,),)}).ratio("b", "a").to_json() == {"ratio": 3.0, "quartiles": [3.0, 3.0]}


def test_a_turn_counts_by_its_mean():
    found = Race({"a": ((1.0, 3.0), (4.0, 4.0), (5.0, 7.0))})
    assert found.by_round("a") == (2.0, 4.0, 6.0)
    assert found.seconds("a") == 4.0
    assert found.single("a") == (1.0, 3.0, 4.0, 4.0, 5.0, 7.0)


def test_percentiles():
    assert latencies([0.001, 0.002, 0.003]) == {"p50": 2.0, "p90": 2.8, "p99": 2.98, "runs": 3}
    assert latencies([0.007]) == {"p50": 7.0, "p90": 7.0, "p99": 7.0, "runs": 1}
