from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from teloi.models.scratch import word_tokenizer
from teloi.worlds.chains import AGAIN, CHAIN, IS, KINDS, LISTED, NUMBERS, PLUS, SAY, Chain, chain, texts, words


def made(count: int = 300, length: int = 64, seed: int = 1):
    rng = np.random.default_rng(seed)
    language = chain(rng)
    return language, texts(count, length, language, rng)


def test_texts_have_their_length_and_the_vocabularys_words() -> None:
    _, found = made()
    assert len(word_tokenizer(words())) == 256
    assert all(len(said) == len(parts) == 64 for said, parts in found)
    assert {word for said, _ in found for word in said} <= set(words())
    assert found == made()[1] != made(seed=2)[1]


def test_most_of_a_text_is_easy() -> None:
    _, found = made()
    shares = Counter(part for _, parts in found for part in parts)
    assert shares["easy"] / shares.total() == pytest.approx(0.7, abs=0.05)
    assert shares["hard"] / shares.total() > 0.08


def test_what_is_hard_follows_from_what_was_said() -> None:
    lengths, sums = Counter[int](), 0
    for said, parts in made(length=200)[1]:
        for i, part in enumerate(parts):
            if part == "hard" and said[i] in NUMBERS:
                one, plus, other, equals = said[i - 4 : i]
                assert (plus, equals) == (PLUS, IS)
                assert (NUMBERS.index(one) + NUMBERS.index(other)) % 16 == NUMBERS.index(said[i])
                sums += 1
            if said[i] == AGAIN:
                start = i - said[i::-1].index(SAY)
                listed = said[start + 1 : i]
                assert said[i + 1 : i + 1 + len(listed)] == listed[: len(said) - i - 1]
                assert parts[start : i + 1] == ["other"] * (len(listed) + 2)
                assert set(parts[i + 1 : i + 1 + len(listed)]) <= {"hard"}
                lengths[len(listed)] += 1
    assert sums > 300
    assert sorted(lengths) == list(range(LISTED[0], LISTED[1] + 1))


def test_the_chain_says_what_its_distributions_say() -> None:
    language, found = made(3000)
    probabilities = np.diff(language.cumulated, prepend=0)
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    number = {word: i for i, word in enumerate(CHAIN)}
    after = np.zeros((KINDS, KINDS, len(CHAIN)))
    for said, parts in found:
        for i in range(2, len(said)):
            if parts[i - 2 : i + 1] == ["easy"] * 3:
                kinds = [language.kinds[number[word]] for word in said[i - 2 : i]]
                after[kinds[0], kinds[1], number[said[i]]] += 1
    counts = after.sum(-1, keepdims=True)
    expected = counts * probabilities
    # Sums over all words of squared deviations, in units of their variance, are near the number of words.
    squares = ((after - expected) ** 2 / np.maximum(expected * (1 - probabilities), 1e-9))[expected > 5]
    assert len(squares) > 1000
    assert squares.mean() == pytest.approx(1, abs=0.15)


def test_a_certain_chain_says_one_thing() -> None:
    cumulated = np.ones((KINDS, KINDS, len(CHAIN)))
    cumulated[..., 0] = 0
    said, parts = texts(1, 20, Chain(np.ones(len(CHAIN), int), cumulated), np.random.default_rng(0))[0]
    assert {word for word, part in zip(said, parts, strict=True) if part == "easy"} == {CHAIN[1]}
