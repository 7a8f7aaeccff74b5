"""DriftSched's admission, against numbers worked out by hand, and each of its traps as a switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driftsim.errors import InputError
from driftsim.request import TIERS, Job, Request, Tier
from driftsim.scheduling.accounting import Accounting, count_words, token_counter
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.classify import label, predict_category, strip_label
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.estimators import Ema, Oracle, Static, make_estimator
from driftsim.scheduling.policies import Fifo, Sjf


def request(**changes: object) -> Request:
    values = {
        "id": "r", "tenant": "a", "tier": Tier.STANDARD, "category": "", "arrival": 0.0, "prompt_tokens": 50,
        "prompt_words": 40, "max_tokens": 1024,
    } | changes  # fmt: skip
    return Request(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "category"),
    [
        ("What is DNS and why is it important?", "short_qa"),
        ("SUMMARIZE Redis", "summary"),
        ("Summarize X architecture and key components.", "summary"),  # 1 : 1, ties go to summary
        ("Explain the internal architecture of X.", "technical"),
        ("Write a detailed report on X, including architecture.", "report"),  # 2 : 1
        ("A report on code", "report"),  # 1 : 1, report comes before technical
        ("Show code, the architecture and a report", "technical"),  # 2 : 1
    ],
)
def test_the_category_with_most_keywords_wins(prompt: str, category: str) -> None:
    assert predict_category(prompt) == category


def test_the_label_leaks_the_category_and_can_be_stripped() -> None:
    prompt = label(12, "batch", "report") + "Compare DNS with its alternatives."
    assert predict_category(prompt) == "report"
    assert predict_category(strip_label(prompt)) == "short_qa"


@pytest.mark.parametrize(
    ("tier", "category", "bias", "prompt_tokens", "expected"),
    [
        (Tier.STANDARD, "short_qa", 1.0, 0, 64),
        (Tier.PREMIUM, "summary", 1.0, 0, 307),  # 256 x 1.2 = 307.2
        (Tier.BATCH, "technical", 1.0, 0, 307),  # 384 x 0.8 = 307.2
        (Tier.STANDARD, "report", 1.5, 200, 921),  # 512 x 1.5 x 1.2 = 921.6
        (Tier.PREMIUM, "report", 0.5, 900, 460),  # 512 x 0.5 x 1.2 x 1.5 (the cap, not 1.9) = 460.8
        (Tier.STANDARD, "poetry", 1.0, 0, 64),  # unknown counts as short_qa
    ],
)
def test_the_estimate_is_base_bias_safety_and_input_factor(
    tier: Tier, category: str, bias: float, prompt_tokens: int, expected: int
) -> None:
    assert Admission().estimate(request(tier=tier, prompt_tokens=prompt_tokens), category, bias) == expected


def test_prompt_length_follows_the_accounting() -> None:
    long = request(prompt_tokens=500, prompt_words=100)
    assert Admission().estimate(long, "summary", 1.0) == 384  # 256 x 1.5
    assert Admission(accounting="whitespace").estimate(long, "summary", 1.0) == 281  # 256 x 1.1 = 281.6
    derived = Admission(accounting="whitespace", words_per_token=0.5)
    assert derived.estimate(long, "summary", 1.0) == 320  # 250 words
    assert derived.unit.name == "whitespace (derived)"


def test_each_trap_is_a_switch() -> None:
    premium = request(tier=Tier.PREMIUM, max_tokens=70, prompt_tokens=0)
    assert Admission().estimate(premium, "short_qa", 1.0) == 76  # 64 x 1.2 = 76.8, above what any output can be
    assert Admission(clamp_at_max_tokens=True).estimate(premium, "short_qa", 1.0) == 70
    assert Admission(safety=dict.fromkeys(TIERS, 1.0)).estimate(premium, "short_qa", 1.0) == 64
    assert Admission(base="caps").estimate(premium, "report", 1.0) == 84  # 70 x 1.2


def test_the_correction_divides_by_the_base_alone_or_by_the_whole_estimate() -> None:
    job = Job(request(tier=Tier.PREMIUM, prompt_tokens=250), "summary", 0, 0)
    assert Admission().measured_bias(job, 384) == pytest.approx(1.5)
    assert Admission(feedback="estimate").measured_bias(job, 384) == pytest.approx(1.0)  # 256 x 1.2 x 1.25
    assert Admission().measured_bias(job, 10) == 0.25
    assert Admission().measured_bias(job, 5000) == 3.0


def test_ema_moves_a_tenth_of_the_way_per_category() -> None:
    ema = Ema(Admission())
    job = Job(request(), "summary", 0, 0)
    ema.observe(job, 512, False, 1.0)  # measured 2.0
    assert ema.bias == {"summary": pytest.approx(1.1)}
    ema.observe(job, 64, True, 2.0)  # measured 0.25; censored outputs count like others
    assert ema.bias["summary"] == pytest.approx(1.015)
    assert ema.estimate(request(prompt_tokens=0), "summary", 3.0).length == 259  # 256 x 1.015 = 259.84
    assert ema.estimate(request(prompt_tokens=0), "report", 3.0).bias == 1.0


def test_departures_of_one_step_are_learned_from_in_order_of_dispatch() -> None:
    dispatcher = Dispatcher(Fifo(), Ema(Admission(alpha=0.5)), Admission(alpha=0.5))
    jobs = [dispatcher.arrive(request(id=name), "summary", 0.0) for name in "ab"]
    assert dispatcher.release(9, 0.0) == jobs
    dispatcher.finished([Departure(jobs[1], 256, False), Departure(jobs[0], 768, False)], 1.0)
    # first a: 0.5 x 1 + 0.5 x 3 = 2, then b: 0.5 x 2 + 0.5 x 1
    assert dispatcher.arrive(request(id="c"), "summary", 2.0).bias == pytest.approx(1.5)


def test_refreshed_estimates_change_the_order_of_those_who_wait() -> None:
    def second(estimates: str) -> str:
        admission = Admission(alpha=1.0, estimates=estimates)  # type: ignore[arg-type]
        dispatcher = Dispatcher(Sjf(), Ema(admission), admission, max_in_flight=1)
        dispatcher.arrive(request(id="first", prompt_tokens=0), "short_qa", 0.0)
        [first] = dispatcher.release(9, 0.0)
        dispatcher.arrive(request(id="long"), "summary", 1.0)
        dispatcher.arrive(request(id="short", tier=Tier.PREMIUM, prompt_tokens=400), "short_qa", 1.0)
        dispatcher.finished([Departure(first, 16, False)], 2.0)  # short_qa comes out a quarter as long as thought
        dispatcher.arrive(request(id="other", prompt_tokens=230), "short_qa", 2.0)
        dispatcher.arrive(request(id="middle", prompt_tokens=440), "short_qa", 2.0)
        order = []
        while len(dispatcher.policy):
            [job] = dispatcher.release(1, 3.0)
            order.append(f"{job.request.id} {job.budget}")
            dispatcher.finished([Departure(job, None, False)], 3.0)
        return " ".join(order)

    # short: 400 + int(64 x 1.2 x 1.4 = 107.52), refreshed at bias 0.25: 400 + 26
    assert second("frozen") == "other 249 long 318 middle 463 short 507"
    assert second("refreshed") == "other 249 long 318 short 426 middle 463"


def test_static_never_learns_and_the_oracle_knows() -> None:
    static, oracle = Static(Admission()), Oracle({"r": 17})
    before = static.estimate(request(), "report", 0.0)
    static.observe(Job(request(), "report", 0, 0), 9, False, 1.0)
    assert static.estimate(request(), "report", 2.0) == before
    assert oracle.estimate(request(), "report", 0.0).length == 17


def test_only_an_oracle_is_given_the_truth() -> None:
    assert not any("outputs" in vars(make_estimator(name, Admission(), {"r": 1})) for name in ("static", "ema"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"clip_low": 4.0},
        {"base_table": {"summary": 3.0}},
        {"base_table": {"short_qa": -1.0}},
        {"safety": {"premium": 0.0}},
        {"words_per_token": 0.7},
        {"accounting": "bytes"},
        {"typo": 1},
    ],
)
def test_wrong_constants_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Admission(**wrong)  # type: ignore[arg-type]


def test_whitespace_accounting_without_words_is_an_error() -> None:
    with pytest.raises(ValueError, match="--words-per-token"):
        Accounting("whitespace").length(10, None)


def test_tokens_are_counted_by_the_models_own_tokenizer_offline(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(WordLevel({"what": 0, "is": 1, "?": 2, "[UNK]": 3}, unk_token="[UNK]"))
    model.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]").save_pretrained(tmp_path)
    count = token_counter(tmp_path)
    assert count("what is DNS?") == 4  # punctuation is a token of its own
    assert count_words("what is DNS?") == 3
    with pytest.raises(ValueError, match="no such model folder"):
        token_counter(tmp_path / "absent")


def test_words_stand_between_blanks_of_any_kind_and_number() -> None:
    assert count_words("  What is\n\n DNS? ") == 3


def test_each_time_that_a_keyword_occurs_counts() -> None:
    assert predict_category("A report on code, and code, and code.") == "technical"
    assert predict_category("A report on code.") == "report"  # one all: in the order of the table


@pytest.mark.parametrize(
    "odd", [{"safety": {"batch": 2.0**63}}, {"safety": {"batch": 0.0}}, {"base_table": {"short_qa": 1e300}},
            {"input_cap": 1e9}, {"clip_high": 1e9}],
)  # fmt: skip
def test_factors_are_of_a_size_that_an_estimate_can_have(odd: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(odd))):
        Admission.of(odd)


def test_the_largest_estimate_is_a_count() -> None:
    wide = Admission(base_table={"short_qa": 1e9}, safety={Tier.BATCH: 1000.0}, input_cap=1000.0, input_scale=1e-9)
    asked = Request("r", "a", Tier.BATCH, "", 0.0, 10**9, None, 64)
    assert wide.estimate(asked, "short_qa", 1000.0) < 2**63
