"""UL2: Unifying Language Learning Paradigms (Tay et al., 2023).

The paper trains models on span corruption, on prefix language modelling and on its mixture of denoisers, and finds the
mixture at least as good as either on tasks that suit the one or the other. Here a T5 of 1.4M parameters, trained from
scratch on Wikipedia articles, is measured by its loss on held-out examples of each kind of denoising. What the paper
measures most, fine-tuned tasks, is not measured here: at this size no difference is to be expected.

A specialist may fail on the other's task in two ways: it has not learnt the form of the targets (sentinels, where they
end), or not to predict text from such inputs. The loss on all target tokens, which decides, holds both; that on the
text's own tokens, which is reported beside it, only the second.
"""

from __future__ import annotations

import codecs
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from teloi.claims.claim import Arm, Claim, Control, Expect, Outcome, Run
from teloi.measure.summary import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from teloi.batch.sequence import SequenceBatch
    from teloi.engine.setup import Base
    from teloi.methods.pretrain.denoise import UL2, Denoising

Losses = Callable[["SequenceBatch"], "NDArray[Any]"]

DATA = "wiki100"
HELD_OUT = 15
"""Articles that no arm is trained on."""

LEAST_WORDS = 8
"""Of a paragraph; shorter ones are headings and lead-ins."""

SIZE = (128, 4, 4)
"""Width, layers (two in each stack) and heads."""

VOCABULARY = 4000
LENGTH, LONG_SPAN, TAIL = 64, 16.0, 0.25
"""Tokens of a segment and of a long span; the tail's share of a segment in prefix language modelling."""

TASKS: Mapping[str, tuple[float, float, float]] = {"r": (1, 0, 0), "s": (0, 0, 1), "x": (0, 1, 0)}
"""The mixture (of R, X and S) that gives nothing but one of them."""

SPECIALISTS = ("span-corruption", "prefix-lm")


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    steps: int = 600
    steps_equal_time: int = 380
    segments: int = 500


FULL = Sizes()
QUICK = Sizes(3, 2, 20)


def sizes(run: Run) -> Sizes:
    """Those of a run for the record, or of one in seconds."""
    return QUICK if run.quick else FULL


def prepare(run: Run) -> None:
    """The specialists of a seed, which all arms are measured against."""
    found = {arm: trained(run, arm) for arm in SPECIALISTS}
    (run.directory / "specialists.json").write_text(json.dumps(found))


def measure(run: Run) -> Outcome:
    """Train an arm and test it; its excess is what the better specialist of each task has over it."""
    assert run.arm is not None
    specialists = json.loads((run.directory / "specialists.json").read_text())
    found = specialists[run.arm] if run.arm in specialists else trained(run, run.arm)
    lost = [found[task] - min(one[task] for one in specialists.values()) for task in ("r", "s")]
    return Outcome({"excess": float(np.mean(lost)), **found})


def trained(run: Run, arm: str) -> dict[str, float]:
    """The losses of an arm's model on held-out segments, and what its training cost."""
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import fit

    train, held_out = articles(run)
    base = start(run, train)
    free = {"target_tokens": 0, "seconds": 0}
    if arm == "untrained":
        return {**tested(run, base, held_out, model_losses(base), ()), **free}
    if arm == "token frequencies":
        found = tested(run, base, held_out, frequency_losses(base, train), ())
        return {**found, **dict.fromkeys(TASKS, math.nan), **free}  # they say nothing of sentinels and ends
    objective = objective_of(arm)
    steps = sizes(run).steps_equal_time if arm == "ul2, equal time" else sizes(run).steps
    rows = [{"text": codecs.encode(text, "rot13") if arm == "ul2 on a cipher" else text} for text in train]
    config = TrainConfig(
        budget=f"{steps} steps", batch_size=32, learning_rate=2e-3, micro_tokens=8192, max_length=128, seed=run.seed
    )
    began = time.process_time()
    fitted = fit(objective, base, rows, config)
    seconds = time.process_time() - began
    losses = tested(run, fitted.base, held_out, model_losses(fitted.base), objective.modes)
    return {**losses, "target_tokens": fitted.ledger.scored_tokens, "seconds": seconds}


