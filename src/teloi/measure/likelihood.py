"""How likely a trained model finds a text, in whichever way it was trained to say so, and in bits for each character.

A likelihood is a product of token probabilities, each given the tokens before it. A pseudo-likelihood is one of
probabilities that are each given all other tokens (Salazar et al., 2020): its factors belong to no one distribution, so
that its bits are comparable between models that are read so, never with those of a likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teloi.batch.segments import SegmentBatch
from teloi.batch.sequence import IGNORED, SequenceBatch, neighbours
from teloi.batch.sequence import Sequence as Example
from teloi.batch.tree import Tree, TreeBatch
from teloi.data.corruption.ragged import Ragged
from teloi.data.corruption.spans import render_prefix, render_spans
from teloi.data.encode import blocks
from teloi.data.processor import Processor
from teloi.data.scoring import LIKELIHOODS, Scoring
from teloi.data.vocabulary import begin_id, end_id, mask_id, sentinel_ids
from teloi.losses.logps import segment_sum
from teloi.models.roles import LanguageModel, evaluation
from teloi.models.sequences import ScoredModel

Floats = NDArray[np.float64]
Ids = Sequence[int] | NDArray[np.int32]
Scored = LanguageModel | ScoredModel
T = TypeVar("T", Tree, Example)

POSITIONS = 4096
"""Positions computed at a time."""


def text_scores(model: Scored, processor: Processor, texts: Sequence[Ids], scoring: Scoring) -> Floats:
    """Summed log-probability of the tokens of each text, given by its ids; of a pseudo-likelihood each token takes a
    pass of its own. Where nothing stands before a text, its first token is read, not scored.

    ModelError where the tokenizer has no mask, or no sentinel, and the scoring asks for one.
    """
    if scoring.kind in LIKELIHOODS:
        return _likelihoods(model, processor, texts, scoring)
    pieces = [(number, piece) for number, text in enumerate(texts) for piece in _cut(text, scoring.length)]
    places = [(k, place) for k, (_, piece) in enumerate(pieces) for place in range(len(piece))]
    values = token_scores(model, processor, [piece for _, piece in pieces], places, scoring)
    owners = [pieces[k][0] for k, _ in places]
    sums: Floats = np.bincount(owners, values, minlength=len(texts)).astype(np.float64)
    return sums


def token_scores(
    model: Scored, processor: Processor, texts: Sequence[Ids], places: Sequence[tuple[int, int]], scoring: Scoring
) -> Floats:
    """Log-probability of single tokens given all others of their text; `places`: text and token by number."""
    ids = [np.asarray(text, np.int32) for text in texts]
    tokenizer = processor.tokenizer
    if scoring.kind == "gaps":
        sentinel, end = sentinel_ids(tokenizer)[:1], end_id(tokenizer)
        made = [_gap(ids[k], place, scoring.front, sentinel, end) for k, place in places]
        return _in_parts(made, lambda part: _of_targets(model, part)[1::2], model)
    mask = mask_id(tokenizer)
    if isinstance(model, LanguageModel):
        front = scoring.front or (begin_id(tokenizer),)
        made = [_shifted(ids[k], place, front, mask) for k, place in places]
    else:
        front = tuple(processor.sentence_ids([mask]))
        made = [_in_place(ids[k], place, front[: front.index(mask)], front[front.index(mask) :]) for k, place in places]
    return _in_parts(made, lambda part: _of_labels(model, part), model)


def bits_per_character(model: Scored, processor: Processor, texts: Sequence[str], scoring: Scoring) -> float:
    """Bits that a likelihood needs for a character of the texts, without their ends; of a text whose first token is
    not scored, its characters do not count either."""
    ids = [processor.bare_ids(text) for text in texts]
    unscored = [0 if scoring.kind == "causal" and scoring.front else 1] * len(ids)
    characters = sum(
        len(text) - len(processor.decode(one[:left])) for text, one, left in zip(texts, ids, unscored, strict=True)
    )
    return float(-text_scores(model, processor, ids, scoring).sum() / math.log(2) / characters)


def pseudo_bits(
    model: Scored, processor: Processor, texts: Sequence[str], scoring: Scoring, samples: int, seed: int = 0
) -> Floats:
    """Bits a character by a pseudo-likelihood, estimated from each of so many tokens, drawn without return from all by
    the seed: [samples]. Their mean is the figure."""
    pieces = [piece for text in texts for piece in _cut(processor.bare_ids(text), scoring.length)]
    owners = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    drawn = np.sort(np.random.default_rng(seed).permutation(len(owners))[:samples])
    places = [(int(owners[at]), int(at - starts[owners[at]])) for at in drawn]
    scale = len(owners) / sum(map(len, texts)) / math.log(2)
    return -scale * token_scores(model, processor, pieces, places, scoring)


# -- inside


def _likelihoods(model: Any, processor: Processor, texts: Sequence[Ids], scoring: Scoring) -> Floats:
    owners: list[int] = []
    trees: list[Tree] = []
    written: list[Example] = []
    for number, text in enumerate(texts):
        if scoring.kind == "causal":
            limit = (scoring.length or processor.max_length) + bool(scoring.length) * (len(scoring.front) + 1)
            trees += blocks(text, scoring.front, min(limit, processor.max_length))
        else:
            written += _continued(text, scoring, end_id(processor.tokenizer))
        owners += [number] * (len(trees) + len(written) - len(owners))

    def written_sums(part: Sequence[Example]) -> Tensor:
        batch = SequenceBatch(part, device=model.model.device)
        # The decoder's end says that a segment is full, not that the text ends.
        logps = torch.where(_is_last(batch), 0.0, model.logps(batch))
        return segment_sum(logps, batch.rows_of("targets"), len(part))

    if scoring.kind == "causal":
        values = _in_parts(trees, lambda part: model.branch_sums(TreeBatch(part, model.model.device))[0], model)
    else:
        values = _in_parts(written, written_sums, model)
    sums: Floats = np.bincount(owners, values, minlength=len(texts)).astype(np.float64)
    return sums


def _continued(text: Ids, scoring: Scoring, end: int) -> list[Example]:
    """A text in halves of a segment: the encoder reads the half before, the decoder writes the next."""
    half = max(1, (scoring.length or len(text)) // 2)
    ids = np.asarray(text, np.int32)
    made = []
    for start in range(1, len(ids), half):
        window = ids[max(0, start - half) : start + half]
        inputs, targets = render_prefix(Ragged.of([window]), np.array([min(start, half)]), end)
        read = np.concatenate([np.asarray(scoring.front, np.int32), inputs.values]).astype(np.int32)
        made.append(Example({"input_ids": read, "targets": targets.values.astype(np.int32)}))
    return made


def _is_last(batch: SequenceBatch) -> Tensor:
    """Which scored target is the last of its row."""
    rows = batch.rows_of("targets")
    return torch.cat([rows[1:] != rows[:-1], torch.ones_like(rows[:1], dtype=torch.bool)])


def _cut(text: Ids, length: int | None) -> list[Ids]:
    size = length or max(1, len(text))
    return [text[i : i + size] for i in range(0, len(text), size)]


def _shifted(ids: NDArray[np.int32], place: int, front: Sequence[int], mask: int) -> Example:
    """A text that a decoder reads in both directions, labelled where it predicts the masked token: one earlier."""
    inputs = np.concatenate([np.asarray(front, np.int32), ids])
    labels = np.full(len(inputs), IGNORED, np.int32)
    at = len(front) + place
    inputs[at], labels[at - 1] = mask, ids[place]
    columns = {"lengths": np.array([len(inputs)]), "bidirectional": np.bool_(True)}
    return Example({"input_ids": inputs, "labels": labels}, columns)


def _in_place(ids: NDArray[np.int32], place: int, front: Sequence[int], masked_end: Sequence[int]) -> Example:
    """A text between the tokenizer's special tokens, labelled at its masked token."""
    mask, *back = masked_end
    inputs = np.concatenate([np.asarray(front, np.int32), ids, np.asarray(back, np.int32)])
    labels = np.full(len(inputs), IGNORED, np.int32)
    inputs[len(front) + place], labels[len(front) + place] = mask, ids[place]
    return Example({"input_ids": inputs, "labels": labels})


