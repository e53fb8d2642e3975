from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from teloi.models.scratch import word_tokenizer
from teloi.worlds.agreement import COPULA, NOUNS, PARADIGMS, REFLEXIVE, minimal_pairs, sentences, words

PLURALS = {noun + "s" for noun in NOUNS}
VERBS = {
    **dict.fromkeys(("sees", "likes", "helps", "hurts", "follows", "hears"), False),
    **dict.fromkeys(("see", "like", "help", "hurt", "follow", "hear"), True),
    **dict.fromkeys(("sleeps", "runs", "waits", "jumps", "rests", "hides", "is"), False),
    **dict.fromkeys(("sleep", "run", "wait", "jump", "rest", "hide", "are"), True),
}


def numbers(text: str) -> tuple[bool, bool, bool | None, list[bool]]:
    """Read from the words alone: whether the subject, the verb and the reflexive are plural, and the nouns between."""
    said = text.split()
    at = next(i for i, word in enumerate(said) if word in VERBS)
    subject, *between = (word in PLURALS for word in said[:at] if word in PLURALS or word in NOUNS)
    reflexive = next((word == REFLEXIVE[1] for word in said[at:] if word in REFLEXIVE), None)
    return subject, VERBS[said[at]], reflexive, between


def test_sentences_agree_and_differ() -> None:
    found = sentences(500, np.random.default_rng(0))
    assert found == sentences(500, np.random.default_rng(0)) != sentences(500, np.random.default_rng(1))
    assert len(set(found)) == 500
    tokenizer = word_tokenizer(words())
    for text in found:
        assert text.endswith(" .")
        assert len(text.split()) <= 20
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
        subject, verb, reflexive, _ = numbers(text)
        assert verb == subject
        assert reflexive in (None, subject)
    counted = Counter(word for text in found for word in text.split())
    assert counted.keys() == set(words())
    assert sum(len(numbers(text)[-1]) > 0 for text in found) == pytest.approx(250, abs=50)
    assert all(counted[word] > 5 for word in (*COPULA, *REFLEXIVE))


def test_known_sentences_are_not_drawn_again() -> None:
    known = set(sentences(400, np.random.default_rng(0)))
    assert known & set(sentences(400, np.random.default_rng(0), known)) == set()
    assert known & {pair["good"] for pair in minimal_pairs(100, np.random.default_rng(0), known)} == set()


def test_pairs_differ_in_the_number_of_one_word() -> None:
    pairs = minimal_pairs(60, np.random.default_rng(2))
    assert Counter(pair["paradigm"] for pair in pairs) == dict.fromkeys(PARADIGMS, 60)
    assert len({(pair["good"], pair["bad"]) for pair in pairs}) == len(pairs)
    for pair in pairs:
        good, bad = pair["good"].split(), pair["bad"].split()
        assert len(good) == len(bad)
        assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1
        subject, verb, reflexive, between = numbers(pair["good"])
        assert verb == subject
        assert reflexive in (None, subject)
        wrong = numbers(pair["bad"])
        if pair["paradigm"].startswith("verb"):
            assert wrong[1] != subject == wrong[0]
        else:
            assert wrong[2] != subject == wrong[1]
        assert bool(between) == pair["paradigm"].endswith("attractor")
        assert all(one != subject for one in between)
