"""What is written: whole or not at all, in place of nothing but its own kind, and a store survives what is in it."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import pandas as pd
import pytest

from driftsim import workers
from driftsim.cli import app
from driftsim.errors import InputError, TraceError
from driftsim.files import write_file
from driftsim.sweeps.columns import of_one_kind
from driftsim.sweeps.plot import plotted
from driftsim.sweeps.store import MARK, Store
from tests.commands import driftsim

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "traces" / "smollm2-cpu-small-kv"


@contextmanager
def full_disk(size: int = 100) -> Iterator[None]:
    """No file may become longer than ``size`` bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def row(number: int, **more: Any) -> dict[str, Any]:
    told = {"policy": "fifo", "replication": number, "trace_digest": "d", "e2e_mean_s": 1.0 + number, "mae": 2.0}
    return {"key": f"{number:032x}", "failed": False, **told, **more}


def line(body: Any, key: str = "k") -> bytes:
    """A line of a journal as a store writes it, whatever ``body`` is."""
    if isinstance(body, dict):
        key = str(body.get("key", key))
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"{zlib.crc32(data):08x} {key} ".encode() + data + b"\n"


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("profile") / "p.json"
    assert driftsim("calibrate", SHIPPED.parent / "smollm2-cpu-low-load", "--out", file).returncode == 0
    return file


# -- the store
NO_ROWS = [
    line([1]),
    line(b"{"),
    line(b"[" * 100_000),
    line(b"\xff\xfe"),
    line({"failed": False}),
    line({"key": ["k"], "failed": False}),
    line({**row(9), "failed": "no"}),
    line({**row(9), "e2e_mean_s": "auto"}),
    line(row(9)).replace(b"1.0", b"2.0", 1).replace(b"fifo", b"sjf0"),
]


@pytest.mark.parametrize("poison", NO_ROWS, ids=range(len(NO_ROWS)))
def test_a_poisoned_line_costs_that_row_alone(tmp_path: Path, poison: bytes) -> None:
    store = Store.open(tmp_path / "s", create=True)
    (tmp_path / "s" / "journal-a.jsonl").write_bytes(line(row(1)) + poison + line(row(2)))
    assert set(store.keys()) == {row(1)["key"], row(2)["key"]}
    assert len(store.table()) == 2
    store.adopt()
    assert Store.open(tmp_path / "s").table()["key"].tolist() == [row(1)["key"], row(2)["key"]]
    assert driftsim("show", tmp_path / "s").returncode == 0


ODD_ROWS: list[dict[str, Any]] = [
    {"seed": 10**400, "kv_blocks": "auto"},
    {"policy": "\ud800x"},
    {"policy": {"a": [1]}, "replication": "two"},
    {"trace": 5, "trace_digest": None, "policy": True},
    {"warnings": ["x"], "workload.a.trace": 3, "tiers": 1.5, "tiers.a.b": "x"},
    {"e2e_mean_s": float("nan"), "recorded_rate": float("inf")},
]


@pytest.mark.parametrize("odd", ODD_ROWS, ids=range(len(ODD_ROWS)))
def test_rows_of_other_types_and_columns_are_read_beside_each_other(tmp_path: Path, odd: dict[str, Any]) -> None:
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([row(n, policy=policy, key=f"{n}{policy}") for n in range(3) for policy in ("fifo", "sjf")])
    with Store.open(tmp_path / "s") as store:
        store.append([row(7, **odd)])
        assert len(store.table()) == 7  # while it is written
    with Store.open(tmp_path / "other", create=True) as other:
        assert other.merge(Store.open(tmp_path / "s")) == 7
    for folder, view in itertools.product(
        ("s", "other"), ([], ["--best", "e2e_mean_s"], ["--paired", "policy=fifo/policy=sjf"], ["--csv", "x.csv"])
    ):
        csv = [tmp_path / "x.csv" if part == "x.csv" else part for part in view]
        shown = driftsim("show", tmp_path / folder, *csv)
        assert shown.returncode == 0, shown.stderr


