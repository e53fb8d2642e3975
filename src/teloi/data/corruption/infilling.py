"""Text infilling and the noise on top of it: a span becomes one mask, neighbours change places, tokens are replaced.

Sources: Lewis et al. 2020 (BART), section 2.2; Zhong et al. 2023 (E2S2). Official code: WHU-ZQH/E2S2.
"""

from __future__ import annotations

import math

import numpy as np

from teloi.data.corruption.ragged import Array, Bools, Ints
from teloi.errors import UsageError

UNTOUCHED, SHUFFLED, REPLACED = range(3)
"""Labels of `noise_labels`."""


def infilling_spans(length: int, rate: float, mean_span: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Spans to mask of `length` words: where each starts, ascending, and how many words it has; [s] each.

    N = min(ceil(rate length), length - 1) words are masked, in spans whose lengths are drawn from a Poisson
    distribution until they sum to N; the last is cut to fit. A span of length 0 stands between two words, where a mask
    is inserted. There are at most N spans in all, so that no text grows. Their places are uniform over all ways to put
    them between the kept words; they do not overlap.

    Errors: UsageError for values out of range.
    """
    if not 0 < rate < 1:
        raise UsageError(f"the corruption rate must be above 0 and below 1, got {rate}")
    if mean_span <= 0:
        raise UsageError(f"the mean span length must be above 0, got {mean_span}")
    noise = min(math.ceil(rate * length), length - 1)
    drawn = np.zeros(0, np.int64)
    while drawn.sum() < noise:
        drawn = np.append(drawn, rng.poisson(mean_span, noise))
    upto = np.cumsum(drawn)
    drawn = drawn[: int(np.searchsorted(upto, noise)) + 1] if noise else drawn
    widths = drawn[drawn > 0]
    widths[-1:] -= widths.sum() - noise
    inserted = min(int(np.count_nonzero(drawn == 0)), noise - len(widths))
    widths = rng.permutation(np.append(widths, np.zeros(inserted, np.int64)))
    # Kept words and spans in a row; any of these places may be the spans'.
    places = np.sort(rng.choice(length - noise + len(widths), len(widths), replace=False))
    return places - np.arange(len(widths)) + np.cumsum(widths) - widths, widths


def spans_of_tokens(starts: Ints, widths: Ints, begins: Bools) -> tuple[Ints, Ints]:
    """Spans of words as spans of tokens. `begins` [t]: which tokens begin a word; the first always does."""
    edges = np.append(word_edges(begins), len(begins))
    return edges[starts], edges[starts + widths] - edges[starts]


def word_edges(begins: Bools) -> Ints:
    """The first token of each word [words]."""
    return np.flatnonzero(np.append(True, begins[1:]))


def render_infilling(ids: Array, starts: Ints, widths: Ints, mask_id: int) -> Array:
    """`ids` [t] with one mask for each span, however long: [t - sum of widths + spans]."""
    kept = np.ones(len(ids), bool)
    kept[np.repeat(starts - np.cumsum(widths) + widths, widths) + np.arange(widths.sum())] = False
    return np.insert(ids[kept], starts - np.cumsum(widths) + widths, mask_id)


def shuffled_order(
    begins: Bools, eligible: Bools, share: float, rng: np.random.Generator, *, window: int = 18, most: int = 26
) -> Ints:
    """An order [t] of tokens in which some trigrams are permuted: `ids[order]` is the shuffled text.

    The centre of a trigram is a word of one token, drawn from those of a window of so many words whose neighbours are
    eligible too; at most min(most, max(1, round(share t))) windows have one, drawn at random. A permutation may be
    the identity.

    Args:
        begins: which tokens begin a word [t].
        eligible: False for special tokens and masks, which keep their places [t].
        share: of the tokens, that may be a centre.
    """
    single = begins & np.append(begins[1:], True) & eligible
    single[[0, -1]] = False
    single[1:-1] &= eligible[:-2] & eligible[2:]
    centres = np.flatnonzero(single)
    windows = (np.cumsum(begins)[centres] - 1) // window
    limit = min(most, max(1, round(share * len(begins))))
    order = np.arange(len(begins))
    for chosen in rng.permutation(np.unique(windows))[:limit]:
        centre = rng.choice(centres[windows == chosen])
        order[centre - 1 : centre + 2] = rng.permutation(order[centre - 1 : centre + 2])
    return order


def draw_share(eligible: Bools, share: float, rng: np.random.Generator) -> Bools:
    """ceil(share t) of the t positions, as far as there are eligible ones: a fixed number, their places at random."""
    places = np.flatnonzero(eligible)
    drawn = np.zeros(len(eligible), bool)
    drawn[rng.choice(places, min(math.ceil(share * len(eligible)), len(places)), replace=False)] = True
    return drawn


def noise_labels(source: Array, shuffled: Array, drawn: Bools) -> Ints:
    """What was done to each token [t]: SHUFFLED where shuffling changed it, else REPLACED where it was drawn for random
    replacement (also where the draw gives the same token), else UNTOUCHED.

    Source: Zhong et al. 2023 (E2S2), the local objective of the encoder.
    """
    return np.where(source != shuffled, SHUFFLED, np.where(drawn, REPLACED, UNTOUCHED)).astype(np.int64)
