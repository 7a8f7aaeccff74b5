"""What files tell of shared beginnings and of sessions, held against token sequences that are known."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftsim.errors import InputError
from driftsim.formats.blocks import Blocks
from driftsim.formats.imports import import_trace
from driftsim.formats.mapping import Mapping
from driftsim.trace.prefixes import stretches
from driftsim.trace.trace import Trace, read
from tests import format_files as files
from tests.commands import driftsim
from tests.format_files import brought, said


@dataclass
class Chat:
    """A request of which every token is known."""

    at: float
    prompt: list[int]
    output: list[int]
    before: Chat | None = None
    row: int = -1  # in order of arrival

    @property
    def whole(self) -> list[int]:
        return self.prompt + self.output


@dataclass
class Chats:
    """Requests in sessions: system prompts, and turns that repeat all before them.

    With ``forks``, a turn may follow any request and leave its answer out, and a prompt may be asked twice.
    """

    seed: int
    size: int
    forks: bool = True
    names: dict[tuple[int, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.fresh = iter(range(10**9))

    def text(self, most: int) -> list[int]:
        return [next(self.fresh) for _ in range(self.dice.randint(1, most))]

    def made(self, count: int) -> list[Chat]:
        """By arrival; a turn comes long after the one before it."""
        size, dice = self.size, self.dice
        systems = [self.text(3 * size) for _ in range(3)]
        found: list[Chat] = []
        latest: list[Chat] = []
        while len(found) < count:
            kind, before = dice.random(), dice.choice(latest) if latest else None
            at = 1000.0 * len(found)
            if before is None or kind < 0.3:
                prompt = [*(dice.choice(systems) if dice.random() < 0.7 else []), *self.text(4 * size)]
                latest.append(Chat(at, prompt, self.text(3 * size)))
            elif kind < 0.85 or not self.forks:
                kept, more = before.whole, self.text(size)
                if kind > 0.75 and self.forks and len(more) < len(before.output):
                    kept = before.prompt
                latest.append(Chat(at, [*kept, *more], self.text(3 * size), before))
            else:
                latest.append(Chat(at, list(before.prompt), self.text(2 * size), before.before))
            found.append(latest[-1])
            if not self.forks and found[-1].before is not None:
                latest.remove(found[-1].before)
            found[-1].row = len(found) - 1
        return found

    def ids(self, prompt: list[int]) -> list[int]:
        """The hash of each block, the last part of one included: a number for each beginning that it ends."""
        found = list[int]()
        for begin in range(0, len(prompt), self.size):
            key = (found[-1] if found else -1, *prompt[begin : begin + self.size])
            found.append(self.names.setdefault(key, 7 + 3 * len(self.names)))
        return found


def common(one: list[int], other: list[int]) -> int:
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


def shared_by(trace: Trace) -> dict[tuple[int, int], int]:
    """How many tokens any two requests share, as the trace tells it."""
    rows = trace.requests
    parts = stretches(rows["prefix_row"].fillna(-1).tolist(), rows["prefix_tokens"].fillna(0).tolist())
    found = {}
    for later in range(len(parts)):
        for earlier in range(later):
            tokens = 0
            for one, other in zip(parts[later], parts[earlier], strict=False):
                if one[0] != other[0]:
                    break
                tokens = min(one[1], other[1])
                if one[1] != other[1]:
                    break
            found[earlier, later] = tokens
    return found


def bailian(chats: Chats, made: list[Chat]) -> list[dict[str, Any]]:
    return [
        {"chat_id": 500 + chat.row, "parent_chat_id": -1 if chat.before is None else 500 + chat.before.row,
         "timestamp": chat.at, "input_length": len(chat.prompt), "output_length": len(chat.output), "type": "text",
         "turn": 1, "hash_ids": chats.ids(chat.prompt)}
        for chat in made
    ]  # fmt: skip


def mooncake(chats: Chats, made: list[Chat]) -> list[dict[str, Any]]:
    return [
        {"timestamp": 1000 * chat.at, "input_length": len(chat.prompt), "output_length": len(chat.output),
         "hash_ids": chats.ids(chat.prompt)}
        for chat in made
    ]  # fmt: skip


def imported(folder: Path, rows: list[Any], form: str | None = None, **choices: Any) -> Trace:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_trace(file, form, **choices)


@pytest.mark.parametrize("seed", range(6))
def test_what_two_prompts_share_is_what_their_tokens_share_in_full_blocks(seed: int, tmp_path: Path) -> None:
    chats = Chats(seed, 16)
    made = chats.made(60)
    rows = bailian(chats, made)
    random.Random(seed).shuffle(rows)
    rows[5:5] = [{"chat_id": 1, "timestamp": "soon"}, {**rows[3], "input_length": -1}]  # which cost themselves
    trace = imported(tmp_path, rows)
    assert trace.requests["request_id"].tolist() == [str(500 + chat.row) for chat in made]
    trace.write(tmp_path / "t")
    assert read(tmp_path / "t").requests["parent"].map(list).tolist() == [
        [] if chat.before is None else [chat.before.row] for chat in made
    ]
    for (earlier, later), tokens in shared_by(trace).items():
        one, other = made[earlier], made[later]
        known = min(len(one.prompt), len(other.prompt))
        wanted = common(one.prompt, other.prompt) // 16 * 16
        assert min(tokens, known // 16 * 16) == wanted, (earlier, later)
        if other.before is one:
            assert tokens == common(one.whole, other.whole) // 16 * 16, (earlier, later)
        assert tokens <= common(one.whole, other.whole), (earlier, later)


def test_turns_without_a_link_are_found_by_what_they_repeat(tmp_path: Path) -> None:
    """Most of them, and hardly another; of the prompts alone, all."""
    guessed = right = known = 0
    for seed in range(8):
        chats = Chats(seed, 512, forks=False)
        made = chats.made(40)
        for (earlier, later), tokens in shared_by(imported(tmp_path, mooncake(chats, made), "mooncake")).items():
            one, other = made[earlier], made[later]
            prompts = common(one.prompt, other.prompt) // 512 * 512
            assert tokens >= prompts
            guessed += tokens > prompts
            wanted = common(one.whole, other.prompt) // 512 * 512
            known += wanted > prompts
            right += tokens == wanted > prompts
    assert right > 0.98 * guessed
    assert right > 0.8 * known > 100


@pytest.mark.parametrize(
    ("second", "third", "tokens"),
    [
        ((600, [9, 10]), (1800, [1, 2, 4, 5]), 1536),  # a turn after somebody else's
        ((600, [9, 10]), (1500, [1, 2, 4]), 1024),  # shorter than the prompt and its answer: another question
        ((1100, [1, 2, 3]), (1800, [1, 2, 4, 5]), 1024),  # the prompt came twice: nobody knows whose answer it is
        ((1100, [1, 2, 8]), (1800, [1, 2, 4, 5]), 1536),  # another question stands in nobody's way
    ],
)
def test_an_answer_is_taken_for_repeated_where_nothing_else_would_do(
    second: tuple[int, list[int]], third: tuple[int, list[int]], tokens: int, tmp_path: Path
) -> None:
    asked = [(1100, [1, 2, 3]), second, third]
    rows = [{"timestamp": 5000 * at, "input_length": length, "output_length": 500, "hash_ids": ids}
            for at, (length, ids) in enumerate(asked)]  # fmt: skip
    trace = imported(tmp_path, rows, "mooncake")
    assert trace.requests["prefix_tokens"].fillna(0).tolist()[2] == tokens
    assert ("1 requests are taken for turns that repeat an earlier prompt and its answer" in said(trace)) == (
        tokens > 1024
    )


def test_a_turn_that_fills_no_further_block_is_followed_in_its_place(tmp_path: Path) -> None:
    """Its prompt ends in the block in which the prompt and the answer before it end."""
    asked = [(1100, 10, [1, 2, 3]), (1120, 500, [1, 2, 4]), (1700, 5, [1, 2, 5, 6])]
    rows = [{"timestamp": 5000 * at, "input_length": prompt, "output_length": output, "hash_ids": ids}
            for at, (prompt, output, ids) in enumerate(asked)]  # fmt: skip
    trace = imported(tmp_path, rows, "mooncake")
    assert trace.requests["prefix_row"].fillna(-1).tolist() == [-1, 0, 1]
    assert trace.requests["prefix_tokens"].fillna(0).tolist() == [0, 1024, 1536]


def test_a_group_shares_no_more_than_its_shortest_prompts(tmp_path: Path) -> None:
    rows = [row | {"prefix_group": "ab"[place % 2], "prefix_length": 20 * place, "server_input_tokens": 60}
            for place, row in enumerate(files.blis())]  # fmt: skip
    trace = brought(tmp_path, "blis", rows)
    assert trace.requests["prefix_row"].fillna(-1).tolist() == [-1, -1, -1, 1, 2, 3]
    assert trace.requests["prefix_tokens"].fillna(0).tolist() == [0, 0, 0, 20, 40, 60]


def rows_of_turns(**columns: Any) -> list[dict[str, Any]]:
    """Requests that arrive every 10 s and take 2."""
    count = len(next(iter(columns.values())))
    return [
        {"at": 10.0 * row, "in": 40, "out": 8, "took": 2.0, **{name: cells[row] for name, cells in columns.items()}}
        for row in range(count)
    ]


MAPPED = {"arrival_s": "at", "prompt_tokens": "in", "output_tokens": "out"}


def turns_of(folder: Path, rows: list[dict[str, Any]], *names: str, ends: bool = True, **more: Any) -> Trace:
    mapping = Mapping(
        columns={**MAPPED, **{name: name for name in names}}, durations={"finish_s": "took"} if ends else {}, **more
    )
    return imported(folder, rows, mapping=mapping)


def parents(trace: Trace) -> list[list[int]]:
    return [list(one) for one in trace.requests["parent"]]


def test_a_turn_waits_for_the_end_of_the_one_before_it_in_its_session(tmp_path: Path) -> None:
    trace = turns_of(tmp_path, rows_of_turns(session=["a", "b", "a", None, "a"]), "session")
    assert parents(trace) == [[], [], [0], [], [2]]
    assert trace.requests["session"].tolist() == ["a", "b", "a", None, "a"]
    np.testing.assert_allclose(trace.requests["gap_s"], [np.nan, np.nan, 18, np.nan, 18])
    assert "2 of 5 requests are later turns of a session" in said(trace)
    assert trace.header.workload.phases[0].kind == "open"


def test_without_ends_a_gap_is_the_time_between_arrivals_and_that_is_said(tmp_path: Path) -> None:
    trace = turns_of(tmp_path, rows_of_turns(session=["a", "b", "a"]), "session", ends=False)
    np.testing.assert_allclose(trace.requests["gap_s"], [np.nan, np.nan, 20])
    assert "the end before 1 of 1 later turns is not told: gap_s counts from the arrival before" in said(trace)


def test_parents_are_ids_or_rows_and_sessions_fork_and_join(tmp_path: Path) -> None:
    named = rows_of_turns(request_id=["x", "y", "z", "w"], parent=[None, "x", ["x"], ["y", "z"]])
    by_row = rows_of_turns(parent=[-1, 0, "[0]", [1, 2]])
    for rows, names in ((named, ("request_id", "parent")), (by_row, ("parent",))):
        trace = turns_of(tmp_path, rows, *names)
        assert parents(trace) == [[], [0], [0], [1, 2]]
        assert len(set(trace.requests["session"])) == 1
        np.testing.assert_allclose(trace.requests["gap_s"], [np.nan, 8, 18, 8])


def test_rows_of_the_file_are_rows_of_the_trace_after_sorting_and_refusing(tmp_path: Path) -> None:
    rows = rows_of_turns(parent=[-1, 0, 1, 2, 1])
    rows[1]["at"] = "soon"  # refused: those that follow it have no parent
    rows[3]["at"], rows[4]["at"] = 45.0, 25.0
    rows[4]["parent"] = 2
    trace = turns_of(tmp_path, rows, "parent")
    assert trace.requests["arrival_s"].tolist() == [0.0, 20.0, 25.0, 45.0]
    assert parents(trace) == [[], [], [1], [1]]
    assert "1 later turns name a parent that is not in the file: they count as first turns" in said(trace)


def test_circles_later_parents_and_overlaps_wait_for_nobody(tmp_path: Path) -> None:
    rows = rows_of_turns(parent=[2, 1, 0, 2], gap_s=[None, None, 7.5, 0])
    rows[2]["took"] = 30.0  # ends long after the next one was sent
    trace = turns_of(tmp_path, rows, "parent", "gap_s")
    assert parents(trace) == [[], [], [0], []]
    assert trace.requests["gap_s"].tolist()[2] == 7.5
    assert "2 later turns do not come after the request that they name as their parent" in said(trace)
    assert "1 later turns were sent before the turn before them had ended" in said(trace)


def test_a_parent_by_its_row_is_that_of_the_file_whatever_could_not_be_read(tmp_path: Path) -> None:
    rows = rows_of_turns(parent=[None, None, 0, 2, 3])
    columns = {**MAPPED, "parent": "parent"}
    lines = [json.dumps(row) for row in rows]
    lines[1] = "no JSON at all"
    (tmp_path / "l.jsonl").write_text("\n".join(["", lines[0], "", *lines[1:]]))
    (tmp_path / "d.json").write_text(json.dumps([rows[0], 7, *rows[2:]]))
    cells = [[str(row[name] if row[name] is not None else "") for name in rows[0]] for row in rows]
    table = [",".join(line) for line in ([*rows[0]], *cells)]
    table[2] += ",,,"
    (tmp_path / "t.csv").write_text("\n".join(table))
    for name in ("l.jsonl", "d.json", "t.csv"):
        trace = import_trace(tmp_path / name, mapping=Mapping(columns=columns))
        assert trace.requests["arrival_s"].tolist() == [0.0, 20.0, 30.0, 40.0]
        assert parents(trace) == [[], [0], [1], [2]], name


@pytest.mark.parametrize(
    ("ids", "named", "wanted"),
    [
        (["1", "2", "3"], ["", "1.0", "2.0"], [[], [0], [1]]),  # pandas, where a number is missing
        (["1.0", "2.0", "3.0"], [None, "1", 2], [[], [0], [1]]),
        (["1.0", "1", "3"], ["-1.0", "", "1"], [[], [], [1]]),  # as it is written comes first
        (["01", "1", "3"], ["nan", "N/A", "01"], [[], [], [0]]),
        (["-1", "none", "c"], ["", -1, "none"], [[], [0], [1]]),  # requests that are called so
        (["a", "b", "c"], ["none", "-", "null"], [[], [], []]),
    ],
)
def test_names_of_parents_are_those_of_requests(
    ids: list[Any], named: list[Any], wanted: list[list[int]], tmp_path: Path
) -> None:
    trace = turns_of(tmp_path, rows_of_turns(request_id=ids, parent=named), "request_id", "parent")
    assert (parents(trace) if "parent" in trace.requests else [[], [], []]) == wanted
    assert "not in the file" not in said(trace)


def test_requests_of_one_moment_come_in_the_order_in_which_they_follow_each_other(tmp_path: Path) -> None:
    names = ["c", "b", "x", "a", "y"]
    rows = rows_of_turns(request_id=names, parent=["b", "a", "y", None, "x"])
    for row in rows:
        row["at"] = 7.0
    trace = turns_of(tmp_path, rows, "request_id", "parent", ends=False)
    assert trace.requests["request_id"].tolist() == ["a", "b", "c", "x", "y"]
    assert parents(trace) == [[], [0], [1], [], [3]]  # x and y wait for each other: one comes first
    assert "1 later turns do not come after" in said(trace)
    rows = [row | {"session_id": "s", "round_index": 3 - place, "arrival_time_us": 10**6, "send_time_us": 0,
                   "first_chunk_time_us": 0, "last_chunk_time_us": 0}
            for place, row in enumerate(files.blis()[:4])]  # fmt: skip
    assert parents(brought(tmp_path, "blis", rows)) == [[], [0], [1], [2]]


def test_a_turn_that_comes_before_the_first_of_its_session_begins_no_other(tmp_path: Path) -> None:
    rows = [row | {"session_id": "s", "round_index": turn, "arrival_time_us": 10**7 * (1 + place), "send_time_us": 0,
                   "first_chunk_time_us": 0, "last_chunk_time_us": 0}
            for place, (turn, row) in enumerate(zip([1, 0, 2, 0, 1], files.blis(), strict=False))]  # fmt: skip
    trace = brought(tmp_path, "blis", rows)
    assert parents(trace) == [[], [], [0], [], [3]]
    assert trace.requests["session"].tolist() == ["s", "s", "s", "s#2", "s#2"]
    assert "1 later turns do not come after" in said(trace)
    assert "not in the file" not in said(trace)


def turn_rows(*turns: tuple[float, float]) -> list[dict[str, Any]]:
    """Requests of one session, by arrival and by how long each takes (s)."""
    return [{"at": at, "in": 40, "out": 8, "took": took, "session": "s"} for at, took in turns]


@pytest.mark.parametrize(("early", "waits"), [(0.0, True), (0.04, True), (0.06, False)])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_turn_may_come_before_the_end_it_waits_for_by_as_much_as_clocks_disagree(
    early: float, waits: bool, by_name: bool, tmp_path: Path
) -> None:
    rows = turn_rows((0.0, 10.0), (10.0 - early, 1.0))
    if by_name:
        rows = [row | {"parent": parent} for row, parent in zip(rows, (None, 0), strict=True)]
    trace = turns_of(tmp_path, rows, "session", *(["parent"] if by_name else []))
    assert ("parent" in trace.requests) == waits
    if waits:
        assert parents(trace) == [[], [0]]
        assert trace.requests["gap_s"].tolist()[1] == 0.0


def test_without_numbers_a_turn_follows_the_latest_that_is_over_however_many_are_not(tmp_path: Path) -> None:
    over, running = (0.0, 1.0), [(2.0 + at, 1000.0) for at in range(60)]
    trace = turns_of(tmp_path, turn_rows(over, (1.5, 0.2), *running, (500.0, 1.0), (600.0, 1.0)), "session")
    assert parents(trace) == [[], [0], *[[1]] * 61, [62]]
    almost = turns_of(tmp_path, turn_rows((0.0, 5.0), (1.0, 4.04), (5.0, 1.0)), "session")  # by both clocks
    assert parents(almost) == [[], [], [1]]


def test_a_session_whose_name_is_used_again_follows_none_of_the_first(tmp_path: Path) -> None:
    rows = [row | {"session_id": "s", "round_index": turn, "arrival_time_us": 10**7 * (1 + place), "send_time_us": 0,
                   "first_chunk_time_us": 0, "last_chunk_time_us": 0}
            for place, (turn, row) in enumerate(zip([0, 2, 0, 3], files.blis(), strict=False))]  # fmt: skip
    trace = brought(tmp_path, "blis", rows)
    assert parents(trace) == [[], [0], [], [2]]
    assert trace.requests["session"].tolist() == ["s", "s", "s#2", "s#2"]


def test_gaps_and_names_that_nobody_waits_by_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gap_s says nothing without session or parent"):
        turns_of(tmp_path, rows_of_turns(gap_s=[1, 2]), "gap_s")
    trace = turns_of(tmp_path, rows_of_turns(session=["a", "a", "b"], gap_s=[3, 1, 0]), "session", "gap_s")
    assert "1 requests have a gap_s and wait for nobody: it is left out" in said(trace)
    trace = turns_of(tmp_path, rows_of_turns(session=["a", "b", None]), "session")
    assert "session" not in trace.requests
    assert "the names of 2 sessions are left out" in " ".join(trace.header.notes)
    trace = turns_of(tmp_path, rows_of_turns(parent=[0, 1]), "parent")
    assert "are left out" not in " ".join(trace.header.notes)  # nobody named any


def test_lists_are_read_as_python_writes_them_into_a_table(tmp_path: Path) -> None:
    ids = ["['a', 'b', 'c']", "['a', 'b', 'd']", "[1, 'b']", "['it\"s', 'b']"]
    trace = turns_of(tmp_path, rows_of_turns(hash_ids=ids), "hash_ids", hash_tokens=16)
    assert trace.requests["prefix_tokens"].fillna(0).tolist() == [0, 32, 0]
    assert "1 of 4 rows could not be read" in said(trace)


def test_ids_of_blocks_are_numbers_only_as_numbers_are_written(tmp_path: Path) -> None:
    ids = [["0012", 1], ["12", 1], [12, 1], ["٣", 1], ["3", 1], ["-0", 1], ["0", 1]]
    trace = turns_of(tmp_path, rows_of_turns(hash_ids=ids), "hash_ids", hash_tokens=16)
    assert trace.requests["prefix_row"].fillna(-1).tolist() == [-1, -1, 1, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("column", "cell", "what"),
    [
        ("parent", [[1]], "parent is [[1]], which names no requests"),
        ("parent", {"a": 1}, "parent is {'a': 1}, which names no requests"),
        ("parent", "[0, ", "parent is '[0, ', not a list of requests"),
        ("parent", True, "parent is True, which names no requests"),
        ("gap_s", -3, "gap_s is -3 s; a gap is from 0 to 1e+09 s"),
        ("gap_s", "soon", "gap_s is 'soon', not a time"),
        ("gap_s", 10**30, "gap_s is 1e+30 s; a gap is from 0"),
        ("cached_tokens", -1, "cached_tokens is -1, negative"),
        ("hash_ids", "x", "hash_ids is 'x', not a list of the ids of blocks"),
        ("hash_ids", [1, [2]], "hash_ids holds [2], which is no id of a block"),
        ("hash_ids", [1, None], "hash_ids holds None, which is no id of a block"),
        ("hash_ids", [1, float("inf")], "hash_ids holds inf, which is no id of a block"),
    ],
)
def test_a_relation_that_cannot_be_read_costs_its_row(column: str, cell: Any, what: str, tmp_path: Path) -> None:
    rows = rows_of_turns(parent=[None, 0, 0], gap_s=[1, 1, 1], cached_tokens=[0, 0, 0], hash_ids=[[1], [1], [1]])
    rows[1][column] = cell
    trace = turns_of(tmp_path, rows, "parent", "gap_s", "cached_tokens", "hash_ids", hash_tokens=16)
    assert len(trace.requests) == 2
    assert f"1 of 3 rows could not be read and were left out: line 2 (row 1): {what}" in said(trace)


def test_ids_of_blocks_may_be_texts_negative_huge_too_few_or_too_many(tmp_path: Path) -> None:
    ids = [[-1, "b", 10**30], '[-1, "b"]', [-1.0], [], None, [-1, "b", 10**30, 4, 5], ["-1"]]
    trace = turns_of(tmp_path, rows_of_turns(hash_ids=ids), "hash_ids", hash_tokens=16)
    assert trace.requests["prefix_row"].fillna(-1).tolist() == [-1, 0, 0, -1, -1, 0, 0]  # 40 tokens: two full blocks
    assert trace.requests["prefix_tokens"].fillna(0).tolist() == [0, 32, 16, 0, 0, 32, 16]
    assert trace.header.prefixes is not None
    assert trace.header.prefixes.block_size == 16
    assert "3 of 5 prompts have more or fewer hash_ids than blocks of 16 tokens: a block without an id is shared" in (
        said(trace)
    )


def test_what_the_engine_found_is_kept_and_tells_that_it_caches(tmp_path: Path) -> None:
    trace = turns_of(tmp_path, rows_of_turns(cached_tokens=[0, "32", 41, None]), "cached_tokens")
    assert trace.requests["cached_tokens"].fillna(-1).tolist() == [0, 32, -1, -1]
    assert "1 of 4 rows found more cached_tokens than their prompt has, which are left empty (line 3 (row 2))" in said(
        trace
    )
    assert trace.header.engine.enable_prefix_caching
    assert "enable_prefix_caching" not in trace.header.engine.assumed
    untold = turns_of(tmp_path, rows_of_turns(cached_tokens=[None, None]), "cached_tokens")
    assert "cached_tokens" not in untold.requests
    unread = turns_of(tmp_path, rows_of_turns(cached_tokens=[0, 32]))
    assert "it tells of shared prefixes (cached_tokens), which are not read" in said(unread)


# -- sessions and caches of other tools


def test_guidellm_tells_conversations_and_what_was_cached(tmp_path: Path) -> None:
    turns = [(0, "c"), (1, "c"), (0, "d"), (2, "c"), (0, None)]
    requests = [
        files.guidellm_request(number, 1000.0 + 5 * number, cached_tokens=16 * number)
        for number, _ in enumerate(turns)
    ]  # fmt: skip
    for request, (turn, name) in zip(requests, turns, strict=True):
        request["info"] |= {"conversation_id": name, "turn_index": turn}
    trace = brought(tmp_path, "guidellm", files.guidellm(successful=requests, errored=[], incomplete=[]))
    assert parents(trace) == [[], [0], [], [1], []]
    assert trace.requests["session"].tolist() == ["c", "c", "d", "c", None]
    np.testing.assert_allclose(trace.requests["gap_s"], [np.nan, 4.4, np.nan, 9.4, np.nan], atol=1e-6)
    assert trace.requests["cached_tokens"].tolist() == [0, 16, 32, 48, 64]


def test_aiperf_tells_the_instances_of_a_conversation_apart(tmp_path: Path) -> None:
    rows = files.aiperf()[1:6]
    for row, turn in zip(rows, (0, 1, 0, 2, 3), strict=True):
        start = row["metadata"]["request_start_ns"] + 10_000_000_000 * rows.index(row)
        row["metadata"] |= {
            "conversation_id": "c",
            "turn_index": turn,
            "request_start_ns": start,
            "request_end_ns": start,
        }
        row["metrics"]["usage_prompt_cache_read_tokens"] = {"value": 60 * turn, "unit": "tokens"}
    trace = brought(tmp_path, "aiperf", rows)
    assert parents(trace) == [[], [0], [], [2], [3]]
    assert trace.requests["session"].tolist() == ["c", "c", "c#2", "c#2", "c#2"]
    assert trace.requests["cached_tokens"].tolist() == [0, 60, 0, 120, 180]
    for row, name in zip(rows, "xxyyy", strict=True):
        row["metadata"]["x_correlation_id"] = name
    assert brought(tmp_path, "aiperf", rows).requests["session"].tolist() == ["x", "x", "y", "y", "y"]


def test_inference_perf_tells_what_was_cached(tmp_path: Path) -> None:
    rows = files.inference_perf()
    rows[1]["info"]["response_metrics"]["server_usage"]["prompt_tokens_details"] = {"cached_tokens": 16}
    trace = brought(tmp_path, "inference_perf", rows)
    assert trace.requests["cached_tokens"].fillna(-1).tolist() == [-1, 16, -1, -1, -1, -1]


def test_rounds_of_blis_follow_each_other_and_those_that_lack_are_told(tmp_path: Path) -> None:
    rows = [row | {"arrival_time_us": 10**6 * place, "send_time_us": 0, "first_chunk_time_us": 10**6 * place + 1000,
                   "last_chunk_time_us": 10**6 * place + 2000} for place, row in enumerate(files.blis())]  # fmt: skip
    for row, (name, turn) in zip(rows, [("a", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 2), ("", 0)], strict=True):
        row |= {"session_id": name, "round_index": turn}
    trace = brought(tmp_path, "blis", rows)
    assert parents(trace) == [[], [0], [], [1], [1], []]
    assert "4 of 6 requests are later turns of a session" in said(trace)
    assert "1 later turns name a parent that is not in the file" in said(trace)


def test_sessions_of_burstgpt_go_on_after_who_had_ended(tmp_path: Path) -> None:
    rows = [row | {"Session ID": 7, "Elapsed time": 50} for row in files.burstgpt()[:4]]  # at 5, 45, 118, 185 s
    trace = brought(tmp_path, "burstgpt", rows)
    assert parents(trace) == [[], [], [1], [2]]
    np.testing.assert_allclose(trace.requests["gap_s"], [np.nan, np.nan, 23, 17])
    assert "3 of 4 requests are later turns" in said(trace)
    assert "1 later turns were sent before the turn before them had ended" in said(trace)


def test_a_hash_of_another_length_is_told_by_the_numbers_and_one_of_none_is_said(tmp_path: Path) -> None:
    chats = Chats(3, 64)
    trace = imported(tmp_path, mooncake(chats, chats.made(20)), "timed-trace", unit="ms")
    assert trace.header.prefixes is not None
    assert trace.header.prefixes.block_size == 64
    rows = [{"timestamp": at, "input_length": 50 + 7 * at**2, "output_length": 5, "hash_ids": [1]} for at in range(9)]
    trace = imported(tmp_path, rows)
    assert "it tells of shared prefixes (hash_ids), which are not read" in said(trace)
    assert trace.header.prefixes is None


WRITERS = {"bailian": bailian, "mooncake": mooncake, "timed-trace": mooncake}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    ("size", "last"), [(16, True), (40, True), (128, True), (512, True), (16, False), (128, False)]
)
def test_hashes_of_any_length_are_read_as_what_they_are(form: str, size: int, last: bool, tmp_path: Path) -> None:
    """With an id for the last part of a block or without; what is not the format's is derived, and said."""
    chats = Chats(2, size)
    made = chats.made(60)
    rows = WRITERS[form](chats, made)
    for row in rows:
        row["hash_ids"] = row["hash_ids"] if last else row["hash_ids"][: max(1, row["input_length"] // size)]
    trace = imported(tmp_path, rows, form, unit="ms")
    assert trace.header.prefixes is not None
    assert trace.header.prefixes.block_size == size
    expected = {"bailian": [16], "mooncake": [512], "timed-trace": [512, 16]}[form]
    assert (f"its hash_ids count as {size} tokens each, not" in said(trace)) == (size not in expected)
    for (earlier, later), tokens in shared_by(trace).items():
        assert tokens >= common(made[earlier].prompt, made[later].prompt) // size * size
        assert tokens <= common(made[earlier].whole, made[later].whole)


NARROW = [{"timestamp": 5000 * at, "input_length": 130 + 10 * at, "output_length": 5, "hash_ids": [1, 100 + at]}
          for at in range(6)]  # fmt: skip


@pytest.mark.parametrize(("form", "size"), [("mooncake", 512), ("bailian", 16)])
def test_hashes_that_may_be_of_several_lengths_are_refused_until_one_is_said(
    form: str, size: int, tmp_path: Path
) -> None:
    rows = [{"chat_id": at, "parent_chat_id": -1, **row} for at, row in enumerate(NARROW)]
    what = (
        f"hash_ids are not of {size} tokens each, as .*'s are: 0 of 6 prompts fit; they may be of {{}} tokens each. Say"
    )
    with pytest.raises(InputError, match=what.format("64 or 128")):
        imported(tmp_path, rows, form)
    for at, row in enumerate(rows):  # of 100 tokens each, or nearly
        row |= {"input_length": 400 + 90 * at, "hash_ids": list(range(math.ceil((400 + 90 * at) / 100)))}
    with pytest.raises(InputError, match=what.format("100 to 106")):
        imported(tmp_path, rows, form)
    rows = [{"chat_id": at, "parent_chat_id": -1, **row} for at, row in enumerate(NARROW)]
    by_what_is_said = imported(tmp_path, rows, form, hash_tokens=128)
    assert by_what_is_said.requests["prefix_tokens"].fillna(0).tolist() == [0, *[128] * 5]
    assert "hash_ids" not in "".join(by_what_is_said.header.caveats)
    wrong = imported(tmp_path, rows, form, hash_tokens=16)
    assert (
        "6 of 6 prompts have more or fewer hash_ids than blocks of 16 tokens (ids of 64 or 128 tokens would fit)"
        in (said(wrong))
    )


def test_hashes_of_a_trace_of_anybody_are_left_unread_where_they_may_be_of_several_lengths(tmp_path: Path) -> None:
    trace = imported(tmp_path, NARROW)
    assert trace.header.prefixes is None
    assert "they may be of 64 or 128 tokens each" in said(trace)
    assert "which are not read" in said(trace)
    assert "--hash-tokens N says how many tokens an id stands for" in said(trace)
    run = driftsim("import", tmp_path / "rows.jsonl", "--hash-tokens", 128, "--out", tmp_path / "t")
    assert run.returncode == 0, run.stderr
    assert read(tmp_path / "t").requests["prefix_tokens"].fillna(0).tolist() == [0, *[128] * 5]


def test_the_formats_own_length_is_taken_where_others_fit_as_well_and_they_are_said(tmp_path: Path) -> None:
    rows = [row | {"input_length": 1100 + 50 * at} for at, row in enumerate(NARROW)]
    trace = imported(tmp_path, rows, "mooncake")
    assert trace.requests["prefix_tokens"].fillna(0).tolist() == [0, *[512] * 5]
    assert "count as 512 tokens each, as Mooncake's are: the lengths of prompts fit 1024 as well" in said(trace)


@pytest.mark.parametrize("tokens", [0, -3, 2**16 + 1, True, "16"])
def test_a_number_of_tokens_that_no_block_has_is_refused(tokens: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hash_tokens"):
        imported(tmp_path, NARROW, hash_tokens=tokens)
    with pytest.raises(InputError, match="--hash-tokens says nothing about the format burstgpt"):
        imported(tmp_path, NARROW, "burstgpt", hash_tokens=16)


@pytest.mark.parametrize(
    ("mapping", "what"),
    [
        ({"values": {"session": "x"}}, "session stands in columns; nothing else can give it"),
        ({"columns": {"hash_ids": "h"}}, "hash_ids and hash_tokens belong together"),
        ({"hash_tokens": 16}, "hash_ids and hash_tokens belong together"),
        ({"columns": {"sessionn": "s"}}, "'sessionn' is no column of a trace (the nearest is session)"),
        ({"units": {"parent": "s"}}, "units.parent: parent is no time"),
    ],
)
def test_a_mapping_names_relations_in_columns(mapping: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(what)):
        imported(tmp_path, rows_of_turns(h=[[1]]), mapping=Mapping(**mapping))


def test_more_ids_than_tokens_tell_no_size_of_a_block() -> None:
    odd = Blocks.of([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [1, 2, 3]], [1, 2, 1])
    assert odd.sizes() == []
    assert Blocks.of([[1, 2], [1, 2, 3]], [20, 37]).sizes() == [16]