def objective_of(arm: str) -> Denoising:
    """What an arm is trained with."""
    from teloi.methods.pretrain.denoise import PrefixLM, SpanCorruption

    match arm:
        case "span-corruption":
            return SpanCorruption(length=LENGTH)
        case "prefix-lm":
            return PrefixLM(length=LENGTH, s_split=TAIL)
        case "ul2, no mode tokens":
            return mixture(mode_tokens=())
    return mixture()


def mixture(**settings: Any) -> UL2:
    """UL2 on short segments."""
    from teloi.methods.pretrain.denoise import UL2

    return UL2(length=LENGTH, long_span=LONG_SPAN, s_split=TAIL, **settings)


def articles(run: Run) -> tuple[list[str], list[str]]:
    """Texts to train on and texts held out, drawn by the seed. DataError where the articles are not there."""
    from teloi.data.read import read

    kept = [[p for p in row["paragraphs"] if len(p.split()) >= LEAST_WORDS] for row in read(DATA)]
    texts = ["".join(f"{paragraph}\n" for paragraph in paragraphs) for paragraphs in kept if paragraphs]
    drawn = [texts[i] for i in run.rng("articles").permutation(len(texts))]
    return drawn[HELD_OUT:], drawn[:HELD_OUT]


def start(run: Run, texts: Sequence[str]) -> Base:
    """The scratch model of the seed, with a tokenizer trained on the texts."""
    import torch

    from teloi.engine.fit import as_base
    from teloi.models.scratch import scratch_model, train_tokenizer

    tokenizer = train_tokenizer(texts, VOCABULARY, "seq2seq")
    torch.manual_seed(run.seed)
    return as_base(scratch_model(SIZE, tokenizer, "seq2seq"), tokenizer, "seq2seq", max_length=128)


def tested(run: Run, base: Base, texts: Sequence[str], losses: Losses, modes: tuple[str, ...]) -> dict[str, float]:
    """Mean loss by task, over all target tokens and over those of the text; corruption is the same in every arm."""
    from teloi.data.vocabulary import ordinary_ids
    from teloi.engine.objective import Now
    from teloi.models.roles import Models

    segments = cut(base, texts)
    drawn = [segments[i] for i in run.rng("segments").permutation(len(segments))[: sizes(run).segments]]
    models, now = Models(base.model, processor=base.processor), Now(0, 1, seed=run.seed)
    metrics: dict[str, float] = {}
    for task, weights in TASKS.items():
        # R as T5 has it: the specialist's own task.
        spans = (3.0,) if task == "r" else (3.0, 8.0)
        objective = mixture(mixture=weights, short_spans=spans, mode_tokens=modes)
        made = objective.rollout(models, drawn, now)
        batches = [objective.collate(made[first : first + 100], now, "cpu") for first in range(0, len(made), 100)]
        found = np.concatenate([losses(batch) for batch in batches])
        targets = np.concatenate([one.ids["targets"] for one in made])
        text = np.isin(targets, ordinary_ids(base.processor.tokenizer))
        metrics |= {task: float(found.mean()), f"{task}_text": float(found[text].mean())}
    return metrics


def cut(base: Base, texts: Sequence[str]) -> Sequence[Any]:
    """Texts end to end in segments."""
    from teloi.data.read import Rows
    from teloi.engine.dataset import encode

    return encode(mixture(), Rows([{"text": text} for text in texts], DATA), base.processor).examples


def model_losses(base: Base) -> Losses:
    """The loss of each target token of a batch under a model."""
    from teloi.models.roles import evaluation
    from teloi.models.sequences import ScoredModel

    def losses(batch: SequenceBatch) -> NDArray[Any]:
        with evaluation(base.model):
            return np.asarray(-ScoredModel(base.model).logps(batch))

    return losses


def frequency_losses(base: Base, texts: Sequence[str]) -> Losses:
    """The loss of each target token of a batch by nothing but its frequency in texts, one added to every count."""
    counts = np.ones(len(base.processor.tokenizer))
    for segment in cut(base, texts):
        np.add.at(counts, segment.ids["input_ids"], 1)
    losses = -np.log(counts / counts.sum())
    return lambda batch: losses[np.concatenate([one.ids["targets"] for one in batch.sequences])]


