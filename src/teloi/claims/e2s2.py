"""E2S2: Encoding-Enhanced Sequence-to-Sequence Pretraining (Zhong et al., 2023).

The paper adds two losses on the encoder to infilling, one that finds shuffled and replaced tokens and one that tells
texts apart, and finds the encoder better at understanding. Here a small T5 is pretrained from scratch on Wikipedia
articles with none, one or both of them, and its frozen encoder is probed: for the part of speech of words in the Brown
corpus, for the sentiment of reviews, and by the cosine of sentences whose relatedness people have judged (SICK). Every
arm sees each text twice in a step, infilling as two infilled views, so that all cost the same. Whether a text was
shuffled is no probe: it is what the first loss trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from teloi.claims.claim import Arm, Check, Claim, Expect, Outcome, Run
from teloi.claims.encoders import config, reviews, scratch_base, stand_in, texts
from teloi.measure.summary import Metric
from teloi.methods.pretrain.infill import E2S2, Infilling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from teloi.batch.sequence import Sequence as Example
    from teloi.engine.fit import Fitted
    from teloi.engine.objective import Now
    from teloi.engine.setup import Base
    from teloi.models.roles import Models

    Vectors = list[NDArray[np.float32]]

SIZE = (64, 4, 4)
"""Width, layers (two in each stack) and heads."""

LENGTH, LONGEST = 62, 128
"""Tokens of a text in pretraining, and the most of one that is probed."""

RATE, TEMPERATURE = 2e-3, 0.1
FLOOR = "no pretraining"


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    vocabulary: int = 2000
    steps: int = 250
    tagged: tuple[int, int] = (20_000, 5_000)
    """Words of the Brown corpus to fit the probe on and to test it."""
    reviews: int = 2000


FULL = Sizes()
QUICK = Sizes(500, 2, (60, 30), 20)


@dataclass(frozen=True)
class TwoInfillings(Infilling):
    """Infilling of two views of each text, which costs what E2S2 does."""

    def cost(self, example: Example) -> int:
        return 2 * super().cost(example)

    def rollout(self, models: Models, examples: Sequence[Example], now: Now) -> list[Example]:
        assert models.processor is not None
        made = []
        for i, row in enumerate(super().rollout(models, examples, now)):
            again = self.masked(examples[i], models.processor, now.rng("second view", i))
            made += [row, replace(row, ids={**row.ids, "input_ids": again})]
        return made


OBJECTIVES: dict[str, Infilling] = {
    "infilling": TwoInfillings(length=LENGTH),
    "with noise": E2S2(length=LENGTH, contrast_weight=0.0),
    "e2s2": E2S2(length=LENGTH, temperature=TEMPERATURE),
}


def measure(run: Run) -> Outcome:
    """Pretrain an arm's model, then probe its encoder."""
    from teloi.engine.fit import fit

    sizes, metrics = QUICK if run.quick else FULL, {}
    base = scratch_base(run, SIZE, sizes.vocabulary, "seq2seq", LONGEST)
    if (objective := OBJECTIVES.get(run.arm or "")) is not None:
        fitted = fit(objective, base, texts(run), config(run, RATE, sizes.steps))
        base = fitted.base
        if isinstance(objective, E2S2):
            metrics = {"explained": explained(run, objective, fitted)}
    return Outcome(
        {**metrics, "pos": tagging(run, base), "reviews": sentiment(run, base), "sick": relatedness(run, base)}
    )


def explained(run: Run, objective: E2S2, fitted: Fitted) -> float:
    """By which share the loss of the encoder's head is below that of knowing only how many tokens are of each kind."""
    import torch
    from torch.nn.functional import cross_entropy

    from teloi.data.read import Rows
    from teloi.engine.dataset import encode
    from teloi.engine.objective import Now
    from teloi.models.roles import evaluation

    now, models, base = Now(0, 1, seed=run.seed), fitted.models, fitted.base
    policy: Any = models.policy
    parts: Any = models.parts
    examples = objective.prepare(
        encode(objective, Rows(texts(run)[:20], "articles"), base.processor).examples, run.seed
    )
    batch = objective.collate(objective.rollout(models, examples[:100], now), now, "cpu")
    with evaluation(policy.model), torch.no_grad():
        view = batch.columns["noised"]
        scored = batch.mask["input_ids"].bool() & view[:, None]
        labels, logits = batch.ids["noise"][scored], parts["noise"](policy.encoded(batch)[scored])
    shares = torch.bincount(labels, minlength=3) / len(labels)
    return 1 - float(cross_entropy(logits, labels) / torch.special.entr(shares).sum())


# -- probes


def states(base: Base, ids: Sequence[Sequence[int]]) -> Vectors:
    """States [t, d] of texts of token ids, each with the end token behind it, as in training."""
    from teloi.data.vocabulary import end_id
    from teloi.measure.probes import encoder_states
    from teloi.models.sequences import ScoredModel

    end, most = end_id(base.processor.tokenizer), base.processor.max_length - 1
    return encoder_states(ScoredModel(base.model), [[*one[:most], end] for one in ids])


def pooled(base: Base, sentences: Sequence[str]) -> NDArray[np.float32]:
    """Mean states of sentences, [n, d]."""
    return np.stack([one.mean(0) for one in states(base, [base.processor.bare_ids(text) for text in sentences])])


