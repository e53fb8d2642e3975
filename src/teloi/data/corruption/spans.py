"""Span corruption and prefix language modelling: a sequence becomes an input and a target.

One rule is behind T5's objective and all of UL2's denoisers but the prefix ones: of L tokens a fixed number is noise,
in a fixed number of spans, and only where the spans lie is random.

Sources: Raffel et al. 2020 (T5), section 3.1.4; Tay et al. 2023 (UL2), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from teloi.data.corruption.ragged import Array, Bools, Ints, Ragged
from teloi.errors import UsageError

Split = float | Literal["uniform"]
Streams = np.random.Generator | Sequence[np.random.Generator]
"""Where draws come from: one stream for all sequences, or one for each, so that what is drawn for a sequence does not
depend on the others."""


def span_counts(lengths: ArrayLike, density: ArrayLike, mean_span: ArrayLike) -> tuple[Ints, Ints]:
    """Noise tokens N and noise spans K of sequences of `lengths` [b].

        N = clip(round(L density), 1, L - 1),  K = clip(round(N / mean_span), 1, min(N, L - N))

    Args:
        lengths: tokens of each sequence, at least 1; a single token cannot be split: N = K = 0.
        density: share of noise, above 0 and below 1; one for all or one for each.
        mean_span: tokens of a noise span, at least 1; one for all or one for each.

    Returns:
        N and K, [b] each. Halves are rounded to even. (T5's code lacks the upper limit of K, which bites only where
        more spans are asked for than there are kept tokens to part them.)

    Errors: UsageError for values out of range.
    """
    n, share, mean = np.broadcast_arrays(np.asarray(lengths, np.int64), density, mean_span)
    if n.size and n.min() < 1:
        raise UsageError("a sequence without tokens cannot be corrupted")
    _check_rates(share, mean)
    noise = np.minimum(np.maximum(np.round(n * share), 1), n - 1).astype(np.int64)
    spans = np.maximum(np.round(noise / mean), 1).astype(np.int64)
    return noise, np.minimum(spans, np.minimum(noise, n - noise))


def span_mask(
    lengths: ArrayLike, density: ArrayLike, mean_span: ArrayLike, rng: Streams, *, roll: bool = False
) -> Bools:
    """Random noise masks of sequences of `lengths` [b], end to end [sum of lengths]; True is noise.

    The N noise tokens are split into K spans, uniformly over all ways to do so, and the kept tokens likewise; spans
    alternate, so that a sequence begins with kept and ends with noise tokens (of one token, it is kept).

    Args:
        lengths, density, mean_span: as in `span_counts`.
        roll: shift each mask by a random offset, round the end. With one long span the noise is otherwise always the
            tail. A span that wraps becomes two, so inputs and targets may be one token longer.

    Errors: UsageError for values out of range.
    """
    sizes = np.asarray(lengths, np.int64)
    span_counts(sizes, density, mean_span)  # the checks
    inner = np.maximum(sizes, 2)
    noise, spans = span_counts(inner, density, mean_span)
    runs = np.stack([_compositions(inner - noise, spans, rng), _compositions(noise, spans, rng)], axis=1).ravel()
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    if (sizes == 1).any():
        places = np.cumsum(inner) - 1
        mask = np.delete(mask, places[sizes == 1])
    if roll:
        whole = Ragged(mask, sizes)
        offsets = _integers(rng, 0, sizes)
        inside = np.arange(len(mask)) - whole.starts[whole.owners] - offsets[whole.owners]
        mask = mask[whole.starts[whole.owners] + inside % sizes[whole.owners]]
    return mask


def uniform_spans(
    length: int, density: float, longest: int, rng: np.random.Generator, most: int | None = None
) -> tuple[Ints, Ints]:
    """Spans to mask of `length` words: where each starts, ascending, and how many words it has; [s] each.

    Lengths are drawn with equal chances from 1 to `longest` until they add up to N = clip(round(L density), 1, L - 1);
    the last is cut to fit. Their places are uniform over all ways to put them so that no two touch; what finds no place
    so, and what exceeds `most` spans, is left out. Of a single word nothing is masked.

    Source: Wang et al. 2023 (CodeT5+), section 3.2: 15% of the tokens, lengths of mean 3, before words are split.
    Errors: UsageError for values out of range.
    """
    _check_rates(np.asarray(density), np.asarray(longest))
    noise = min(max(round(length * density), 1), length - 1)
    widths = rng.integers(1, longest + 1, max(noise, 0))
    widths = widths[: int(np.searchsorted(np.cumsum(widths), noise)) + 1] if noise > 0 else widths
    widths[-1:] -= widths.sum() - max(noise, 0)
    kept = length - max(noise, 0)
    widths = rng.permutation(widths[: min(kept + 1, len(widths) if most is None else most)])
    gaps = np.sort(rng.choice(length - widths.sum() + 1, len(widths), replace=False))
    return gaps + np.cumsum(widths) - widths, widths


def sentinels(vocabulary: int, count: int = 100) -> Ints:
    """T5's sentinel ids in the order of their use: they run down from the last id of the vocabulary."""
    return np.arange(vocabulary - 1, vocabulary - 1 - count, -1)


