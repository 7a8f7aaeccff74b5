"""A league table: every policy with every estimator, on a fixed set of workloads, ranked with intervals and ties."""

from experiments.league.season import BOUND, ESTIMATORS, FIELD, league
from experiments.league.table import Table
from experiments.league.workloads import FIXTURES, LOADS, VERSION, Fixture

__all__ = ["BOUND", "ESTIMATORS", "FIELD", "FIXTURES", "LOADS", "VERSION", "Fixture", "Table", "league"]
