"""What the commands of the experiments and of the planted faults accept."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from experiments import gateway_demo
from experiments.arguments import amount
from tests.mutants import __main__ as mutants


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast", ""])
def test_an_amount_is_a_number_above_0(text: str) -> None:
    assert amount("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match="is no number above 0"):
        amount(text)


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        (gateway_demo.main, ["--rate", "0"], "'0' is no number above 0"),
        (mutants.arguments, ["--jobs", "0"], "'0' is no whole number above 0"),
        (mutants.arguments, ["--limit", "nan"], "'nan' is no number above 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_begins(
    command: Callable[[], object], arguments: list[str], told: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.argv", ["command", *arguments])
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_choice_of_no_fault_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mutants", "--list", "no such fault"])
    assert mutants.main() == 2
    assert "no fault's file or description holds no such fault" in capsys.readouterr().err
