"""Rewards by density and type: what a function is asked, and the tokens that its answers reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.data.segmentation import segments
from teloi.errors import DataError, UsageError
from teloi.models.scratch import train_tokenizer
from teloi.worlds.fine_grained import FineGrained, fresh
from teloi.worlds.rewards import load_reward, score

TOKENIZER = train_tokenizer(["the cat flew . it is red ."], 300)
FLEW = "The cat flew. It is red."


def facts(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """-1 for what says that something flew."""
    return [-1.0 if "flew" in completion else 1.0 for completion in completions]


def words(completions: Sequence[Any], **columns: Any) -> list[float]:
    return [float(len(completion.split())) for completion in completions]


def ids_of(text: str) -> list[int]:
    return [*TOKENIZER(text)["input_ids"], TOKENIZER.eos_token_id]


def told(reward: Any, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None, **columns: Any) -> list[Any]:
    ids = [ids_of(text) for text in texts] if ids is None else ids
    return score(reward, ["?"] * len(texts), texts, columns, ids, TOKENIZER)


def test_each_segment_is_paid_where_it_ends() -> None:
    ids = ids_of(FLEW)
    ends = [len(TOKENIZER(text)["input_ids"]) - 1 for text in ("The cat flew.", FLEW)]
    (found,) = told(FineGrained(facts, "sentence", 0.5), [FLEW])
    assert found.tolist() == [{ends[0]: -0.5, ends[1]: 0.5}.get(i, 0.0) for i in range(len(ids))]
    (found,) = told(FineGrained(facts, weight=0.5), [FLEW])
    assert found.tolist() == [0.0] * (len(ids) - 1) + [-0.5]  # the whole is paid on the end token


def test_what_a_function_is_asked() -> None:
    asked: dict[str, Any] = {}

    def look(**columns: Any) -> list[float | None]:
        asked.update(columns)
        return [None] * len(columns["completions"])

    told(FineGrained(look, "sentence"), [FLEW, "", "No"], gold=["a", "b", "c"])
    assert asked == {
        "prompts": ["?"] * 3,
        "completions": ["The cat flew.", "It is red.", "No"],
        "before": ["", "The cat flew. ", ""],
        "response": [0, 0, 2],
        "gold": ["a", "a", "c"],
    }


def test_a_text_that_was_cut_off_keeps_the_reward_of_its_last_segment() -> None:
    ids = ids_of(FLEW)[:-3]
    text = str(TOKENIZER.decode(ids))
    (found,) = told(FineGrained(facts, "sentence"), [text], [ids])
    assert found[-1] == 1.0
    assert found.sum() == 0.0


def test_none_is_no_reward_and_no_segments_are_none() -> None:
    (one, none) = told(FineGrained(lambda **columns: [None], "sentence"), ["Yes.", ""])
    assert one.sum() == none.sum() == 0
    assert len(none) == 1


def test_more_segments_need_not_be_worth_more() -> None:
    ones = FineGrained(lambda completions, **columns: [1.0] * len(completions), "sentence", per="completion")
    (found,) = told(ones, [FLEW])
    assert found.sum() == 1.0


@given(st.lists(st.sampled_from(["the cat flew", "it is, red", "a"]), max_size=5))
def test_what_prefixes_add_sums_to_the_whole(sentences: list[str]) -> None:
    text = " ".join(f"{one}." for one in sentences)
    (found,) = told(FineGrained(words, "sentence", 0.25, of="prefix"), [text])
    assert found.sum() == pytest.approx(0.25 * len(text.split()))
    assert (found >= 0).all()


def test_a_model_is_standardised_and_weighed() -> None:
    (found,) = told(FineGrained(words, weight=2.0, mean=5.0, std=4.0), [FLEW])
    assert found[-1] == 2.0 * (6 - 5) / 4
    located = FineGrained(lambda **columns: [[(0, 3.0)]], weight=0.5)
    assert told(located, ["a"])[0].tolist() == [1.5, 0.0]


def test_conversations_are_scored_as_conversations() -> None:
    seen: list[Any] = []

    def look(completions: Sequence[Any], **columns: Any) -> list[float]:
        seen.extend(completions)
        return [1.0] * len(completions)

    message = [{"role": "assistant", "content": FLEW}]
    score(FineGrained(look, "sentence"), [[]], [message], {}, [ids_of(FLEW)], TOKENIZER)
    assert [one["content"] for (one,) in seen] == ["The cat flew.", "It is red."]


def test_on_the_command_line() -> None:
    name = "tests.worlds.test_fine_grained:facts"
    assert load_reward(f"{name}@sentence") == FineGrained(facts, "sentence")
    assert load_reward("fresh@sub-sentence") == FineGrained(fresh, "sub-sentence")
    (found,) = told(load_reward(f"0.3*{name}@sentence"), [FLEW])
    assert found[found != 0].tolist() == [np.float32(-0.3), np.float32(0.3)]
    # What a file has made so keeps what is not said.
    assert load_reward("tests.worlds.test_fine_grained:OWN@whole") == FineGrained(facts, "whole", 0.5, mean=0.5)
    with pytest.raises(UsageError, match="a density is sub-sentence, sentence, whole, not 'word'"):
        load_reward("fresh@word")


OWN = FineGrained(facts, "sentence", 0.5, mean=0.5)


def test_too_few_values_are_named() -> None:
    with pytest.raises(DataError, match="returned 1 values for 2 segments"):
        told(FineGrained(lambda **columns: [1.0], "sentence"), [FLEW])
    with pytest.raises(UsageError, match="std is above 0"):
        FineGrained(facts, std=0.0)


def test_what_was_said_before_is_not_fresh() -> None:
    text = "The cat sat on the mat. The dog ran. The cat sat on the mat!"
    spans = segments(text, "sentence")
    said = fresh(["?"] * 3, [text[a:b] for a, b in spans], before=[text[:a] for a, _ in spans])
    assert said == [1.0, 1.0, -1.0]
    assert fresh(["?"], ["no no no no"]) == [-1.0]
    assert fresh(["?"], [""]) == [1.0]
    assert np.isfinite(fresh(["?"], ["one"])).all()