def tagging(run: Run, base: Base) -> float:
    """Share of words whose part of speech a linear probe tells from the mean of the states of their tokens."""
    from teloi.measure.probes import probe_accuracy

    sides: list[Any] = []
    for sentences, count in zip(tagged(run), (QUICK if run.quick else FULL).tagged, strict=True):
        pieces = [
            [base.processor.bare_ids(word if i == 0 else f" {word}") for i, word in enumerate(words)]
            for words, _ in sentences
        ]
        found = states(base, [[i for piece in one for i in piece] for one in pieces])
        vectors, tags = [], []
        for one, parts, (_, names) in zip(found, pieces, sentences, strict=True):
            starts = np.cumsum([0, *map(len, parts)])
            whole = [i for i in range(len(parts)) if starts[i + 1] < len(one)]  # the end of a long one is cut off
            vectors += [one[starts[i] : starts[i + 1]].mean(0) for i in whole]
            tags += [names[i] for i in whole]
        sides += [np.stack(vectors[:count]), tags[:count]]
    return probe_accuracy(*sides)


def tagged(run: Run) -> list[list[tuple[list[str], list[str]]]]:
    """Sentences to fit the probe on and sentences to test it, as words and their parts of speech."""
    from teloi.data.read import read

    if run.quick:  # whose tags are the lengths of words
        rows = [one.text_pair.split() for one in stand_in("train", 40) if one.text_pair]
        both = [(words, [str(min(len(word), 5)) for word in words]) for words in rows]
    else:
        both = [(row["w"].split(), row["t"].split()) for row in read("brown-pos")]
    drawn = [both[i] for i in run.rng("tagged").permutation(len(both))]
    return [drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]]


def sentiment(run: Run, base: Base) -> float:
    """Share of reviews whose sentiment a linear probe tells from the mean state."""
    from teloi.measure.probes import probe_accuracy

    sides: list[Any] = []
    for rows in reviews(run, (QUICK if run.quick else FULL).reviews):
        sides += [pooled(base, [row["text"] for row in rows]), [row["label"] for row in rows]]
    return probe_accuracy(*sides)


def relatedness(run: Run, base: Base) -> float:
    """Spearman's correlation of the cosine of two sentences with their judged relatedness."""
    from scipy.stats import spearmanr

    from teloi.data.read import read

    if run.quick:
        some = [one for one in stand_in("train", 30) if one.text_pair]
        rows: Any = [{"a": one.text, "b": one.text_pair, "relatedness": i} for i, one in enumerate(some)]
    else:
        rows = read("sick", "test")
    a, b = (pooled(base, [row[side] for row in rows]) for side in ("a", "b"))
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(spearmanr(cosines, [row["relatedness"] for row in rows]).statistic)


CLAIM = Claim(
    slug="e2s2",
    statement="At the same cost, two losses on the encoder make infilling's encoder better: finding shuffled and "
    "replaced tokens for what a word is, telling texts apart for what a sentence is about.",
    setting="T5 of width 64 with 2 + 2 layers from scratch, a BPE vocabulary of 2,000, on 100 Wikipedia articles: 250 "
    "steps of two views of 16 texts of 62 tokens, AdamW 2e-3, linear warm-up and decay. Weights of the encoder's "
    "losses 0.05 as in the paper; temperature 0.1, since at the released code's 1 cosines hardly move the loss. The "
    "encoder frozen: multinomial logistic regression for parts of speech on 20,000 words of the Brown corpus, tested "
    "on 5,000, and for sentiment on the mean states of 2,000 reviews (rt-polarity), tested on 2,000; cosines of mean "
    "states on the 4,927 test pairs of SICK, nothing trained. Fine-tuning, in which the paper gains about a point, is "
    "not measured. Every seed redraws the model, the order of texts, all corruption and what probes are fitted on.",
    metrics=(
        Metric(
            *("pos", "parts of speech", "higher", "share", True),
            about="accuracy of a linear probe on the mean state of a word's tokens",
            resolution=0.0002,
        ),
        Metric(
            *("sick", "SICK relatedness", "higher"),
            about="Spearman's correlation of the cosine of mean states with judged relatedness",
            resolution=0.002,
        ),
        Metric("reviews", "sentiment probe", "higher", "share", resolution=0.0005),
        Metric(
            *("explained", "noise found", "higher", "share"),
            about="by which share the loss of the encoder's head is below that of knowing only how many tokens are "
            "untouched, shuffled and replaced",
        ),
    ),
    arms=(
        Arm(FLOOR, "the model with its random weights"),
        Arm("infilling", "infilling of two views of each text"),
        Arm("with noise", "e2s2 without the contrast: its second view is also shuffled and replaced, and labelled so"),
        Arm("e2s2", "both losses"),
    ),
    expectations=(
        Expect("pos", "with noise", "infilling", 0.01),
        Expect("sick", "e2s2", "with noise", 0.03),
        *(Expect("pos", "e2s2", arm, 0.01, decides=False) for arm in ("infilling", FLOOR)),
        *(Expect("sick", "e2s2", arm, 0.03, decides=False) for arm in ("infilling", FLOOR)),
        *(Expect("reviews", "e2s2", arm, 0.0, decides=False) for arm in ("infilling", FLOOR)),
    ),
    checks=tuple(
        Check(f"{arm}: the encoder finds noise, loss 2% below the base rate's", "explained", arm, at_least=0.02)
        for arm in ("with noise", "e2s2")
    ),
    run=measure,
    methods=("infilling", "e2s2"),
    real_text="Wikipedia, Brown, rt-polarity, SICK",
)
