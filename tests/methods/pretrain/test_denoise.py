"""Denoising from text to batch: pairs can be put together again, the mixture is the one that was asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from teloi.batch.sequence import Sequence
from teloi.data.formats import LanguageModeling
from teloi.data.processor import Processor
from teloi.data.vocabulary import MODES, sentinel_ids
from teloi.engine.objective import Now
from teloi.errors import DataError, ModelError, UsageError
from teloi.methods.pretrain.denoise import UL2, Denoising, PrefixLM, SpanCorruption
from teloi.models.roles import Models
from teloi.models.scratch import train_tokenizer

TEXTS = ["the cat sat on the mat", "a dog"] * 5
SEQ2SEQ = Processor(train_tokenizer(TEXTS, 400, "seq2seq"), 256)
CAUSAL = Processor(train_tokenizer(TEXTS, 300), 256)
END = SEQ2SEQ.tokenizer.eos_token_id


def made(objective: Denoising, ids: list[int], count: int = 1, processor: Processor = SEQ2SEQ) -> list[Sequence]:
    models: Any = Models(None, processor=processor)  # type: ignore[arg-type]  # the policy is not asked
    examples = [Sequence({"input_ids": np.asarray(ids, np.int32)})] * count
    return objective.rollout(models, examples, Now(0, 1, places=tuple(range(count))))


def together(pair: Sequence) -> list[int]:
    """The raw tokens: each sentinel of the input replaced by what the target has behind it."""
    sentinels = set(sentinel_ids(SEQ2SEQ.tokenizer).tolist())
    inputs, targets = (pair.ids[name].tolist()[:-1] for name in ("input_ids", "targets"))
    spans: dict[int, list[int]] = {}
    for token in targets:
        if token in sentinels:
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    return [t for token in inputs for t in spans.get(token, [token])]


@pytest.mark.parametrize("roll", [False, True])
def test_a_span_corrupted_pair_holds_the_whole_text(roll: bool) -> None:
    ids = list(range(110, 140))
    pairs = made(SpanCorruption(random_roll=roll), ids, 50)
    assert all(together(pair) == ids for pair in pairs)
    assert all(pair.ids[name][-1] == END for pair in pairs for name in ("input_ids", "targets"))
    # round(30 * 0.15) = 4 noise tokens in one span of about 3: 4 + 1 sentinel + end
    assert {len(pair.ids["targets"]) for pair in pairs} <= ({6, 7} if roll else {6})
    different = len({pair.ids["input_ids"].tobytes() for pair in pairs})
    assert different > 10 if roll else different == 1, "without a roll, one span is always the tail"


def test_every_place_of_a_step_and_every_step_draws_anew_and_the_same_again() -> None:
    objective, ids = SpanCorruption(rate=0.5), list(range(110, 140))
    one, again = made(objective, ids, 20), made(objective, ids, 20)
    assert [p.ids["input_ids"].tobytes() for p in one] == [p.ids["input_ids"].tobytes() for p in again]
    assert len({p.ids["input_ids"].tobytes() for p in one}) > 15


def test_the_mixture_has_its_shares_modes_and_lengths() -> None:
    objective = UL2(long_span=16, mixture=(2, 4, 2))
    pairs = made(objective, list(range(110, 174)), 800)
    count = Counter(int(pair.columns["mode"]) for pair in pairs)
    for mode, share in enumerate((0.25, 0.5, 0.25)):
        assert count[mode] / 800 == pytest.approx(share, abs=0.06)
    names = SEQ2SEQ.tokenizer.convert_ids_to_tokens([int(p.ids["input_ids"][0]) for p in pairs])
    assert names == [MODES[int(pair.columns["mode"])] for pair in pairs]
    # S: a quarter of 64 tokens and the end, no sentinel anywhere
    for pair in pairs:
        if pair.columns["mode"] == 2:
            assert len(pair.ids["targets"]) == 17
            assert not np.isin(pair.ids["input_ids"], sentinel_ids(SEQ2SEQ.tokenizer)).any()
    raw = Sequence({"input_ids": np.zeros(64, np.int32)})
    assert np.mean([pair.size for pair in pairs]) == pytest.approx(objective.cost(raw), rel=0.02)


def test_without_mode_tokens_inputs_begin_with_the_text() -> None:
    for pair in made(UL2(mode_tokens=(), mixture=(1, 0, 0)), list(range(110, 140)), 10):
        assert pair.ids["input_ids"][0] == 110


def test_a_mode_that_is_no_token_is_written_out() -> None:
    (pair,) = made(UL2(mode_tokens=("[NLU]", "[NLG]", "[S2S]"), mixture=(1, 0, 0)), list(range(110, 140)))
    assert SEQ2SEQ.decode(pair.ids["input_ids"].tolist()).startswith("[NLU]")


@pytest.mark.parametrize(("split", "lengths"), [(0.25, {4}), ("uniform", set(range(1, 12)))])
def test_prefix_and_tail_are_the_text(split: Any, lengths: set[int]) -> None:
    ids = list(range(110, 122)) if split == "uniform" else list(range(110, 126))
    pairs = made(PrefixLM(s_split=split), ids, 200)
    assert all([*p.ids["input_ids"][:-1], *p.ids["targets"][:-1]] == ids for p in pairs)
    assert {len(p.ids["targets"]) - 1 for p in pairs} == lengths
    # Prefix LM needs no sentinels.
    assert len(made(PrefixLM(), ids, 1, CAUSAL)) == 1


def test_texts_become_segments_of_one_length() -> None:
    objective = SpanCorruption(length=8)
    texts = [t for text in TEXTS for t in objective.encode(LanguageModeling(text), SEQ2SEQ)]
    tokens = np.concatenate([text.ids["input_ids"] for text in texts])
    segments = objective.prepare(texts, 0)
    assert [len(segment.ids["input_ids"]) for segment in segments] == [8] * (len(tokens) // 8)
    assert np.concatenate([s.ids["input_ids"] for s in segments]).tolist() == tokens[: len(tokens) // 8 * 8].tolist()
    assert objective.encode(LanguageModeling(""), SEQ2SEQ) == []
    (short,) = SpanCorruption(length=200).prepare(texts, 0)
    assert len(short.ids["input_ids"]) == len(tokens)
    with pytest.raises(DataError, match="one token in all"):
        objective.prepare([Sequence({"input_ids": tokens[:1]})], 0)


def test_what_cannot_work_says_what_to_do() -> None:
    row = LanguageModeling("the cat")
    with pytest.raises(ModelError, match=r"no sentinels .* --model scratch:small"):
        SpanCorruption().encode(row, CAUSAL)
    with pytest.raises(UsageError, match=r"exceed the context of 256: set --length 255"):
        SpanCorruption(length=256).encode(row, SEQ2SEQ)
    with pytest.raises(UsageError, match=r"up to 120 noise spans, but the vocabulary has 100 sentinels"):
        SpanCorruption(length=240, rate=0.5, mean_span=1).encode(row, SEQ2SEQ)
    wrong: list[dict[str, Any]] = [{"rate": 0.0}, {"mean_span": 0.5}, {"length": 1}]
    for settings in wrong:
        with pytest.raises(UsageError):
            SpanCorruption(**settings)
    wrong = [{"mixture": (0, 0, 0)}, {"mode_tokens": ("[R]",)}, {"s_split": 1.0}, {"short_spans": ()}]
    for settings in wrong:
        with pytest.raises(UsageError):
            UL2(**settings)
