"""Every planted fault of the table still fits the code; that the suite catches them is told by ``make mutants``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.fault import Fault, check
from tests.mutants.kept import Kept, key_of
from tests.mutants.table import FAULTS


@pytest.mark.parametrize("area", sorted({fault.file.partition("/")[0] for fault in FAULTS}))
def test_every_fault_still_fits_the_code(area: str) -> None:
    for fault in FAULTS:
        if fault.file.partition("/")[0] == area:
            check(fault)


def test_no_fault_is_planted_twice() -> None:
    twice = [key for key, count in Counter((fault.file, fault.old, fault.new) for fault in FAULTS).items() if count > 1]
    assert not twice
    assert len({(fault.file, fault.what) for fault in FAULTS}) == len(FAULTS)


def test_a_fault_that_does_not_fit_is_an_error() -> None:
    fits = Fault("the sign", "metrics.py", 'rows["finish_s"] - rows["arrival_s"]', "0.0", ("test_metrics",))
    check(fits)
    for broken in (
        Fault("gone", "metrics.py", "a text that nobody wrote", "pass", ("test_metrics",)),
        Fault("twice", "metrics.py", "return", "pass", ("test_metrics",)),
        Fault("nothing", "metrics.py", fits.old, fits.old, ("test_metrics",)),
        Fault("untested", "metrics.py", fits.old, "0.0", ("test_of_nobody",)),
    ):
        with pytest.raises(ValueError, match=broken.what):
            check(broken)
    with pytest.raises(SyntaxError):
        check(Fault("no Python", "metrics.py", fits.old, "= =", ("test_metrics",)))


def test_what_was_caught_is_kept_while_its_files_stay(tmp_path: Path) -> None:
    place = tmp_path / "kept.jsonl"
    fault, other = FAULTS[:2]
    key = key_of(fault, fault.test_files())
    Kept(place).add(key, "one")
    with place.open("a") as file:
        file.write('{"key": "cut sho')
    assert key in Kept(place)
    assert key_of(other, fault.test_files()) not in Kept(place)
    assert key_of(fault, [*fault.test_files(), "tests/conftest.py"]) not in Kept(place)
    assert key_of(None, fault.test_files()) not in Kept(place)
    Kept(place).clear()
    assert key not in Kept(place)
