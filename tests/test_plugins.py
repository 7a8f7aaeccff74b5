"""Policies and estimators from the user's own file: in every verb, held to the laws, and in the key."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import driftsim as ds
from driftsim.scheduling import plugins
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import ESTIMATORS, GIVEN, make_estimator
from driftsim.scheduling.policies import POLICIES, make_policy
from driftsim.simulation import laws
from driftsim.simulation.laws import conformance, verdicts
from driftsim.simulation.spec import ScenarioSpec
from tests.commands import driftsim
from tests.strategies import engine, profile, workload
from tests.test_sweep import place

__all__ = ["place"]
MINE = '''
from driftsim.scheduling.estimators import Static
from driftsim.scheduling.policies import Keyed


class Longest(Keyed):
    """The largest budget first."""

    def key(self, job):
        return -job.budget


class Fifty(Static):
    """Always fifty tokens."""

    def estimate(self, request, category, now):
        from driftsim.scheduling.estimators import Estimate
        return Estimate(50, 1.0)


class Scans:
    """Planted: looks at everybody who waits, and forgets every hundredth."""

    def __init__(self):
        self.jobs = []
        self.count = 0

    def push(self, job, now):
        self.count += 1
        if self.count % 100:
            self.jobs.append(job)

    def pop(self, now):
        if not self.jobs:
            raise IndexError
        best = min(self.jobs, key=lambda job: job.budget)
        self.jobs.remove(best)
        return best

    def __len__(self):
        return len(self.jobs)


class Overfull(Longest):
    """Planted: gives jobs of tiers that are full."""

    def pop_below(self, now, full):
        return self.pop(now)


class Hides(Longest):
    """Planted: says that nobody waits until three do."""

    def __len__(self):
        waiting = super().__len__()
        return waiting if waiting > 2 or self.last else 0

    last = False

    def push(self, job, now):
        super().push(job, now)
        self.last = now > 0.35


class Shared(Fifty):
    """Planted: what one instance learns, all know."""

    learned = []

    def estimate(self, request, category, now):
        from driftsim.scheduling.estimators import Estimate
        return Estimate(50 + len(self.learned), 1.0)

    def observe(self, job, output_length, censored, now):
        self.learned.append(output_length)


class Random(Keyed):
    """Planted: another order each time."""

    def key(self, job):
        import random
        return random.random()


class Neither:
    pass
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def test_a_policy_and_an_estimator_of_ones_own_work_in_every_verb(place: Path, mine: Path, tmp_path: Path) -> None:
    policy, estimator = f"{mine}:Longest", f"{mine}:Fifty"
    told = driftsim(
        "compare", place / "t", "--policies", f"fifo,{policy}", "--estimators", f"static,{estimator}",
        "--replications", 1, "--jobs", 1, "--json",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    rows = json.loads(told.stdout)["rows"]
    assert {(row["policy"], row["estimator"]) for row in rows} == {
        (one, other) for one in ("fifo", policy) for other in ("static", estimator)
    }
    (tmp_path / "s.toml").write_text(f'trace = "{place}/t"\npolicy = "{policy}"\nestimator = "{estimator}"\n')
    assert driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "out").returncode == 0
    made = driftsim("validate", tmp_path / "out", "--profile", place / "p.json")
    assert made.returncode == 0, made.stderr
    (tmp_path / "g.toml").write_text(f'[base]\ntrace = "{place}/t"\n[grid]\npolicy = ["fifo", "{policy}"]\n')
    assert driftsim("sweep", tmp_path / "g.toml", "--store", tmp_path / "s", "--jobs", 2).returncode == 0
    assert "Longest" in driftsim("show", tmp_path / "s").stdout


def test_a_module_in_the_working_directory_is_found(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    assert type(make_policy("mine:Longest")).__name__ == "Longest"


def test_what_a_package_declares_is_known_by_its_name(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "longest"

        def load(self) -> type:
            return plugins.plugin(f"{mine}:Longest")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point()] if group == "driftsim.policies" else [])
    assert type(make_policy("longest")).__name__ == "Longest"
    with pytest.raises(ValueError, match="unknown policy 'longes'; choose one of stock, .*, longest"):
        make_policy("longes")


def test_the_source_is_part_of_the_key(mine: Path) -> None:
    from driftsim.simulation import spec as simulating

    spec = ScenarioSpec(trace="t", policy=f"{mine}:Longest")
    before = spec.key("a", "b")
    assert before != ScenarioSpec(trace="t").key("a", "b")
    mine.write_text(MINE + "\n# another thought\n")
    simulating._source.cache_clear()
    assert spec.key("a", "b") != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.py:X", "absent.py: no such file"),
        ("no.such.module:X", "no.such.module: does not import"),
        ("{}:Missing", "has no class 'Missing'; it has "),
        ("{}:Neither", "is no policy, it has no push"),
    ],
)
def test_what_is_no_plug_in_is_said(place: Path, mine: Path, name: str, message: str) -> None:
    run = driftsim("compare", place / "t", "--policies", name.format(mine), "--replications", 1)
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


TOLD = '''
from driftsim.scheduling.policies import Keyed


class Told(Keyed):
    """Writes down what it is told."""

    heard = []

    def given(self, around):
        self.around = around
        self.heard.append(("slos", len(around.slos)))

    def key(self, job):
        self.heard.append(("size", round(self.around.service_s(job), 6)))
        return job.request.arrival

    def served(self, job, tokens, now):
        self.heard.append((job.request.id, tokens, now))
'''


def test_a_plug_in_is_told_of_the_run_and_of_every_length(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(TOLD)
    name = f"{tmp_path / 'told.py'}:Told"
    one = profile(engine(max_num_seqs=1))  # 10 ms a step
    made = workload([0.0, 0.0], [3, 7], max_tokens=[9, 9], patience_s=[math.nan, math.nan])
    ds.simulate(made, policy=name, estimator="oracle", profile=one, slos="e2e=1s", refill_lag=False)
    heard: Any = plugins.plugin(name)
    assert heard.heard == [("slos", 1), ("size", 0.03), ("size", 0.07), ("r0", 3, 0.03), ("r1", 7, 0.1)]


def test_who_gives_up_while_it_waits_never_ran(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(TOLD)
    name = f"{tmp_path / 'told.py'}:Told"
    made = workload([0.0, 0.0, 0.0], [30, 7, 7], patience_s=[math.nan, 0.05, math.nan])
    ds.simulate(made, policy=name, profile=profile(engine(max_num_seqs=1)), refill_lag=False)
    heard: Any = plugins.plugin(name)
    assert [one[:2] for one in heard.heard if len(one) == 3] == [("r0", 30), ("r1", None), ("r2", 7)]


@pytest.mark.parametrize("name", [*POLICIES, "stock"])
def test_our_policies_keep_the_laws(name: str) -> None:
    assert [verdict for verdict in conformance("policy", name) if not verdict.holds] == []


@pytest.mark.parametrize("name", [*ESTIMATORS, *GIVEN])
def test_our_estimators_keep_the_laws(name: str) -> None:
    assert [verdict for verdict in conformance("estimator", name) if not verdict.holds] == []


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("Scans", {"every request leaves exactly once", "pop gives each job once, IndexError when empty",
                   "a decision costs no scan of the queue"}),
        ("Random", {"the same run gives the same trace", "the future cannot change the past"}),
        ("Hides", {"one slot: waits, weighted by service, sum up as FIFO's do"}),
        ("Overfull", {"pop gives each job once, IndexError when empty"}),
        ("Shared", {"the same run gives the same trace", "two estimators share no state"}),
        ("Longest", set()),
        ("Fifty", set()),
    ],
)  # fmt: skip
def test_a_planted_mistake_breaks_the_law_that_it_should(
    mine: Path, name: str, broken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, found = verdicts(f"{mine}:{name}")
    seen = {verdict.law for verdict in found if not verdict.holds}
    assert broken - {"every request leaves exactly once"} <= seen
    assert bool(seen) == bool(broken)
    judged = {f"{mine}:{name}": (kind, found)}  # once: it takes a second
    monkeypatch.setattr(laws, "verdicts", judged.__getitem__)
    run = driftsim("conformance", f"{mine}:{name}")
    assert run.returncode == (1 if broken else 0)
    assert run.stdout.count("FAILS") == len(seen)


def test_an_estimator_gets_the_switches(mine: Path) -> None:
    made: Any = make_estimator(f"{mine}:Fifty", Admission(alpha=0.3), {})
    assert made.admission.alpha == 0.3
