"""A linear probe: how much of a label can be read off a frozen model's states, whatever the model was trained for.

A text's vector is the mean of the last hidden states of its tokens; a pair's is [u, v, |u - v|, u * v] (Conneau et al.,
2017). On standardised vectors a multinomial logistic regression is fitted to convergence; of a few strengths of its L2
penalty the one is taken that does best on a fifth of the training rows. The model itself never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor

from teloi.batch.segments import SegmentBatch
from teloi.batch.sequence import Sequence as Example
from teloi.batch.sequence import SequenceBatch, neighbours
from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.processor import Processor
from teloi.data.vocabulary import begin_id, end_id
from teloi.losses.contrastive import mean_pool
from teloi.measure.likelihood import POSITIONS
from teloi.models.roles import LanguageModel, evaluation
from teloi.models.sequences import SentenceEncoder

Floats = NDArray[np.float64]

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""Strengths of the L2 penalty: added to the mean loss is half of it times the sum of the squared weights over the
number of rows."""
STEPS = 300
"""Most iterations of a fit (L-BFGS)."""
LONGEST = 128
"""Tokens of a text that are read."""


@dataclass(frozen=True)
class Labels:
    """A classification: texts, or pairs with `seconds`, and their classes."""

    texts: Sequence[str]
    classes: Sequence[str]
    seconds: Sequence[str] | None = None


def probe(
    model: Any, processor: Processor, training: Labels, test: Labels, both_ways: bool = False
) -> NDArray[np.bool_]:
    """Which test rows a linear probe on the model's states labels right. `both_ways`: a decoder that was trained to
    read in both directions is read so."""
    names = sorted(set(training.classes))
    number = {name: index for index, name in enumerate(names)}
    seen = vectors(model, processor, training, both_ways)
    unseen = vectors(model, processor, test, both_ways)
    said = fit_and_predict(seen, [number[name] for name in training.classes], unseen)
    return np.asarray([names[one] == name for one, name in zip(said.tolist(), test.classes, strict=True)])


def vectors(model: Any, processor: Processor, labels: Labels, both_ways: bool = False) -> Floats:
    """One vector a text, or a pair of texts: [n, d]."""
    first = mean_states(model, processor, labels.texts, both_ways)
    if labels.seconds is None:
        return first
    second = mean_states(model, processor, labels.seconds, both_ways)
    return np.concatenate([first, second, np.abs(first - second), first * second], axis=1)


def fit_and_predict(training: ArrayLike, classes: ArrayLike, test: ArrayLike) -> NDArray[np.int64]:
    """The class of each of `test` [m, d] by a logistic regression on `training` [n, d] with `classes` [n], numbers."""
    x, unseen = standardised(training, test)
    y = np.asarray(classes, np.int64)
    count = int(y.max()) + 1
    fifth = np.random.default_rng(0).permutation(len(x)) % 5 == 0

    def held_out_share(penalty: float) -> float:
        weights = fit(x[~fifth], y[~fifth], count, penalty)
        return float((logits(x[fifth], weights).argmax(1) == y[fifth]).mean())

    best = max(PENALTIES, key=held_out_share) if fifth.any() else 1.0
    return np.asarray(logits(unseen, fit(x, y, count, best)).argmax(1))


def standardised(training: ArrayLike, test: ArrayLike) -> tuple[Floats, Floats]:
    """Vectors [n d] and [m d] with each dimension scaled to mean 0 and deviation 1 over the training vectors."""
    x, unseen = np.asarray(training, np.float64), np.asarray(test, np.float64)
    mean, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-8, spread, 1.0)
    return (x - mean) / spread, (unseen - mean) / spread


def fit(x: Floats, y: NDArray[np.int64], classes: int, penalty: float) -> Floats:
    """Weights [d + 1, c] of a multinomial logistic regression, the last row the intercepts, which are not penalised.

    Minimises the sum of the cross-entropies plus penalty / 2 times the squared weights, as scikit-learn has it with
    C = 1 / penalty.
    """
    n, d = x.shape
    hot = np.eye(classes)[y]
    share = penalty / n

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(d + 1, classes)
        logs = log_softmax(logits(x, weights), axis=1)
        error = (np.exp(logs) - hot) / n
        gradient = np.concatenate([x.T @ error + share * weights[:-1], error.sum(0)[None]])
        return float(-(hot * logs).sum() / n + share / 2 * (weights[:-1] ** 2).sum()), gradient.ravel()

    start = np.zeros((d + 1) * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return np.asarray(found.x.reshape(d + 1, classes))


def logits(x: Floats, weights: Floats) -> Floats:
    """Of vectors [n d] under the weights that `fit` gives: [n c]."""
    return np.asarray(x @ weights[:-1] + weights[-1])


def mean_states(model: Any, processor: Processor, texts: Sequence[str], both_ways: bool = False) -> Floats:
    """Mean over a text's first tokens of the model's last hidden states, float64 [n, d]: of a causal model behind its
    begin token and up to its end token, of an encoder between its special tokens, of an encoder-decoder in its encoder.
    """
    ids = [processor.bare_ids(text)[:LONGEST] for text in texts]
    tokenizer = processor.tokenizer
    decoder = isinstance(model, LanguageModel)
    made: list[Any]
    if decoder and both_ways:
        made = [_both_ways([begin_id(tokenizer), *one]) for one in ids]
    elif decoder:
        begin = np.array([begin_id(tokenizer)], np.int32)
        made = [Tree(begin, (Branch.scored([*one, end_id(tokenizer)]),)) for one in ids]
    else:
        ends = [] if processor.sentence_ids([]) else [end_id(tokenizer)]
        made = [Example({"input_ids": np.asarray([*processor.sentence_ids(one), *ends], np.int32)}) for one in ids]
    found: list[Any] = [None] * len(made)
    with evaluation(model.model):
        for part in neighbours([example.size for example in made], POSITIONS):
            rows = [made[i] for i in part]
            means = _decoder_means(model, rows, both_ways) if decoder else _encoder_means(model, rows)
            for i, vector in zip(part, means.double().cpu().numpy(), strict=True):
                found[i] = vector
    return np.stack(found)


def _decoder_means(model: LanguageModel, rows: Sequence[Any], both_ways: bool) -> Tensor:
    # The hidden states that predict something: with the end token, those of the begin token and of all others.
    batch: Any
    if both_ways:
        batch = SegmentBatch(rows, model.model.device)
        owners = batch.row
    else:
        batch = TreeBatch(rows, model.model.device)
        owners = batch.branch
    states = model.hidden(batch).float()
    counts = torch.bincount(owners, minlength=len(rows)).clamp(min=1)
    sums = torch.zeros(len(rows), states.shape[1], device=states.device).index_add_(0, owners, states)
    return sums / counts[:, None]


def _encoder_means(model: Any, rows: Sequence[Example]) -> Tensor:
    batch = SequenceBatch(rows, device=model.model.device)
    if isinstance(model, SentenceEncoder):
        return model.embed(batch)
    reads = model.inner.get_encoder() if getattr(model, "seq2seq", False) else model.inner.base_model
    states = reads(input_ids=batch.ids["input_ids"], attention_mask=batch.mask["input_ids"]).last_hidden_state
    return mean_pool(states, batch.mask["input_ids"]).float()


def _both_ways(ids: Sequence[int]) -> Example:
    """A text that a decoder reads in both directions; every place has a label, so that all states are asked for."""
    inputs = np.asarray(ids, np.int32)
    columns = {"lengths": np.array([len(inputs)]), "bidirectional": np.bool_(True)}
    return Example({"input_ids": inputs, "labels": inputs}, columns)
