"""Runs that are asked for in rounds: those of a sweep, kept in a store, on local processes or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from driftsim.errors import RunError
from driftsim.latency.profile import Profile
from driftsim.pressing.loads import LoadAxis, axis_of
from driftsim.progress import OnProgress
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sweeps.columns import plain_rows
from driftsim.sweeps.recorder import Progress
from driftsim.sweeps.runner import sweep
from driftsim.sweeps.store import Store
from driftsim.sweeps.tasks import Inputs, plan, spec_key
from driftsim.trace.trace import Trace


class KeptStore(Store):
    """A store of whose rows stays at hand what ``needed`` says of a column's name, by key."""

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        self.needed: Callable[[str], bool] = bool
        self.rows: dict[str, dict[str, Any]] = {}

    @classmethod
    def keeping(cls, folder: Path, needed: Callable[[str], bool]) -> Self:
        """The store in ``folder``, made if there is none, with its rows at hand."""
        opened = cls.open(folder, create=True)
        opened.needed = needed
        opened.adopt()
        opened.look()
        return opened

    def look(self) -> None:
        """Take in the rows that are there."""
        rows = plain_rows(self.stored(choose=lambda columns: set(filter(self.needed, columns))))
        self.rows |= {row["key"]: row for row in rows}

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add ``rows``, as a store does."""
        kept = list(rows)
        super().append(kept)
        self.rows |= {row["key"]: {name: row[name] for name in filter(self.needed, row)} for row in kept}


def axis_among(spec: ScenarioSpec, inputs: Inputs) -> LoadAxis:
    """The load axis of ``spec``, whose trace is among ``inputs``. Raises ``InputError`` where there is none."""
    if spec.trace is None:
        return axis_of(spec, None, None)
    digest = inputs.digests[spec.trace]
    return axis_of(spec, inputs.traces[digest], inputs.rates.get(digest))


@dataclass(eq=False)
class Runs:
    """Runs what is asked for, as a sweep does; ``expected`` is how many runs are told of at least."""

    inputs: Inputs
    store: KeptStore
    jobs: int
    address: str | None
    told: OnProgress
    expected: int
    done: int = 0

    def rows(self, specs: Sequence[ScenarioSpec]) -> list[dict[str, Any]]:
        """The rows of ``specs``, in their order. Raises ``RunError`` where a run fails."""
        tasks, _ = plan(specs, inputs=self.inputs)

        def watch(state: Progress) -> None:
            self.told(self.done + state.done, max(self.expected, self.done + state.total))

        sweep(tasks, self.inputs, self.store, jobs=self.jobs, address=self.address, retry=True, watch=watch)
        self.done += len(tasks)
        if any(task.key not in self.store.rows for task in tasks):
            self.store.look()  # another driver did some
        for task in tasks:
            if (row := self.store.rows[task.key])["failed"]:
                raise RunError(f"a run failed: {row['error']}")
        return [self.store.rows[spec_key(spec, self.inputs)] for spec in specs]

    def profile(self, spec: ScenarioSpec) -> Profile:
        """The profile of ``spec``."""
        return self.inputs.profiles[self.inputs.fits[spec.trace, spec.profile]]

    def recorded(self, path: str) -> Trace:
        """The recorded run that ``path`` stands for."""
        return self.inputs.traces[self.inputs.digests[path]]
