"""What requests are promised is written into their trace as it is made, and every verb judges the trace by it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import driftsim as ds
from driftsim.errors import InputError, TraceError
from driftsim.live.capture import capture
from driftsim.live.choices import EngineChoice, WorkloadChoice
from driftsim.live.orders import Orders
from driftsim.live.plan import CapturePlan
from driftsim.live.recorder import record
from driftsim.slo import slo_rules
from driftsim.testing import Echo, engine, profile
from driftsim.trace.trace import read
from tests.commands import driftsim
from tests.strategies import workload
from tests.test_http import url

__all__ = ["url"]
PROMPTS = [{"prompt": f"ok {5 + 3 * (n % 4)}", "tenant": "ab"[n % 2], "tier": "premium"} for n in range(12)]
SLOS = ("a:ttft=300ms,e2e=20s", "e2e=1ms")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, PROMPTS)))
    return file


def captured(url: str, prompts: Path, out: Path, *more: object) -> Any:
    promised = [word for slo in SLOS for word in ("--slo", slo)]
    return driftsim("capture", "--engine", "openai", "--base-url", url, "--prompts", prompts, "--arrivals", "poisson",
                    "--rate", 60, "--out", out, *promised, *more)  # fmt: skip


def test_a_capture_keeps_its_slos_and_every_verb_goes_by_them(url: str, prompts: Path, tmp_path: Path) -> None:
    run = captured(url, prompts, tmp_path / "t")
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "t" / "header.json").read_text())["slos"][0]["who"] == "a"
    trace = read(tmp_path / "t")
    assert trace.header.slos == slo_rules(SLOS)
    row = ds.summary(trace)
    assert row["slo_met"] == sum(ds.slo_outcomes(trace)["met"])
    assert row["per_tenant"]["b"]["slo_met"] == 0  # nobody answers in 1 ms
    profile(engine(max_num_seqs=4), intercept_s=1.0).save(tmp_path / "p.json")  # too slow for any of them
    known = ("--profile", tmp_path / "p.json")
    compared = driftsim("compare", tmp_path / "t", *known, "--policies", "fifo,edf", "--replications", 1, "--jobs", 1)
    assert "Within the SLOs" in compared.stdout, compared.stderr
    validated = driftsim("validate", tmp_path / "t", *known)
    assert f"t: {100 * row['attainment']:.1f} % of the requests were served within their SLOs" in validated.stdout
    document = json.loads(driftsim("validate", tmp_path / "t", *known, "--json").stdout)
    assert document["attainments"][0]["measured"] == pytest.approx(row["attainment"])
    assert document["attainments"][0]["simulated"] == 0.0
    (tmp_path / "s.toml").write_text(f'trace = "{tmp_path}/t"\nprofile = "{tmp_path}/p.json"\n')
    (tmp_path / "g.toml").write_text(f'base = {{ trace = "{tmp_path}/t", profile = "{tmp_path}/p.json" }}\n')
    ds.sweep(tmp_path / "g.toml", tmp_path / "store", jobs=1)
    assert "goodput" in driftsim("show", tmp_path / "store", "--best", "goodput").stdout
    assert "Within the SLOs" in driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "o").stdout


def test_captures_of_several_policies_say_what_each_kept(url: str, prompts: Path, tmp_path: Path) -> None:
    run = captured(url, prompts, tmp_path, "--policies", "fifo,edf", "--repeats", 2)
    assert run.returncode == 0, run.stderr
    folders = [tmp_path / name for name in ("fifo-1", "fifo-2", "edf-1", "edf-2")]
    shown = driftsim("effects", *folders).stdout
    assert "Within the SLOs of the traces, measured" in shown
    rows = ds.compare_captured(*folders).within_slos()
    means = [sum(ds.summary(read(folder))["attainment"] for folder in pair) / 2 for pair in (folders[:2], folders[2:])]
    assert [row["attainment"] for row in rows] == pytest.approx(means)
    header = json.loads((folders[0] / "header.json").read_text())
    (folders[0] / "header.json").write_text(json.dumps(header | {"slos": ["e2e=9s"]}))
    differ = driftsim("effects", *folders).stdout
    assert "the traces have different SLOs" in " ".join(differ.split())
    assert "attainment" not in differ


@pytest.mark.parametrize("other", [{"slos": ["e2e=2s"]}, {"seed": 5}])
def test_a_capture_goes_on_with_the_slos_and_the_seed_that_it_began_with(
    url: str, prompts: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    assert captured(url, prompts, tmp_path / "c", "--policies", "fifo,sjf").returncode == 0
    header = tmp_path / "c" / "fifo-1" / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | other | {"ended": "interrupted"}))
    run = captured(url, prompts, tmp_path / "c", "--policies", "fifo,sjf")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "holds another trace" in run.stderr


@pytest.mark.parametrize(
    ("slo", "what"),
    [
        ("itl=50ms", "an SLO limits itl, and the steps of a capture do not name their requests; limit tpot"),
        ("gold:ttft=1s", "no request has the tenant or tier 'gold'"),
        ("ttft=1", "has no unit"),
        ("ttft=-1s", "is no limit; it must be above 0"),
        ("ttft=nan", "is no time in s or ms"),
        ("", "is no limit; write NAME:limit=VALUE"),
    ],
)
def test_what_cannot_be_promised_is_refused_in_a_line(
    url: str, prompts: Path, tmp_path: Path, slo: str, what: str
) -> None:
    run = driftsim("capture", "--engine", "openai", "--base-url", url, "--prompts", prompts, "--out", tmp_path / "t",
                   "--slo", slo)  # fmt: skip
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert what in run.stderr
    assert not (tmp_path / "t").exists()


def test_deadlines_order_a_live_queue(tmp_path: Path) -> None:
    """One slot, four requests at once: tenant b is promised an earlier end, and is served first."""
    made = workload([0.0] * 4, [1] * 4, tenant=list("aabb"), prompt_tokens=[20] * 4)
    plan = CapturePlan(policy="edf", max_in_flight=1, slos=slo_rules(["a:ttft=9s", "b:ttft=1s"]))
    trace = asyncio.run(record(made, Echo(), plan, tmp_path / "t"))
    assert trace.requests.sort_values("dispatch_s")["tenant"].tolist() == list("bbaa")
    again = ds.simulate(trace, policy="edf", profile=profile(engine(max_num_seqs=1)), max_in_flight=1)
    assert again.header.slos == plan.slos
    with pytest.raises(InputError, match="edf orders by SLOs, and there is none"):
        asyncio.run(record(made, Echo(), CapturePlan(policy="edf"), tmp_path / "u"))


def test_a_policy_inside_the_engine_is_told_the_slos() -> None:
    orders = Orders.model_validate_json(Orders(policy="edf", slos=slo_rules("e2e=2s")).model_dump_json())
    assert orders.slos == slo_rules("e2e=2s")
    policy: Any = orders.place().policy
    assert policy._around.slos == orders.slos


def test_a_replay_is_promised_what_the_trace_was(url: str, tmp_path: Path) -> None:
    made = workload([0.0, 0.01], [3, 4], prompt_tokens=[5, 5])
    first = asyncio.run(record(made, Echo(), CapturePlan(slos=slo_rules("e2e=3s")), tmp_path / "t"))
    server = EngineChoice(kind="openai", base_url=url)
    (_, again), *_ = capture(tmp_path / "again", engine=server, workload=WorkloadChoice(replay=tmp_path / "t"))
    assert again.header.slos == first.header.slos == slo_rules("e2e=3s")
    (_, other), *_ = capture(
        tmp_path / "other", engine=server, workload=WorkloadChoice(replay=tmp_path / "t"), slos="ttft=1s"
    )
    assert other.header.slos == slo_rules("ttft=1s")


TABLE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,374,44\n2024-05-10 00:00:02,396,109\n"


def test_an_imported_trace_keeps_what_its_requests_are_promised(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    run = driftsim("import", tmp_path / "a.csv", "--out", tmp_path / "t", "--slo", "e2e=2s")
    assert run.returncode == 0, run.stderr
    assert read(tmp_path / "t").header.slos == slo_rules("e2e=2s")
    wrong = driftsim("import", tmp_path / "a.csv", "--out", tmp_path / "u", "--slo", "gold:e2e=2s")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no request has the tenant or tier 'gold'" in wrong.stderr
    assert not (tmp_path / "u").exists()
    idle = driftsim("import", tmp_path / "a.csv", "--suggest", "--slo", "e2e=2s")
    assert "drop --slo" in idle.stderr


def test_a_trace_is_not_judged_by_what_it_cannot_tell(tmp_path: Path) -> None:
    made = ds.simulate(workload([0.0] * 3, [9] * 3), profile=profile(engine(max_num_seqs=2)))
    with pytest.raises(TraceError, match="limits itl"):
        ds.summary(made, slos="itl=1s")