def render_spans(tokens: Ragged, mask: Bools, sentinels: ArrayLike, eos: int | None) -> tuple[Ragged, Ragged]:
    """Inputs and targets of span corruption.

    The k-th noise span of a sequence becomes the k-th sentinel in its input; its target is, span by span, the
    sentinel and the span's tokens. Both end with `eos` unless it is None; the target has no closing sentinel.

    Args:
        tokens: the sequences.
        mask: which tokens are noise, end to end [total].
        sentinels: their ids in the order of use.

    Errors: UsageError where a sequence has more noise spans than there are sentinels.
    """
    ids = np.asarray(sentinels)
    opens = np.zeros(len(mask), bool)
    opens[tokens.starts[tokens.lengths > 0]] = True
    opens[1:] |= ~mask[:-1]
    first = mask & opens
    owners = tokens.owners[first]
    spans = np.bincount(owners, minlength=len(tokens))
    if spans.max(initial=0) > len(ids):
        raise UsageError(
            f"a sequence of {tokens.lengths[spans.argmax()]} tokens has {spans.max()} noise spans, but the vocabulary "
            f"has {len(ids)} sentinels; shorten the sequences, lower the density or add sentinels"
        )
    names = ids[np.arange(len(owners)) - (np.cumsum(spans) - spans)[owners]]

    marked = tokens.values.copy()
    marked[first] = names
    inputs = Ragged(marked, tokens.lengths).select(first | ~mask)

    noise = tokens.select(mask)
    targets = Ragged(np.insert(noise.values, np.flatnonzero(first[mask]), names), noise.lengths + spans)
    return (inputs, targets) if eos is None else (inputs.append(eos), targets.append(eos))


def segment_lengths(inputs_length: int, density: float, mean_span: float) -> tuple[int, int]:
    """How many raw tokens to cut so that the corrupted input has `inputs_length`, and the target's length then.

    The largest T with (T - N) + K + 1 <= inputs_length for N = round(T density) and K = round(N / mean_span), the 1
    being the end of sequence; the target has N + K + 1. At density 0.5, T - 1 where the target would be longer than
    the input. T5's arithmetic, kept as it is: it does not know that at least one span is drawn, so where it counts
    none (few noise tokens, long spans) the real input is one token longer. A mode token takes one more place.

    Source: T5's random_spans_helper.
    Errors: UsageError for values out of range.
    """
    _check_rates(np.asarray(density), np.asarray(mean_span))
    if inputs_length < 1:
        raise UsageError(f"an input needs at least one token, got a length of {inputs_length}")

    def corrupted(raw: int) -> tuple[int, int]:
        noise = round(raw * density)
        spans = round(noise / mean_span)
        return raw - noise + spans + 1, noise + spans + 1

    raw = inputs_length
    while corrupted(raw + 1)[0] <= inputs_length:
        raw += 1
    length, target = corrupted(raw)
    if density == 0.5 and target > length:
        return raw - 1, target - 1
    return raw, target