def test_two_drivers_of_one_store_leave_each_run_once_in_its_parquet(tmp_path: Path) -> None:
    one, other = Store.open(tmp_path / "s", create=True), Store.open(tmp_path / "s")
    one.append([row(1), row(2), row(3, failed=True)])
    other.append([row(2), row(3), row(4)])
    for store in (one, other):
        store.close()
    rows = pd.concat(map(pd.read_parquet, (tmp_path / "s").glob("rows-*.parquet")))
    assert sorted(rows["replication"]) == [1, 2, 3, 4]
    assert not rows["failed"].any()
    with Store.open(tmp_path / "s") as later:
        later.append([row(3, failed=True)])
    assert not Store.open(tmp_path / "s").table()["failed"].any()


@pytest.mark.parametrize("content", [b"PAR1", b""])
def test_a_file_that_holds_no_rows_is_named(tmp_path: Path, content: bytes) -> None:
    Store.open(tmp_path / "s", create=True)
    (tmp_path / "s" / "rows-a.parquet").write_bytes(content)
    shown = driftsim("show", tmp_path / "s")
    assert (shown.returncode, shown.stderr.count("\n")) == (2, 1)
    assert "rows-a.parquet: not readable as rows of a store" in shown.stderr


@pytest.mark.parametrize("content", ["", "[]", '{"version": 9}'])
def test_a_mark_that_says_nothing_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / MARK).write_text(content)
    with pytest.raises(InputError, match=MARK):
        Store.open(tmp_path)


def test_a_store_whose_making_was_killed_can_be_made(tmp_path: Path) -> None:
    (tmp_path / f".{MARK}.0123abcd.new").write_text("{")
    assert Store.open(tmp_path, create=True).keys() == {}


def test_a_store_on_a_full_disk_is_gone_on_with(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append([row(1)])
    with full_disk(), pytest.raises(OSError, match="File too large"):
        store.append([row(2)])
    with full_disk(), pytest.raises(OSError, match="File too large"):
        store.close()
    with Store.open(tmp_path / "s") as again:
        again.adopt()
        again.append([row(2)])
    assert len(Store.open(tmp_path / "s").table()) == 2
    assert not list((tmp_path / "s").glob(".*"))


def test_a_grid_that_nobody_means_is_refused_at_once(tmp_path: Path) -> None:
    axes = "\n".join(f"seed{number} = {list(range(10))}" for number in range(20))
    (tmp_path / "g.toml").write_text(f'[base]\ntrace = "t"\n[grid]\n{axes}\n')
    run = driftsim("sweep", tmp_path / "g.toml", "--store", tmp_path / "s")
    assert (run.returncode, "100,000,000,000,000,000,000 runs are too many" in run.stderr) == (2, True)


# -- whole or not at all
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, profile: Path) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(profile.read_bytes())
    with full_disk():
        run = driftsim("calibrate", SHIPPED, "--out", file)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert file.read_bytes() == profile.read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == ["p.json"]


def test_no_verb_leaves_half_of_a_folder_on_a_full_disk(tmp_path: Path, profile: Path) -> None:
    (tmp_path / "s.toml").write_text(f'trace = "{SHIPPED}"\nprofile = "{profile}"\n')
    before = sorted(tmp_path.iterdir())
    for asked in (
        ("simulate", tmp_path / "s.toml"),
        ("validate", SHIPPED, "--steps", "measured"),
        ("compare", SHIPPED, "--policies", "fifo", "--replications", 1, "--jobs", 1),
    ):
        with full_disk(5000):
            run = driftsim(*asked, "--out", tmp_path / "out")
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert sorted(tmp_path.iterdir()) == before


