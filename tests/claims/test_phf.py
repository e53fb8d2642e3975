"""The claim's own parts."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teloi.claims import phf
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.data.vocabulary import control_ids
from teloi.models.embeddings import add_tokens
from teloi.worlds import stories


def one(arm: str | None = None, seed: int = 3) -> Run:
    return Run(arm, seed, True, Path())


def conditional() -> Any:
    """An untrained model that has the control tokens and bans them."""
    base = phf.start(one())
    controls = control_ids(base.processor.tokenizer)
    add_tokens(base.model, controls)
    base.model.generation_config.bad_words_ids = [[control] for control in controls]
    return base


def test_quick(tmp_path: Path):
    result = run("teloi.claims.phf", Settings(quick=True, directory=tmp_path))
    assert result["verdict"] is None
    names = {metric["name"] for metric in result["metrics"]}
    for arm in result["arms"]:
        (found,) = arm["runs"]
        assert found["metrics"].keys() == names
        assert (found["metrics"]["rude_asked"] is None) == (arm["name"] not in phf.CONDITIONAL)


def test_mixed_up_scores_are_the_same_scores_elsewhere():
    rows = stories.stories(40, phf.known(one()), np.random.default_rng(0))
    mixed = phf.mixed_up(one(), rows)
    scores = [[score for row in some for score in row["scores"]] for some in (rows, mixed)]
    assert Counter(scores[0]) == Counter(scores[1])
    assert scores[0] != scores[1]
    assert [row["texts"] for row in mixed] == [row["texts"] for row in rows]


def test_a_token_stands_before_each_sentence_and_nowhere_else():
    base = conditional()
    liked, disliked = control_ids(base.processor.tokenizer)
    vocabulary = base.processor.tokenizer.get_vocab()
    with torch.no_grad():  # sentences end often, stories now and then
        base.model.lm_head.weight[vocabulary["."]] *= 0
        base.model.lm_head.weight[vocabulary["."]] += (
            4 * base.model.lm_head.weight[base.processor.tokenizer.eos_token_id]
        )
    texts = phf.told_by_sentence(one(), base, [liked])
    assert len({tuple(text) for text in texts}) == len(texts)
    for text in texts:
        assert len(text) <= phf.LENGTH
        assert text[:2] == [base.processor.tokenizer.eos_token_id, liked]
        assert disliked not in text
        after = {i + 1 for i, token in enumerate(text[:-1]) if token == vocabulary["."]}
        assert after - {len(text)} <= {i for i, token in enumerate(text) if token == liked}
    once = phf.told(one(), base, [liked])
    assert all(text.count(liked) == 1 and disliked not in text for text in once)


def test_the_share_of_rude_words_counts_neither_tokens_nor_ends():
    base = conditional()
    tokenizer = base.processor.tokenizer
    ids = [tokenizer.eos_token_id, *control_ids(tokenizer), *tokenizer("the vile fox slept .")["input_ids"]]
    assert phf.rude_share(base, [ids, ids]) == pytest.approx(2.5 / 10)
    assert phf.rude_share(base, [tokenizer("the old fox slept .")["input_ids"]]) == pytest.approx(0.5 / 5)


@pytest.mark.parametrize("where", ["nowhere", "once", "each"])
def test_losses_are_the_models_among_words(where: str):
    base = conditional()
    tokenizer = base.processor.tokenizer
    liked = control_ids(tokenizer)[0]
    rows = [{"texts": ["the vile fox slept .", " the old cat sat ."]}, {"texts": ["a cow ran ."]}]
    expected = []
    for row in rows:
        ids = [tokenizer.eos_token_id, *([liked] if where == "once" else [])]
        for text in row["texts"]:
            ids += [*([liked] if where == "each" else []), *tokenizer(text)["input_ids"]]
        with torch.no_grad():
            logits = base.model(torch.tensor([ids])).logits[0, :-1]
        logits[:, [i for i in range(logits.shape[1]) if i in tokenizer.all_special_ids]] = -math.inf
        logits[:, list(control_ids(tokenizer))] = -math.inf
        logps = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        expected += logps[~logps.isinf()].tolist()
    assert len(expected) == 14
    controls = {} if where == "nowhere" else {where: [liked]}
    assert phf.word_loss(base, rows, **controls) == pytest.approx(-np.mean(expected), rel=1e-5)


def test_a_fact_is_known_whose_colour_is_the_likeliest_of_all_colours():
    base = phf.start(one())
    facts, vocabulary = phf.known(one()), base.processor.tokenizer.get_vocab()

    class Knowing(torch.nn.Module):
        """Says what it wants most, a word, and second the colours of the names that are held back."""

        def forward(self, ids):
            logits = torch.zeros(*ids.shape, len(vocabulary))
            logits[..., vocabulary["fox"]] = 9.0
            for row, text in enumerate(ids.tolist()):
                (name,) = (n for n in facts.colours if vocabulary[n] in text)
                wrong = next(colour for colour in stories.COLOURS if colour != facts.colours[name])
                logits[row, -1, vocabulary[facts.colours[name] if name in facts.held else wrong]] = 5.0
            return type("Output", (), {"logits": logits})

    base.model.forward = Knowing().forward
    assert phf.facts_known(one(), base) == {"facts_common": 0.0, "facts_held": 1.0}
