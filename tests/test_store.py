"""The store: nothing lost, nothing twice, whoever dies and however many write."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from driftsim.sweeps.store import Store


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"key": f"{number:032x}", "failed": False, "policy": "fifo", "offered": 10, "e2e_mean_s": number / 3} | more


def test_rows_come_back_as_they_were_before_and_after_the_end(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([row(1), row(2, note="a\nb")])
        during = Store.open(tmp_path / "s").table()
        assert len(list(store.folder.glob("journal-*"))) == 1
    after = Store.open(tmp_path / "s").table()
    assert not list((tmp_path / "s").glob("journal-*"))
    assert during["e2e_mean_s"].tolist() == after["e2e_mean_s"].tolist() == [1 / 3, 2 / 3]
    assert after["note"].tolist()[1] == "a\nb"
    assert Store.open(tmp_path / "s").row(f"{2:032x}") == row(2, note="a\nb")


def test_rows_of_before_a_metric_was_known_are_read_beside_those_that_have_it(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([row(1)])
    with Store.open(tmp_path / "s") as store:
        store.append([row(2, kendall_tau_estimate=0.5)])
    table = Store.open(tmp_path / "s").table().set_index("key")["kendall_tau_estimate"]
    assert table.isna().tolist() == [True, False]
    assert Store.open(tmp_path / "s").row(f"{2:032x}")["kendall_tau_estimate"] == 0.5


@pytest.mark.parametrize("cut", [1, 5, 40, 100])
def test_a_torn_row_is_not_a_row_and_is_counted(tmp_path: Path, cut: int) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append([row(1), row(2)])
    journal = next((tmp_path / "s").glob("journal-*"))
    journal.write_bytes(journal.read_bytes()[:-cut])
    again = Store.open(tmp_path / "s")
    assert len(again.table()) == 1
    assert again.torn == 1
    assert set(Store.open(tmp_path / "s").keys()) == {row(1)["key"]}


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append([row(1), row(2)])
    journal = next((tmp_path / "s").glob("journal-*"))
    content = bytearray(journal.read_bytes())
    content[60] ^= 1
    journal.write_bytes(content)
    assert list(Store.open(tmp_path / "s").keys()) == [row(2)["key"]]


def test_a_run_that_failed_and_then_came_through_has_come_through(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([row(1, failed=True, error="x")])
        assert store.keys() == {row(1)["key"]: True}
        store.append([row(1)])
        assert store.keys() == {row(1)["key"]: False}
    assert Store.open(tmp_path / "s").table()["failed"].tolist() == [False]


def test_a_journal_whose_driver_is_alive_is_left_alone(tmp_path: Path) -> None:
    one = Store.open(tmp_path / "s", create=True)
    one.append([row(1)])
    other = Store.open(tmp_path / "s")
    other.adopt()
    assert len(list((tmp_path / "s").glob("journal-*"))) == 1
    assert one._journal is not None
    one._journal.close()  # as if it had been killed
    other.adopt()
    assert not list((tmp_path / "s").glob("journal-*"))
    assert list(Store.open(tmp_path / "s").keys()) == [row(1)["key"]]


def _write(folder: str, first: int, count: int) -> None:
    with Store.open(folder) as store:
        for number in range(first, first + count):
            store.append([row(number)])


def test_two_drivers_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    Store.open(tmp_path / "s", create=True)
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_write, args=(str(tmp_path / "s"), first, 150)) for first in (0, 100)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert Store.open(tmp_path / "s").table()["key"].tolist() == [row(number)["key"] for number in range(250)]


def test_a_driver_that_is_killed_leaves_every_row_that_it_had_told_of(tmp_path: Path) -> None:
    Store.open(tmp_path / "s", create=True)
    code = (
        "import sys\nfrom driftsim.sweeps.store import Store\nfrom tests.test_store import row\n"
        "store = Store.open(sys.argv[1])\n"
        "for number in range(100000):\n    store.append([row(number)])\n    print(number, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = -1
    while told < 50:
        told = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    told = max([told, *map(int, process.stdout.read().split())])
    process.wait()
    keys = Store.open(tmp_path / "s").keys()
    assert {row(number)["key"] for number in range(told + 1)} <= set(keys)
    with Store.open(tmp_path / "s") as store:
        store.adopt()
    assert len(Store.open(tmp_path / "s").table()) == len(keys)


def test_a_full_disk_keeps_what_was_there_and_no_half_row(tmp_path: Path) -> None:
    Store.open(tmp_path / "s", create=True)
    code = (
        "import resource, signal, sys\nfrom driftsim.sweeps.store import Store\nfrom tests.test_store import row\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "store = Store.open(sys.argv[1])\nnumber = 0\n"
        "try:\n    while True:\n        store.append([row(number)])\n        number += 1\n"
        "except OSError:\n    print(number)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True, check=True)
    again = Store.open(tmp_path / "s")
    assert len(again.table()) == int(run.stdout) > 5
    assert again.torn == 0


def test_stores_merge_without_doubles(tmp_path: Path) -> None:
    for name, numbers in (("a", (1, 2, 3)), ("b", (3, 4))):
        with Store.open(tmp_path / name, create=True) as store:
            store.append([row(number, extra=name) for number in numbers])
    with Store.open(tmp_path / "a") as store:
        assert store.merge(Store.open(tmp_path / "b")) == 1
    whole = Store.open(tmp_path / "a").table()
    assert whole["key"].tolist() == [row(number)["key"] for number in (1, 2, 3, 4)]
    assert whole["e2e_mean_s"].tolist() == [number / 3 for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "is no store; driftsim sweep GRID.toml"),
        (lambda place: place.mkdir() or (place / "driftsim-store.json").write_text('{"version": 9}'), "version 9"),
    ],
)
def test_what_is_no_store_is_said(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "s")
    with pytest.raises(ValueError, match=message):
        Store.open(tmp_path / "s")


def test_a_folder_with_other_things_in_it_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="exists already and is no store"):
        Store.open(tmp_path, create=True)


@pytest.mark.nightly
def test_a_hundred_thousand_rows_are_resumed_and_read_in_two_seconds(tmp_path: Path) -> None:
    metrics = {f"metric_{number}": 0.123456789 + number for number in range(60)}
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([row(number) | metrics for number in range(100_000)])

        def seconds(read: Any) -> float:
            begin = time.process_time()
            read()
            return time.process_time() - begin

        assert seconds(lambda: Store.open(tmp_path / "s").keys()) < 2  # from the journal of a driver that was killed
    assert seconds(lambda: Store.open(tmp_path / "s").keys()) < 2
    assert seconds(lambda: Store.open(tmp_path / "s").table()) < 2
    assert len(Store.open(tmp_path / "s").table()) == 100_000
