"""When requests arrive, phase by phase, asked moment by moment: caps, users who think, pauses and drains."""

from __future__ import annotations

from driftsim.trace.header import Phase
from driftsim.workloads.arrivals import Arrivals
from tests.strategies import workload


def test_at_most_so_many_of_a_capped_phase_are_out_and_the_others_come_as_these_leave() -> None:
    phase = Phase(name="only", kind="capped", requests=4, users=2)
    arrivals = Arrivals(workload([0.0, 1.0, 1.0, 9.0], [1] * 4, (phase,)), float)
    assert arrivals.take(0.0) == [(0, 0.0)]
    assert arrivals.next_at() == 1.0
    assert arrivals.take(1.0) == [(1, 1.0)]
    assert arrivals.next_at() is None  # two are out
    assert arrivals.left(0, 4.0)
    assert arrivals.next_at() == 4.0  # held back since 1.0
    assert arrivals.take(4.0) == [(2, 4.0)]
    arrivals.left(1, 5.0)
    assert arrivals.next_at() == 9.0
    assert arrivals.take(8.9) == []
    assert arrivals.take(9.0) == [(3, 9.0)]
    assert arrivals.done


def test_users_send_think_and_send_again() -> None:
    phase = Phase(name="only", kind="closed", requests=4, users=2, think_s=3.0)
    arrivals = Arrivals(workload([0.0] * 4, [1] * 4, (phase,)), float)
    assert arrivals.take(0.0) == [(0, 0.0), (1, 0.0)]
    assert arrivals.next_at() is None
    arrivals.left(1, 2.0)
    assert arrivals.next_at() == 5.0
    arrivals.left(0, 2.5)
    assert arrivals.take(6.0) == [(2, 5.0), (3, 5.5)]


def test_a_phase_waits_for_its_pause_and_for_the_drain() -> None:
    phases = (
        Phase(name="one", requests=2), Phase(name="two", kind="after-drain", requests=1, pause_s=2.0),
        Phase(name="three", requests=1, pause_s=1.0),
    )  # fmt: skip
    arrivals = Arrivals(workload([0.0, 1.0, 0.5, 0.25], [1] * 4, phases), float)
    assert arrivals.take(1.0) == [(0, 0.0), (1, 1.0)]
    assert not arrivals.left(0, 3.0)
    assert arrivals.next_at() is None
    assert arrivals.left(1, 4.0)
    assert arrivals.take(6.5) == [(2, 6.5)]  # 4 + pause + its own offset
    assert arrivals.take(9.0) == [(3, 7.75)]  # an open phase begins as the one before has sent its last
    assert arrivals.starts() == [0.0, 6.0, 7.5]
