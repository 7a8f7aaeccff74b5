"""What the gate looks at: which metrics, which direction is worse, and which changes are too small to matter."""

from __future__ import annotations

from collections.abc import Mapping

from driftsim.errors import InputError
from driftsim.glossary import FAIRNESS, SLO, SLO_METRICS, SUMMARY
from driftsim.metrics import LATENCIES, PERCENTILES
from driftsim.trace.schema import LENGTH

BETTER = {metric.name: metric.better for metric in (*SUMMARY, *SLO, *FAIRNESS) if metric.better}
GATED = (
    *(f"{name}_{stat}_s" for name in LATENCIES for stat in ("mean", *PERCENTILES)),
    "mae",
    "rmse",
    "kendall_tau",
    "finished",
    *SLO_METRICS,  # where there are SLOs
    *(metric.name for metric in FAIRNESS),  # where it was asked for
)
HEADLINES = ("e2e_mean_s", "e2e_p99_s", "ttft_mean_s", "tpot_mean_s")
UNITS = {metric.name: "tokens" if metric.unit == LENGTH else metric.unit for metric in (*SUMMARY, *SLO, *FAIRNESS)}
FLOORS = {"s": 0.001, "tokens": 1.0}  # by unit: a smaller change is none, whatever it is in percent


def floor_of(metric: str, floors: Mapping[str, float]) -> float:
    """The smallest change of ``metric`` that counts, in its unit.

    ``floors`` are by metric or by unit, ``s`` or ``tokens``; the metric goes before its unit, and what neither names
    has its default.

    >>> [floor_of(name, {"s": 0.01, "mae": 2}) for name in ("e2e_mean_s", "mae", "rmse", "kendall_tau")]
    [0.01, 2, 1.0, 0.0]
    """
    unit = UNITS[metric]
    return floors.get(metric, floors.get(unit, FLOORS.get(unit, 0.0)))


def check_names(tolerances: Mapping[str, float], floors: Mapping[str, float], where: str) -> None:
    """Raise ``InputError`` for a tolerance of what is no metric, or a floor of what is neither metric nor unit.

    ``where`` begins the message: the file or the option that says so.
    """
    for name, known in (("tolerances", [*BETTER]), ("floors", [*FLOORS, *BETTER])):
        given = tolerances if name == "tolerances" else floors
        unknown = [metric for metric in given if metric not in known]
        if unknown:
            noun = "metric" if name == "tolerances" else "metric and no unit"
            raise InputError(f"{where}: {name}: {unknown[0]!r} is no {noun}; choose among {', '.join(known)}")
        wrong = [metric for metric, value in given.items() if not value >= 0]
        if wrong:
            raise InputError(f"{where}: {name}: {wrong[0]} must be at least 0, got {given[wrong[0]]!r}")


def with_unit(value: float, metric: str) -> str:
    """A value of ``metric`` to six digits, with its unit.

    >>> with_unit(1.5, "e2e_mean_s"), with_unit(0.25, "kendall_tau")
    ('1.5 s', '0.25')
    """
    return f"{value:.6g} {UNITS[metric]}".rstrip()
