"""Minimal pairs: does a model find the acceptable sentence likelier than the one that differs from it in one point?

A sentence's score is the sum, not the mean, of the log-probabilities of its tokens, behind the begin token: causal,
each token given those before it; masked, each given all others, the pseudo-log-likelihood (Salazar et al., 2020);
fused, the sum of both (Charpentier & Samuel, 2024). A pair is right if the good sentence scores strictly higher: a tie
is wrong. BLiMP is the mean over paradigms of the share of right pairs (Warstadt et al., 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from teloi.batch.segments import SegmentBatch
from teloi.batch.sequence import IGNORED, SequenceBatch
from teloi.batch.sequence import Sequence as Example
from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.processor import Processor
from teloi.data.vocabulary import begin_id, mask_id
from teloi.models.roles import LanguageModel, evaluation
from teloi.models.sequences import ScoredModel

Floats = NDArray[np.float64]
T = TypeVar("T", Tree, Example)

POSITIONS = 4096
"""Positions computed at a time."""


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


def causal_scores(model: LanguageModel, processor: Processor, texts: Sequence[str]) -> Floats:
    """Sum of log p(token | begin token and those before it) of each text."""
    begin = np.array([begin_id(processor.tokenizer)], np.int32)
    trees = [Tree(begin, (Branch.scored(processor.bare_ids(text)),)) for text in texts]

    def sums(part: Sequence[Tree]) -> Tensor:
        return model.branch_sums(TreeBatch(part, model.model.device))[0]

    return _in_parts(trees, sums, model)


def masked_scores(model: LanguageModel | ScoredModel, processor: Processor, texts: Sequence[str]) -> Floats:
    """Pseudo-log-likelihood of each text: its tokens are masked one at a time, and log p of the masked token summed.

    A masked model is read at the mask. A decoder that learned masked next-token prediction reads the text in both
    directions and is read one position earlier. ModelError without a mask token.
    """
    mask = mask_id(processor.tokenizer)
    variants, owners = [], []
    for number, text in enumerate(texts):
        ids = np.asarray(processor.bare_ids(text), np.int32)
        if isinstance(model, LanguageModel):
            variants += _shifted(ids, begin_id(processor.tokenizer), mask)
        else:
            variants += _in_place(ids, processor, mask)
        owners += [number] * len(ids)

    def logps(part: Sequence[Example]) -> Tensor:
        if isinstance(model, LanguageModel):
            batch: Any = SegmentBatch(part, model.model.device)  # which has what a language model reads of one
            return model.logps(batch)
        return model.logps(SequenceBatch(part, device=model.model.device))

    sums: Floats = np.bincount(owners, _in_parts(variants, logps, model), minlength=len(texts)).astype(np.float64)
    return sums


def fused_scores(model: LanguageModel, processor: Processor, texts: Sequence[str]) -> Floats:
    """The sum of the causal and the masked score of each text."""
    return causal_scores(model, processor, texts) + masked_scores(model, processor, texts)


def _shifted(ids: NDArray[np.int32], begin: int, mask: int) -> list[Example]:
    """The text behind the begin token with each of its tokens masked in turn, and labelled where it is predicted."""
    columns = {"lengths": np.array([len(ids) + 1]), "bidirectional": np.bool_(True)}
    made = []
    for place in range(len(ids)):
        inputs, labels = np.append(np.int32(begin), ids), np.full(len(ids) + 1, IGNORED, np.int32)
        inputs[place + 1], labels[place] = mask, ids[place]
        made.append(Example({"input_ids": inputs, "labels": labels}, columns))
    return made


def _in_place(ids: NDArray[np.int32], processor: Processor, mask: int) -> list[Example]:
    """The text between the tokenizer's special tokens with each of its tokens masked in turn, and labelled there."""
    framed = np.asarray(processor.sentence_ids(ids.tolist()), np.int32)
    front = processor.sentence_ids([mask]).index(mask)
    made = []
    for place in range(front, front + len(ids)):
        inputs, labels = framed.copy(), np.full(len(framed), IGNORED, np.int32)
        inputs[place], labels[place] = mask, framed[place]
        made.append(Example({"input_ids": inputs, "labels": labels}))
    return made


def _in_parts(
    examples: Sequence[T], values: Callable[[Sequence[T]], Tensor], model: LanguageModel | ScoredModel
) -> Floats:
    """One value an example, computed on neighbours in length, without gradients."""
    found = np.empty(len(examples))
    with evaluation(model.model), torch.no_grad():
        for part in _parts([example.size for example in examples]):
            found[part] = values([examples[i] for i in part]).double().cpu().numpy()
    return found


def _parts(sizes: Sequence[int]) -> Iterator[list[int]]:
    part: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if part and sizes[part[0]] * (len(part) + 1) > POSITIONS:
            yield part
            part = []
        part.append(i)
    if part:
        yield part
