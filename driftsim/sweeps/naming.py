"""Names tell traces and profiles apart: in a row stands the path, a reader sees the shortest end of it that is unique.

What a name stands for is a digest. So two files of one name, and two contents that one file had, get two names.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import PurePath

import pandas as pd

OWN = "own"  # in place of a path: a profile that was fitted to the run's own trace
SHORT = 8  # digits of a digest that stand for a name


def shortest(paths: Collection[str]) -> dict[str, str]:
    """For each of ``paths`` the shortest end, in whole folders, that none of the others has; the path itself at most.

    >>> shortest(["runs/a/trace", "runs/b/trace", "other"])
    {'runs/a/trace': 'a/trace', 'runs/b/trace': 'b/trace', 'other': 'other'}
    """
    parts = {path: PurePath(os.path.normpath(path)).parts for path in paths}
    most = max(map(len, parts.values()), default=0)
    found: dict[str, str] = {}
    for length in range(1, most + 1):
        left = {path: str(PurePath(*own[-length:])) for path, own in parts.items() if path not in found}
        count = Counter(str(PurePath(*own[-length:])) for own in set(parts.values()))
        found |= {path: end for path, end in left.items() if count[end] == 1 or length >= len(parts[path])}
    return {path: found.get(path, path) for path in paths}  # an empty one has no end


def with_names(table: pd.DataFrame) -> pd.DataFrame:
    """``table``, rows of a store, with the names of its traces and profiles in place of their paths.

    A row that an older driftsim wrote without a path has the beginning of the digest instead.
    """
    changed = {}
    places = [name for name in map(str, table) if name.startswith("workload.") and name.endswith(".trace")]
    if "trace_digest" in table:
        paths = table["trace"] if "trace" in table else pd.Series(None, table.index, dtype=object)
        names = _trace_names(table, paths.astype(object).where(paths.notna(), None), places)
        if "trace" in table or names.notna().any():
            changed["trace"] = names
    for place in places:
        ends = shortest([path for path in table[place].dropna().unique() if isinstance(path, str)])
        changed[place] = table[place].map(lambda path, ends=ends: ends.get(path, path), na_action="ignore")
    if {"trace_digest", "profile_digest"} <= set(table):
        changed["profile"] = _profile_names(table)
    return table.assign(**changed)


def _trace_names(table: pd.DataFrame, paths: pd.Series, places: list[str]) -> pd.Series:
    """The name of the trace in each row; none where the workload was drawn, if its keys tell which."""
    digests = table["trace_digest"]
    named = _names(digests, paths)
    keys = [name for name in map(str, table) if name.startswith("workload.")]
    drawn = table[keys].notna().any(axis=1) if keys else pd.Series(False, table.index)
    told = len(table.loc[drawn, keys].drop_duplicates())
    if digests[drawn].nunique() > told:  # of an older driftsim, or a recorded run that was changed in its place
        drawn = pd.Series(False, table.index)
    return _named(digests, named).where(~drawn, None)


def _profile_names(table: pd.DataFrame) -> pd.Series:
    """The name of the profile in each row; one that was fitted to the row's own trace has one name on every trace."""
    paths = table["profile"] if "profile" in table else pd.Series(None, table.index, dtype=object)
    paths = paths.astype(object).where(paths.notna(), None)
    digests = table["profile_digest"]
    own = dict.fromkeys(digests[paths == OWN].dropna().unique(), OWN)
    fits = table.loc[paths == OWN, ["trace_digest", "profile_digest"]].drop_duplicates()
    twice = fits["profile_digest"][fits["trace_digest"].duplicated(keep=False)]
    own |= {digest: f"{OWN} ({str(digest)[:SHORT]})" for digest in twice}
    files = _names(digests, paths.where(paths != OWN, None))
    files = {digest: f"./{name}" if name == OWN else name for digest, name in files.items()}
    return _named(digests, own | files)


def _named(digests: pd.Series, named: Mapping[str, str]) -> pd.Series:
    """The name of each of ``digests``; one that has none stands for itself, by its beginning."""
    short = {one: one[:SHORT] for one in digests.dropna().unique() if isinstance(one, str)}
    return digests.astype(object).map(short | dict(named)).astype(object)


def _names(digests: pd.Series, paths: pd.Series) -> Mapping[str, str]:
    """A name for each digest that has a path, no two alike."""
    pairs = pd.DataFrame({"digest": digests, "path": paths}).dropna().drop_duplicates()
    plainest = pairs.assign(size=pairs["path"].str.len()).sort_values(["size", "path"]).drop_duplicates("digest")
    of = {str(digest): str(path) for digest, path in zip(plainest["digest"], plainest["path"], strict=True)}
    ends = shortest(sorted(set(of.values())))
    count = Counter(ends[path] for path in of.values())
    return {
        digest: ends[path] if count[ends[path]] == 1 else f"{ends[path]} ({digest[:SHORT]})"
        for digest, path in of.items()
    }
