"""Corruption of single tokens in place: which positions, what stands there instead, and the labels.

Arrays have any shape, the last axis running along the sequence. `variant="official"` is what the code released with
Di Liello 2023 (lucadiliello/transformers-framework) does where that differs, down to the order in which it draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from teloi.data.corruption.ragged import Array, Bools, Ints
from teloi.errors import UsageError

IGNORED = -100  # the label of a position that is not learned from; also the word of a special token
Variant = Literal["paper", "official"]


def draw_positions(
    eligible: Bools,
    probability: float,
    rng: np.random.Generator,
    words: Array | None = None,
    variant: Variant = "paper",
) -> Bools:
    """Positions chosen independently of each other, each with `probability`; the same shape as `eligible`.

    Args:
        eligible: False for padding and special tokens, which are never chosen.
        probability: in [0, 1].
        words: the word of each token, neighbours with the same number being one word; then whole words are drawn,
            each with `probability`. Negative: no word, never chosen. "paper" takes all eligible tokens of a word, as
            whole-word masking says; "official" its first two.

    Errors: UsageError for a probability out of range.
    """
    if not 0 <= probability <= 1:
        raise UsageError(f"the probability of corruption must be from 0 to 1, got {probability}")
    if words is None:
        return _draw(eligible, probability, rng)
    eligible = eligible & (words >= 0)
    tail = np.zeros(words.shape, bool)
    tail[..., 1:] = (words[..., 1:] == words[..., :-1]) & (words[..., 1:] >= 0)
    drawn = _draw(eligible & ~tail, probability, rng)
    if variant == "official":
        drawn[..., 1:] |= drawn[..., :-1] & tail[..., 1:]
        return drawn
    heads = np.maximum.accumulate(np.where(tail, 0, np.arange(words.shape[-1])), axis=-1)
    return np.take_along_axis(drawn, heads, axis=-1) & eligible


def replaceable(vocabulary: int, special: Iterable[int]) -> Ints:
    """The ids below `vocabulary` that are not special: what may stand in for another token."""
    allowed = np.ones(vocabulary, bool)
    allowed[list(special)] = False
    return np.flatnonzero(allowed)


def substitute(
    ids: Array,
    chosen: Bools,
    replacements: int | Array,
    rng: np.random.Generator,
    *,
    distinct: bool = False,
    variant: Variant = "paper",
) -> Array:
    """`ids` with the `chosen` tokens replaced by uniformly drawn ones (random token substitution).

    Args:
        replacements: the ids to draw from (see `replaceable`), or a number V for all of 0 ... V - 1.
        distinct: never draw the token that stands there. Otherwise a position can be chosen and yet not change.
        variant: "official" draws for every position from the whole vocabulary, special and original tokens included,
            and uses those that are chosen.

    Source: Di Liello et al. 2022 (RTS); as masked language modelling with the mix (0, 1, 0), SLM.
    Errors: UsageError where there is nothing to draw from.
    """
    pool = np.arange(replacements) if isinstance(replacements, int) else replacements
    if len(pool) < 1 + distinct:
        raise UsageError(f"{len(pool)} tokens to replace others by are too few")
    if variant == "official":
        return np.where(chosen, pool[rng.integers(len(pool), size=ids.shape)], ids).astype(ids.dtype)
    before = ids[chosen]
    after = pool[rng.integers(len(pool), size=len(before))]
    while distinct and len(same := np.flatnonzero(after == before)):
        after[same] = pool[rng.integers(len(pool), size=len(same))]
    corrupted = ids.copy()
    corrupted[chosen] = after
    return corrupted


def mask_tokens(
    ids: Array,
    chosen: Bools,
    mask_id: int,
    replacements: int | Array,
    rng: np.random.Generator,
    *,
    mix: tuple[float, float, float] = (0.8, 0.1, 0.1),
    variant: Variant = "paper",
) -> Array:
    """`ids` as a masked language model sees them: of the `chosen` tokens, shares become the mask, random, or stay.

    Args:
        mask_id: the id of the mask token.
        replacements, variant: as in `substitute`.
        mix: chances of mask, random and kept, of sum 1. (0, 1, 0) is the swapped language model (SLM).

    Source: Devlin et al. 2019 (BERT), section 3.1.
    Errors: UsageError for a mix that is none.
    """
    if min(mix) < 0 or not np.isclose(sum(mix), 1):
        raise UsageError(f"the shares of masked, random and kept tokens must sum to 1, got {mix}")
    if variant == "official":
        role = rng.choice(3, size=ids.shape, p=mix)
    else:
        role = np.full(ids.shape, 2)
        role[chosen] = np.searchsorted(np.cumsum(mix)[:2], rng.random(int(chosen.sum())), side="right")
    corrupted = substitute(ids, chosen & (role == 1), replacements, rng, variant=variant)
    corrupted[chosen & (role == 0)] = mask_id
    return corrupted


def recovery_labels(ids: Array, chosen: Bools) -> Ints:
    """The original id where `chosen`, -100 elsewhere: labels of masked and swapped language models."""
    return np.where(chosen, ids, IGNORED).astype(np.int64)


def detection_labels(
    chosen: Bools, padding: Bools | None = None, *, ids: Array | None = None, corrupted: Array | None = None
) -> Ints:
    """1 where a token was replaced, 0 elsewhere, -100 at `padding`: labels of replaced-token detection.

    A chosen position counts as replaced also where the draw equals the original, as in the official code; given
    `ids` and `corrupted`, only where the two differ. (The official code labels padding 0: leave out `padding`.)
    """
    replaced = chosen if ids is None or corrupted is None else chosen & (ids != corrupted)
    labels = replaced.astype(np.int64)
    if padding is not None:
        labels[padding] = IGNORED
    return labels


def _draw(eligible: Bools, probability: float, rng: np.random.Generator) -> Bools:
    drawn = np.zeros(eligible.shape, bool)
    # Above 1 - p, not below p: so NumPy's binomial(1, p) reads the same random numbers, and official draws repeat.
    drawn[eligible] = rng.random(int(eligible.sum())) > 1 - probability
    return drawn