def test_figures_of_a_store_are_all_there_or_none(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([row(n, e2e_p99_s=3.0 + n, estimator="static") for n in range(3)])
    with full_disk(20_000):
        run = driftsim("show", tmp_path / "s", "--figures", tmp_path / "figures")
    assert (run.returncode, (tmp_path / "figures").exists()) == (2, False)
    for _ in range(2):  # and once more, onto its own
        assert driftsim("show", tmp_path / "s", "--figures", tmp_path / "figures").returncode == 0


def test_nobody_elses_file_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".p.json.new").symlink_to(precious)
    write_file(tmp_path / "p.json", "{}")
    assert precious.read_text() == "mine"


def test_files_are_utf_8_in_every_locale(tmp_path: Path) -> None:
    code = (
        "import sys; from driftsim.cli import main\n"
        f"sys.argv = ['driftsim', 'compare', {str(SHIPPED)!r}, '--policies', 'fifo', '--replications', '1',"
        f" '--jobs', '1', '--out', {str(tmp_path / 'out')!r}]; main()"
    )
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run([sys.executable, "-c", code], env=plain, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "<!doctype html>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8").lower()


# -- in place of its own kind alone
@pytest.mark.parametrize(
    "asked",
    [
        ("calibrate", SHIPPED, "--out", "x.json"),
        ("profile", "--gpu", "L4", "--model", ROOT / "examples" / "qwen2.5-7b.json", "--out", "x.json"),
        ("view", SHIPPED, "--out", "x.json"),
        ("export", SHIPPED, "mooncake", "--out", "x.jsonl"),
        ("export", SHIPPED, "blis", "--out", "x.csv"),
        ("export", SHIPPED, "blis", "--out", "y.csv"),
        ("show", "s", "--csv", "x.csv"),
        ("show", "s", "--figures", "folder"),
        ("import", "table.csv", "--suggest", "--out", "x.toml"),
        ("import", "table.csv", "--out", "folder"),
        ("compare", SHIPPED, "--replications", 1, "--jobs", 1, "--out", "folder"),
        ("demo", "--out", "folder"),
        ("validate", SHIPPED, "--steps", "measured", "--out", "folder"),
        ("check", "--baseline", ROOT / "experiments" / "gate" / "baseline.json", "--jobs", 1, "--junit", "x.json"),
        ("check", "--baseline", ROOT / "experiments" / "gate" / "baseline.json", "--jobs", 1, "--markdown", "x.json"),
    ],
    ids=lambda asked: f"{asked[0]} {asked[-1]}",
)
def test_no_output_replaces_what_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[object, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open("s", create=True) as store:
        store.append([row(n, e2e_p99_s=3.0, estimator="static") for n in range(3)])
    Path("table.csv").write_text("created_at,in_tokens,out_tokens\n0.5,20,7\n1.5,30,9\n")
    Path("folder").mkdir()
    mine = [Path(name) for name in ("x.json", "x.jsonl", "x.csv", "x.toml", "y.yaml", "folder/rows.csv")]
    for file in mine:
        file.write_text("precious\n")
    run = driftsim(*asked)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert {file.read_text() for file in mine} == {"precious\n"}


LIKE_OURS = {  # files that say what ours say, and are of somebody else
    "calibrate": ("x.json", '{"notes": "the profile had a wrong", "intercept_s": 3}'),
    "view": ("x.json", '{"schemaVersion": 1, "traceEvents": [{"ph": "X", "name": "aten::mm"}]}'),
    "export mooncake": (
        "x.jsonl",
        '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2, 3]}\n'
        '{"timestamp": 30, "input_length": 732, "output_length": 490, "hash_ids": [0, 14]}\n',
    ),
    "export blis": ("x.yaml", "trace_version: 2\nmode: generated\n"),
    "show --csv": ("x.csv", "name,monkey,donkey\n1,2,3\n"),
    "import --suggest": ("x.toml", "# A mapping for t.csv, guessed\n# and corrected by hand\n[columns]\n"),
    "check --junit": ("x.xml", '<testsuites><testsuite name="pytest"/><!-- name="driftsim check" --></testsuites>'),
    "check --markdown": ("x.md", "# How we work\n\nWe run driftsim check each night.\n"),
    "view, no gzip": ("x.json.gz", "\x1f\x0bnone"),
}
GATE = ("check", "--baseline", ROOT / "experiments" / "gate" / "baseline.json", "--jobs", 1)
ASKED: dict[str, tuple[object, ...]] = {
    "calibrate": ("calibrate", SHIPPED, "--out", "x.json"),
    "view": ("view", SHIPPED, "--out", "x.json"),
    "export mooncake": ("export", SHIPPED, "mooncake", "--out", "x.jsonl"),
    "export blis": ("export", SHIPPED, "blis", "--out", "x.csv"),
    "show --csv": ("show", "s", "--csv", "x.csv"),
    "import --suggest": ("import", "table.csv", "--suggest", "--out", "x.toml"),
    "check --junit": (*GATE, "--junit", "x.xml"),
    "check --markdown": (*GATE, "--markdown", "x.md"),
    "view, no gzip": ("view", SHIPPED, "--out", "x.json.gz"),
}


@pytest.mark.parametrize("case", LIKE_OURS)
def test_what_only_looks_like_an_output_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open("s", create=True) as store:
        store.append([row(1)])
    Path("table.csv").write_text("created_at,in_tokens,out_tokens\n0.5,20,7\n1.5,30,9\n")
    name, text = LIKE_OURS[case]
    content = text.encode("latin-1").replace(b"\x1f\x0b", b"\x1f\x8b")
    Path(name).write_bytes(content)
    run = driftsim(*ASKED[case])
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert Path(name).read_bytes() == content


@pytest.mark.parametrize("case", ["view", "export mooncake", "export blis", "show --csv", "import --suggest"])
def test_an_output_replaces_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open("s", create=True) as store:
        store.append([row(1)])
    Path("table.csv").write_text("created_at,in_tokens,out_tokens\n0.5,20,7\n1.5,30,9\n")
    for _ in range(2):
        run = driftsim(*ASKED[case])
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("asked", "files"),
    [
        (("show", "s", "--figures", "folder"), {"load.png": "my own picture"}),
        (("show", "s", "--figures", "folder"), {"pareto.svg": "<svg>mine</svg>", "pareto.png": "mine"}),
        (("compare", SHIPPED, "--out", "folder"), {"comparison.json": '{"mine": 1}', "report.html": "mine"}),
        (("validate", SHIPPED, "--steps", "measured", "--out", "folder"),
         {"validation.json": '{\n "files": ["x.svg"]}', "x.svg/mine": "mine"}),
        (("validate", SHIPPED, "--steps", "measured", "--out", "folder"),
         {"validation.json": '{\n "files": ["t"]}', "t/header.json": '{"kind": "simulated"}', "t/mine": "mine"}),
    ],
)  # fmt: skip
def test_a_folder_that_only_looks_like_an_output_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[object, ...], files: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open("s", create=True) as store:
        store.append([row(n, e2e_p99_s=3.0, estimator="static") for n in range(3)])
    for name, text in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text(text)
    run = driftsim(*asked)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert {name: (tmp_path / "folder" / name).read_text() for name in files} == files