CLAIM = Claim(
    slug="ul2",
    statement=(
        "One model trained on UL2's mixture of denoisers is close to each specialist on the specialist's own task, "
        "where the other specialist fails."
    ),
    setting=(
        "100 Wikipedia articles (wiki100), 15 of them held out; scratch T5 (2 + 2 layers, width 128, no dropout, 1.4M "
        "parameters), BPE of 4000 tokens trained on the training articles. 600 steps of 32 segments of 64 tokens, "
        "AdamW at 2e-3 (warm-up over a tenth, then linearly to 0). Mixture: the paper's seven denoisers with "
        "equal chances, long spans of 16 instead of 64 tokens, S with a tail of a quarter, as in the prefix-lm arm. "
        "Tested on 500 held-out segments for each of R (T5's: 15%, spans of 3), S (a tail of a quarter) and X. Every "
        "seed redraws the split, the tokenizer, the model and all corruption."
    ),
    metrics=(
        Metric(
            *("excess", "excess loss on R and S", "lower", "nats", True),
            about="mean over R and S of an arm's loss less the lower one of the two specialists' of the same seed",
            resolution=0.01,
        ),
        *(
            Metric(
                *(task, f"loss on {task.upper()}", "lower", "nats"),
                about="mean cross-entropy of the target tokens of held-out segments, sentinels and end included",
                resolution=0.01,
            )
            for task in TASKS
        ),
        *(
            Metric(
                *(f"{task}_text", f"loss on {task.upper()}'s text", "lower", "nats"),
                about="the same without sentinels and end: tokens of the text only",
                resolution=0.01,
            )
            for task in TASKS
        ),
        Metric("target_tokens", "target tokens trained on"),
        Metric("seconds", "CPU seconds of training", unit="s"),
    ),
    arms=(
        Arm("untrained", "the scratch model as it starts"),
        Arm("token frequencies", "no model: each text token by its frequency in the training articles"),
        Arm("span-corruption", "R only: T5's span corruption"),
        Arm("prefix-lm", "S only: the last quarter of a segment given the rest"),
        Arm("ul2", "the mixture with mode tokens; tested with the task's own"),
        Arm("ul2, no mode tokens", "the mixture without"),
        Arm("ul2, equal time", "the mixture for 380 steps, which take about the time of a specialist's 600"),
        Arm("ul2 on a cipher", "negative control: the mixture on the articles in ROT13, so that only form is learnt"),
    ),
    expectations=(
        *(Expect("excess", "ul2", arm, 0.0) for arm in SPECIALISTS),
        Expect("s", "ul2", "span-corruption", 0.5),
        Expect("r", "ul2", "prefix-lm", 0.7),
        Expect("r", "ul2", "span-corruption", 0.3, "noninferior"),
        Expect("s", "ul2", "prefix-lm", 0.3, "noninferior"),
        # At equal time instead of equal examples.
        *(Expect("excess", "ul2, equal time", arm, 0.0, decides=False) for arm in SPECIALISTS),
        Expect("r", "ul2, equal time", "span-corruption", 0.3, "noninferior", decides=False),
        Expect("s", "ul2, equal time", "prefix-lm", 0.3, "noninferior", decides=False),
        # What mode tokens add, and how much of the above is text and not form.
        Expect("excess", "ul2", "ul2, no mode tokens", 0.05, decides=False),
        Expect("s_text", "ul2", "span-corruption", 0.5, decides=False),
        Expect("r_text", "ul2", "prefix-lm", 0.7, decides=False),
        *(Expect(task, "ul2", "token frequencies", 0.1, decides=False) for task in ("r_text", "s_text")),
        *(Expect("x", "ul2", arm, 0.5, decides=False) for arm in SPECIALISTS),
    ),
    controls=(
        Control(
            "what knows the form but not the text is not close to span-corruption on R",
            Expect("r", "ul2 on a cipher", "span-corruption", 0.3, "noninferior"),
        ),
        Control(
            "what knows the form but not the text is not close to prefix-lm on S",
            Expect("s", "ul2 on a cipher", "prefix-lm", 0.3, "noninferior"),
        ),
    ),
    # In a pilot with another seed the differences asked for were 0.8 to 2.5 nats, so three seeds suffice.
    seeds=(0, 1, 2),
    run=measure,
    prepare=prepare,
    methods=("span-corruption", "prefix-lm", "ul2"),
    real_text="Wikipedia",
)