def prefix_lengths(lengths: ArrayLike, suffix: Split, rng: Streams) -> Ints:
    """Where prefix language modelling splits sequences of `lengths` [b]: the number of tokens in each prefix.

    Args:
        lengths: at least 2 each.
        suffix: the share of the tail that becomes the target, rounded, at least one token and not all (UL2's table:
            0.25), or "uniform": the prefix has 1 to L - 1 tokens with equal chances (UL2's code, T5's prefix_lm).

    Errors: UsageError for a share out of range and for a sequence that is too short.
    """
    sizes = np.asarray(lengths, np.int64)
    if sizes.size and sizes.min() < 2:
        raise UsageError("a sequence of fewer than two tokens has no prefix and suffix")
    if suffix == "uniform":
        return _integers(rng, 1, sizes)
    if not 0 < suffix < 1:
        raise UsageError(f"the suffix's share must be above 0 and below 1, got {suffix}")
    return sizes - np.clip(np.round(sizes * suffix), 1, sizes - 1).astype(np.int64)


def render_prefix(tokens: Ragged, prefixes: Ints, eos: int | None) -> tuple[Ragged, Ragged]:
    """Inputs, the first `prefixes` [b] tokens of each sequence, and targets, the rest; both end with `eos` if any."""
    places = np.arange(len(tokens.values)) - tokens.starts[tokens.owners]
    before = places < prefixes[tokens.owners]
    inputs, targets = tokens.select(before), tokens.select(~before)
    return (inputs, targets) if eos is None else (inputs.append(eos), targets.append(eos))


def _compositions(totals: Ints, parts: Ints, rng: Streams) -> Array:
    """Each of `totals` [b] as a sum of `parts` [b] positive numbers, uniform over all such sums: [sum of parts]."""
    slots = totals - 1  # between neighbouring items; parts - 1 of them are cut
    owners = np.repeat(np.arange(len(slots)), slots)
    shuffled = np.argsort(owners + _random(rng, slots))
    ranks = np.arange(len(owners)) - (np.cumsum(slots) - slots)[owners]
    is_cut = np.zeros(len(owners), bool)
    is_cut[shuffled[ranks < parts[owners] - 1]] = True
    # An item ends its part where the slot behind it is cut, and at the end.
    ends = np.ones(totals.sum(), bool)
    inner = np.ones(len(ends), bool)
    inner[np.cumsum(totals) - 1] = False
    ends[inner] = is_cut
    return np.diff(np.flatnonzero(ends), prepend=-1)


def _random(rng: Streams, counts: Ints) -> Array:
    """Uniform numbers below 1, as many as `counts` [b] say for each sequence, end to end."""
    if isinstance(rng, np.random.Generator):
        return rng.random(int(counts.sum()))
    return np.concatenate([one.random(count) for one, count in zip(rng, counts, strict=True)])


def _integers(rng: Streams, low: int, high: Ints) -> Ints:
    """A number from `low` and below `high` [b] for each sequence."""
    if isinstance(rng, np.random.Generator):
        return rng.integers(low, high)
    found: Ints = np.array([one.integers(low, end) for one, end in zip(rng, high, strict=True)], np.int64)
    return found


def _check_rates(density: Array, mean_span: Array) -> None:
    for value in density[~((density > 0) & (density < 1))]:
        raise UsageError(f"the corruption rate must be above 0 and below 1, got {value}")
    for value in mean_span[~(mean_span >= 1)]:
        raise UsageError(f"the mean span length must be at least 1, got {value}")
