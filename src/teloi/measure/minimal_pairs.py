"""Minimal pairs: does a model find the acceptable sentence likelier than the one that differs from it in one point?

A sentence's score is the sum, not the mean, of the log-probabilities of its tokens, behind the begin token: causal,
each token given those before it; masked, each given all others, the pseudo-log-likelihood (Salazar et al., 2020), of an
encoder-decoder at a sentinel; fused, the sum of both (Charpentier & Samuel, 2024). A pair is right if the good sentence
scores strictly higher: a tie is wrong. BLiMP is the mean over paradigms of the share of right pairs (Warstadt et al.,
2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from teloi.data.processor import Processor
from teloi.data.scoring import Scoring
from teloi.data.vocabulary import begin_id
from teloi.measure.likelihood import Floats, Scored, text_scores
from teloi.models.roles import LanguageModel


def right(good: ArrayLike, bad: ArrayLike) -> NDArray[np.bool_]:
    """Which pairs are right: the good sentence's score is strictly above the bad one's. ValueError for scores that are
    NaN."""
    better, worse = np.asarray(good, np.float64), np.asarray(bad, np.float64)
    if np.isnan(better).any() or np.isnan(worse).any():
        raise ValueError("scores that are not a number cannot be compared")
    return np.asarray(better > worse)


def by_paradigm(values: ArrayLike, paradigms: Sequence[str]) -> dict[str, float]:
    """The mean of the pairs' values in each paradigm, in the order of their first pair. The figure to report is the
    mean of these."""
    v, names = np.asarray(values, np.float64), np.asarray(paradigms)
    return {name: float(v[names == name].mean()) for name in dict.fromkeys(paradigms)}


def sentence_scores(model: Scored, processor: Processor, texts: Sequence[str], scoring: Scoring) -> Floats:
    """Summed log-probability of each sentence's tokens in the way that the model was trained in. A causal model reads
    at least the begin token before a sentence."""
    if scoring.kind == "causal" and not scoring.front:
        scoring = replace(scoring, front=(begin_id(processor.tokenizer),))
    return text_scores(model, processor, [processor.bare_ids(text) for text in texts], scoring)


def causal_scores(model: LanguageModel, processor: Processor, texts: Sequence[str]) -> Floats:
    """Sum of log p(token | begin token and those before it) of each text."""
    return sentence_scores(model, processor, texts, Scoring("causal"))


def masked_scores(model: Scored, processor: Processor, texts: Sequence[str]) -> Floats:
    """Pseudo-log-likelihood of each text: its tokens are masked one at a time, and log p of the masked token summed.

    A masked model is read at the mask. A decoder that learned masked next-token prediction reads the text in both
    directions and is read one position earlier. ModelError without a mask token.
    """
    return sentence_scores(model, processor, texts, Scoring("masked"))


def fused_scores(model: LanguageModel, processor: Processor, texts: Sequence[str]) -> Floats:
    """The sum of the causal and the masked score of each text."""
    return causal_scores(model, processor, texts) + masked_scores(model, processor, texts)
