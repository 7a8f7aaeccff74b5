"""The front door: every name of it is there, documented, and cheap to reach."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import driftsim as ds
from tests.strategies import engine, profile, workload

ROOT = Path(__file__).resolve().parent.parent
TYPES_ONLY = {"Policy", "Estimator"}  # protocols: nothing of theirs runs


def test_all_is_what_the_door_knows() -> None:
    assert list(ds.__all__) == sorted(ds.__all__)
    assert set(ds.__all__) == set(ds._HOME)
    assert set(dir(ds)) == {*ds.__all__, "__version__"}
    typed = (ROOT / "driftsim" / "__init__.py").read_text().split("if TYPE_CHECKING:")[1].split("__version__")[0]
    for name, module in ds._HOME.items():
        assert f"from driftsim.{module} import" in typed, name


@pytest.mark.parametrize("name", ds.__all__)
def test_a_name_of_the_door_is_documented_and_shown_at_work(name: str) -> None:
    value = getattr(ds, name)
    documentation = inspect.getdoc(value)
    assert documentation, name
    tests = doctest.DocTestFinder(recurse=True, exclude_empty=True).find(value, name)
    examples = [example for test in tests for example in test.examples]
    assert examples or name in TYPES_ONLY, f"{name} has no doctest"


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulator'"):
        ds.simulator  # noqa: B018


def test_importing_driftsim_loads_no_heavy_library() -> None:
    heavy = ["matplotlib", "numpy", "pandas", "pydantic", "rich", "scipy", "simpy", "typer"]
    code = f"import sys, driftsim; print(sorted(set({heavy}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_comparison_shows_itself(shipped: Path, tmp_path: Path) -> None:
    result = ds.compare(shipped, policies=["fifo", "sjf"], replications=3, jobs=1)
    text = str(result)
    assert "E2E mean" in text
    for sentence in result.answer():
        assert " ".join(sentence.split()) in " ".join(text.split())
    assert all(line == line.rstrip() for line in text.splitlines())
    html = result._repr_html_()
    assert html.count("<tr>") == 1 + len(result.rows())
    frame = result.frame()
    assert list(frame["policy"]) == ["fifo", "fifo", "sjf", "sjf"]
    assert frame["e2e_mean_s"].iloc[0] == result.rows()[0]["e2e_mean_s"]
    assert (result.write(tmp_path / "out") / "report.html").is_file()


def test_a_class_is_a_policy_in_every_process(shipped: Path) -> None:
    class Last(ds.Keyed):
        def key(self, job: ds.Job) -> float:
            return -job.request.arrival

    result = ds.compare(shipped, policies=["fifo", Last], estimators=["static"], replications=3, jobs=2)
    again = ds.compare(shipped, policies=["fifo", Last], estimators=["static"], replications=3, jobs=1)
    assert result.frame().equals(again.frame())
    own = result.rows()[1]
    assert own["policy"].endswith("Last")
    assert own["e2e_mean_s"] != result.rows()[0]["e2e_mean_s"]


def test_a_trace_in_memory_and_on_disk_is_one_trace(tmp_path: Path) -> None:
    made = workload([0.0, 0.1, 0.2], [5, 6, 7])
    run = ds.simulate(made, profile=profile(engine(max_num_seqs=1)), policy="sjf")
    back = ds.read(run.write(tmp_path / "run"))
    assert back.digest == run.digest
    assert back.name == "run"
    assert ds.summary(back, ds.Admission()) == ds.summary(run)


def test_a_workload_needs_a_profile() -> None:
    with pytest.raises(ds.InputError, match="give one"):
        ds.simulate(workload([0.0], [3]))


def test_the_backlog_rate_is_what_a_backlog_is_served_at() -> None:
    made = workload([0.0] * 40, [10] * 40)
    one_slot = profile(engine(max_num_seqs=1), intercept_s=0.01)
    rate = ds.backlog_rate(made, one_slot)
    run = ds.simulate(made, profile=one_slot)
    assert rate == pytest.approx(40 / float(run.requests["finish_s"].max()), rel=1e-3)


def test_sweep_returns_the_rows_of_its_grid(tmp_path: Path) -> None:
    run = ds.simulate(workload([0.0, 0.1, 0.2], [5, 6, 7]), profile=profile(engine(max_num_seqs=1)))
    run.write(tmp_path / "run")
    profile(engine(max_num_seqs=1)).save(tmp_path / "p.json")
    base = '[base]\ntrace = "run"\nprofile = "p.json"\n[grid]\npolicy = ["fifo", "sjf"]\n'
    (tmp_path / "grid.toml").write_text(base)
    rows = ds.sweep(tmp_path / "grid.toml", tmp_path / "store", jobs=1)
    assert sorted(rows["policy"]) == ["fifo", "sjf"]
    again = ds.sweep(tmp_path / "grid.toml", tmp_path / "store", jobs=1)
    assert again.equals(rows)


def test_schedulers_are_compared_on_a_workload_that_nobody_recorded() -> None:
    made = ds.Workload.poisson(rate=2.0, requests=60, prompt_tokens=20, output_tokens=30, seed=1)
    slow = profile(engine(max_num_seqs=2))
    result = ds.compare(made, policies="fifo", estimators="static", profile=slow, replications=3, jobs=1)
    assert [row["policy"] for row in result.rows()] == ["fifo"]
    assert result.provenance["kind"] == "generated"
    run = ds.simulate(made, profile=slow)
    assert result.rows()[0]["e2e_mean_s"] == ds.summary(run)["e2e_mean_s"]
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: ds.compare(made), "give one: profile="),
        (lambda: ds.compare(made, profile=slow, rate_scale=2.0), "another rate"),
        (lambda: ds.compare(made, profile=slow, admission=ds.Admission(base="fit")), "recorded trace"),
    ]
    for wrong, message in cases:
        with pytest.raises(ds.InputError, match=message):
            wrong()


def test_a_wrong_kind_of_argument_is_named() -> None:
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: ds.compare(3), "a trace, a workload, or a list of them is needed, not int"),  # type: ignore[arg-type]
        (lambda: ds.simulate("traces/x", policy="fifo"), "no such trace folder"),
        (lambda: ds.validate(sample := ds.sample(), profile=sample), "a profile or the file of one"),  # type: ignore[arg-type]
        (lambda: ds.compare(ds.sample(), engine="batch"), "unknown engine 'batch'"),  # type: ignore[arg-type]
        (lambda: ds.compare(ds.sample(), policies=["lifo"]), "unknown policy 'lifo'"),
        (lambda: ds.compare(ds.sample(), policies=[None]), "a name or a class, not None"),  # type: ignore[list-item]
        (lambda: ds.simulate(ds.sample(), policy=3), "a name or a class, not 3"),  # type: ignore[arg-type]
        (lambda: ds.simulate(ds.sample(), seed="2"), "seed must be a whole number, got '2'"),  # type: ignore[arg-type]
        (lambda: ds.simulate(ds.sample(), max_in_flight=2.5), "max_in_flight must be a whole"),  # type: ignore[arg-type]
        (lambda: ds.simulate(ds.sample(), rate_scale="2"), "rate scale must be above 0"),  # type: ignore[arg-type]
        (lambda: ds.simulate(ds.sample(), admission={}), "an Admission is needed"),  # type: ignore[arg-type]
        (lambda: ds.compare(ds.sample(), replications=2.5), "replications must be a whole"),  # type: ignore[arg-type]
        (lambda: ds.compare(ds.sample(), jobs="2"), "jobs must be a whole number"),  # type: ignore[arg-type]
        (lambda: ds.read(3), "the folder of a trace is needed"),  # type: ignore[arg-type]
        (lambda: ds.Scenario(profile="p.json"), "a Profile is needed"),  # type: ignore[arg-type]
        (lambda: ds.Profile.plain(intercept_s=0.01, block_size=0), "engine: "),
        (lambda: ds.Barrier(batch_size=0), "batch_size: "),
        (lambda: ds.Admission(base="x"), "base: "),  # type: ignore[arg-type]
    ]
    for wrong, message in cases:
        with pytest.raises(ds.InputError, match=message):
            wrong()


def test_an_argument_that_would_do_nothing_is_refused() -> None:
    trace = ds.sample()
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: ds.validate(trace, steps="measured", seeds=3), "seeds does nothing"),
        (lambda: ds.simulate(trace, policy="stock", max_in_flight=3), "no limit in flight"),
        (lambda: ds.compare(trace, engine="barrier", refill_lag=False), "no refill lag"),
    ]
    for wrong, message in cases:
        with pytest.raises(ds.InputError, match=message):
            wrong()


def test_two_classes_of_one_name_are_two_policies() -> None:
    def pressed(sign: int) -> type[ds.Keyed]:
        class Pressed(ds.Keyed):
            def key(self, job: ds.Job) -> float:
                return sign * job.budget

        return Pressed

    made = ds.Workload.backlog(requests=30, prompt_tokens=9, output_tokens=ds.Lengths(kind="uniform", high=40))
    slow = profile(engine(max_num_seqs=1))
    table = {name: float(64 * place + 1) for place, name in enumerate(("short_qa", "summary", "technical", "report"))}
    mixed = replace(made, table=made.table.assign(predicted_category=(["report", "short_qa"] * 15)))
    rows = ds.compare(
        mixed, policies=[pressed(1), pressed(-1)], estimators="static", profile=slow, replications=3, jobs=2,
        admission=ds.Admission(base_table=table),
    ).rows()  # fmt: skip
    assert [row["policy"].rpartition(">.")[2] for row in rows] == ["Pressed", "Pressed#2"]
    assert rows[0]["e2e_mean_s"] != rows[1]["e2e_mean_s"]


def test_a_table_is_as_wide_as_its_longest_name(shipped: Path) -> None:
    class WithANameThatIsMuchLongerThanAnyColumnOfATableOughtToBeInAnyTerminal(ds.Keyed):
        def key(self, job: ds.Job) -> float:
            return -job.request.arrival

    kind = WithANameThatIsMuchLongerThanAnyColumnOfATableOughtToBeInAnyTerminal
    text = str(ds.compare(shipped, policies=["fifo", kind], estimators="static", replications=1, jobs=1))
    assert "…" not in text
    assert kind.__name__ in text


def test_a_derived_profile_shows_its_coefficients() -> None:
    made = ds.Profile.plain(intercept_s=0.01, context_token_s=1e-7)
    assert list(made.frame()["coefficient"]) == ["intercept_s", "context_token_s"]
    assert "intercept" in str(made)


def test_a_base_is_fitted_whichever_verb_asks_for_it(shipped: Path) -> None:
    admission = ds.Admission(base="fit")
    run = ds.simulate(shipped, admission=admission)
    result = ds.compare(shipped, policies="fifo", estimators="static", admission=admission, replications=1, jobs=1)
    assert run.header.admission["base_table"] == result.plan.admission.model_dump()["base_table"]
    assert list(run.requests["estimate"]) == list(result.traces[result.plan.settings[0]].requests["estimate"])