def test_a_validation_replaces_a_validation_and_no_recording(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert driftsim("validate", SHIPPED, "--steps", "measured", "--out", out).returncode == 0
    assert {"validation.json", SHIPPED.name, f"{SHIPPED.name}-quantiles.svg"} <= {one.name for one in out.iterdir()}
    (out / SHIPPED.name / "header.json").write_bytes((SHIPPED / "header.json").read_bytes())
    run = driftsim("validate", SHIPPED, "--steps", "measured", "--out", out)
    assert (run.returncode, f"holds '{SHIPPED.name}" in run.stderr) == (2, True), run.stderr


@pytest.mark.parametrize("name", ["new.json", "deep/../new.json"])
def test_nothing_is_written_into_any_trace(tmp_path: Path, name: str) -> None:
    copytree(SHIPPED, tmp_path / "other")
    (tmp_path / "other" / "deep").mkdir()
    with pytest.raises(TraceError, match="which is only read"):
        write_file(tmp_path / "other" / name, "{}")
    with pytest.raises(TraceError, match="which is only read"):
        Store.open(tmp_path / "other" / "store", create=True)
    for asked in (("calibrate", SHIPPED), ("validate", SHIPPED, "--steps", "measured")):
        assert driftsim(*asked, "--out", tmp_path / "other" / name).returncode == 2
    assert sorted(one.name for one in (tmp_path / "other").iterdir()) == sorted(
        [*(one.name for one in SHIPPED.iterdir()), "deep"]
    )


def test_an_unknown_phase_writes_no_trace(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(f'trace = "{SHIPPED}"\nphase = "never"\n')
    run = driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "out")
    assert (run.returncode, (tmp_path / "out").exists()) == (2, False)


def test_a_repeat_without_a_ratio_is_no_regression(tmp_path: Path) -> None:
    copytree(SHIPPED, tmp_path / "turned")
    file = tmp_path / "turned" / "requests.parquet"
    rows = pd.read_parquet(file)
    rows["budget"] = 5000 - rows["prompt_tokens"] - rows["output_tokens"]
    rows.to_parquet(file, index=False)
    baseline = tmp_path / "b.json"
    assert driftsim("check", "--baseline", baseline, "--update", "--reason", "r", "--captured", SHIPPED).returncode == 0
    for held in ((), ("--beside", SHIPPED)):
        run = driftsim("check", "--baseline", baseline, "--captured", tmp_path / "turned", *held)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert "kendall_tau is -" in run.stderr


# -- workers
def test_a_pickle_is_read_out_of_a_folder_of_ones_own_alone(tmp_path: Path) -> None:
    with workers.shared({"a": 1}) as file:
        assert workers.load(file) == {"a": 1}
        assert file.parent.stat().st_mode & 0o777 == 0o700
        file.parent.chmod(0o770)
        with pytest.raises(workers.WorkerError, match="others may have written it"):
            workers.load(file)
        file.parent.chmod(0o700)


SLEEPER = """
import os, sys, time
from driftsim import workers
from driftsim.cli import app

def nap(shared, task):
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    time.sleep(600)

if __name__ == "__main__":
    with workers.shared(0) as file:
        print(file.parent, flush=True)
        list(workers.map_shared(nap, range(2), file, 2))
"""


def test_workers_and_their_folder_go_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "begun").mkdir()
    driver = subprocess.Popen(
        [sys.executable, tmp_path / "sleeper.py", tmp_path / "begun"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert driver.stdout is not None
    folder = Path(driver.stdout.readline().strip())
    while len(pids := [int(file.name) for file in (tmp_path / "begun").iterdir()]) < 2:
        time.sleep(0.05)
    driver.kill()
    driver.stdout.read()  # comes to its end when nobody holds it any more
    driver.wait()
    assert not any(_alive(pid) for pid in pids)
    assert not folder.exists()


def test_a_process_that_works_alone_outlives_the_shell_that_started_it() -> None:
    with workers.shared(0) as file:
        assert list(workers.map_shared(_number, range(3), file, 1)) == [0, 1, 2]
    assert workers._watched is None


def _number(shared: int, task: int) -> int:
    return shared + task


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


def test_who_is_terminated_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(**_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # the handler runs here

    monkeypatch.setattr(app, "command", lambda: killed)
    run = driftsim("show", "s")
    assert (run.returncode, run.stderr) == (143, "driftsim: terminated\n")


def test_runs_whose_number_is_a_text_are_drawn_as_any_other() -> None:
    rows = [row(n, replication=number, e2e_p99_s=3.0, estimator="static") for n, number in enumerate([0, 1, "two"])]
    assert len(plotted(of_one_kind(pd.DataFrame(rows))).points) == 1


@pytest.mark.parametrize("out", ["", "/", "."])
def test_an_export_without_a_name_is_one_line(out: str) -> None:
    run = driftsim("export", SHIPPED, "blis", "--out", out)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
