"""What an imported trace finds in the cache is what vLLM's own finds, given the same blocks in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftsim.engine.scheduler import MIRRORED_VLLM
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.settings import EngineSettings
from driftsim.trace.trace import Trace
from driftsim.workloads.replay import replay
from tests.live.bare import EOS
from tests.live.deciding import Asked, Case, Theirs
from tests.strategies import profile
from tests.test_relations import Chat, Chats, bailian, imported, mooncake

pytestmark = pytest.mark.live
APART = 10_000  # steps between two requests: one is over before the next comes


def engine(chats: Chats, made: list[Chat], share: float) -> EngineSettings:
    """An engine whose cache holds ``share`` of all tokens, or at least the longest request."""
    longest = max(len(chat.whole) for chat in made) + 1
    blocks = max(-(-longest // chats.size), int(share * sum(len(chat.whole) for chat in made) / chats.size))
    return EngineSettings(
        version=MIRRORED_VLLM, max_num_seqs=4, max_num_batched_tokens=2048, max_model_len=longest,
        kv_blocks=2 + blocks, block_size=chats.size, enable_prefix_caching=True,
    )  # fmt: skip


def found_by_vllm(settings: EngineSettings, made: list[Chat]) -> list[int]:
    asked = [Asked(APART * chat.row, chat.prompt, [*chat.output[:-1], EOS], len(chat.output), 1) for chat in made]
    found: dict[str, int] = {}
    for decision in Theirs(Case(settings, asked)).run():
        for name, tokens in decision.computed.items():
            found.setdefault(name, tokens)
    return [found[str(chat.row)] for chat in made]


def found_by_us(settings: EngineSettings, trace: Trace) -> list[int]:
    run = simulate(Scenario(profile=profile(settings), policy="fifo"), replay(trace))
    assert (run.requests["dispatch_s"].to_numpy()[1:] > run.requests["finish_s"].to_numpy()[:-1]).all()
    assert run.requests["request_id"].tolist() == trace.requests["request_id"].tolist()
    return [int(tokens) for tokens in run.requests["cached_tokens"]]


@pytest.mark.parametrize("share", [2.0, 0.3, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_sessions_find_what_vllm_finds(seed: int, share: float, tmp_path: Path) -> None:
    chats = Chats(seed, 16)
    made = chats.made(120)
    settings = engine(chats, made, share)
    theirs = found_by_vllm(settings, made)
    assert found_by_us(settings, imported(tmp_path, bailian(chats, made))) == theirs
    assert sum(theirs) > 0


def questions(chats: Chats, count: int) -> list[Chat]:
    """Requests that ask about documents, some twice, with answers that nobody repeats and that are longer."""
    documents = [chats.text(6 * chats.size) for _ in range(5)]
    found: list[Chat] = []
    for row in range(count):
        prompt = [*chats.dice.choice(documents), *chats.text(300)]
        if found and chats.dice.random() < 0.2:
            prompt = list(chats.dice.choice(found).prompt)
        found.append(Chat(1000.0 * row, prompt, [*chats.text(1), *(next(chats.fresh) for _ in range(300))], row=row))
    return found


@pytest.mark.parametrize("share", [2.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_prompts_find_what_vllm_finds_where_no_answer_is_repeated(seed: int, share: float, tmp_path: Path) -> None:
    chats = Chats(seed, 512)
    made = questions(chats, 40)
    settings = engine(chats, made, share)
    theirs = found_by_vllm(settings, made)
    assert found_by_us(settings, imported(tmp_path, mooncake(chats, made), "mooncake")) == theirs
    assert sum(theirs) > 0


@pytest.mark.parametrize("share", [2.0, 0.3])
def test_turns_without_a_link_find_nearly_what_vllm_finds(share: float, tmp_path: Path) -> None:
    """Which answers are repeated is then a guess."""
    chats = Chats(5, 512, forks=False)
    made = chats.made(60)
    settings = engine(chats, made, share)
    theirs = found_by_vllm(settings, made)
    ours = found_by_us(settings, imported(tmp_path, mooncake(chats, made), "mooncake"))
    assert sum(ours) == pytest.approx(sum(theirs), rel=0.05)