def _gap(ids: NDArray[np.int32], place: int, front: Sequence[int], sentinel: NDArray[np.int64], end: int) -> Example:
    """A text with a sentinel in place of a token; the targets are the sentinel and the token."""
    noise = np.arange(len(ids)) == place
    inputs, targets = render_spans(Ragged.of([ids]), noise, sentinel, end)
    read = np.concatenate([np.asarray(front, np.int32), inputs.values]).astype(np.int32)
    return Example({"input_ids": read, "targets": targets.values[:2].astype(np.int32)})


def _of_labels(model: Scored, part: Sequence[Example]) -> Tensor:
    if isinstance(model, LanguageModel):
        batch: Any = SegmentBatch(part, model.model.device)  # which has what a language model reads of one
        return model.logps(batch)
    return model.logps(SequenceBatch(part, device=model.model.device))


def _of_targets(model: Any, part: Sequence[Example]) -> Tensor:
    values: Tensor = model.logps(SequenceBatch(part, device=model.model.device))
    return values


def _in_parts(examples: Sequence[T], values: Callable[[Sequence[T]], Tensor], model: Scored) -> Floats:
    """One value an example, computed on neighbours in length, without gradients."""
    found = np.empty(len(examples))
    with evaluation(model.model):
        for part in neighbours([example.size for example in examples], POSITIONS):
            found[part] = values([examples[i] for i in part]).double().cpu().numpy()
    return found
