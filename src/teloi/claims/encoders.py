"""What claims about encoders share: scratch models and articles to pretrain them on, reviews to fine-tune on and to be
tested by.

A trial (`quick`) takes embedded rows instead, so that it needs no other data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from teloi.claims.claim import Run

if TYPE_CHECKING:
    from teloi.engine.config import TrainConfig
    from teloi.engine.objective import Architecture
    from teloi.engine.setup import Base

Rows = Sequence[Mapping[str, Any]]

ARTICLES, REVIEWS = "wiki100", "rt-polarity"
"""Wikipedia articles by paragraph; sentences of film reviews."""


def articles(run: Run) -> list[list[str]]:
    """Paragraphs of articles, in an order of the seed. DataError where the articles are not there."""
    from teloi.data.read import read

    rows = read("occupations" if run.quick else ARTICLES)
    ordered = [list(rows[i]["paragraphs"]) for i in run.rng("articles").permutation(len(rows))]
    return [paragraphs for paragraphs in ordered if paragraphs]


def texts(run: Run) -> list[dict[str, str]]:
    """The articles as rows of text."""
    return [{"text": "\n".join(paragraphs)} for paragraphs in articles(run)]


def reviews(run: Run, count: int) -> tuple[Rows, Rows]:
    """Rows of labelled-text: `count` to train on, drawn by the seed, and all test rows."""
    from teloi.data.read import read

    if run.quick:
        rows: Rows = [
            {"text": one.text_pair, "label": one.label, "split": "test" if number % 4 > 1 else "train"}
            for number, one in enumerate(stand_in("train", 80))
        ]
    else:
        rows = list(read(REVIEWS))
    training, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
    return [training[i] for i in run.rng("reviews").permutation(len(training))[:count]], test


def scratch_base(
    run: Run, size: str | tuple[int, int, int], vocabulary: int, architecture: Architecture, max_length: int
) -> Base:
    """The seed's model with random weights, with a tokenizer trained on the articles; longer inputs are cut."""
    import torch

    from teloi.engine.fit import as_base
    from teloi.models.scratch import scratch_model, train_tokenizer

    tokenizer = train_tokenizer([row["text"] for row in texts(run)], vocabulary, architecture)
    torch.manual_seed(run.seed)
    return as_base(scratch_model(size, tokenizer, architecture), tokenizer, architecture, max_length, None, "truncate")


def config(run: Run, learning_rate: float, steps: int | None = None, epochs: float = 1) -> TrainConfig:
    """So many steps or epochs in batches of 16; the rate rises over a tenth of them and then falls to 0."""
    from teloi.engine.config import TrainConfig

    return TrainConfig(
        batch_size=16,
        learning_rate=learning_rate,
        num_train_epochs=epochs,
        budget=f"{steps} steps" if steps else None,
        weight_decay=0.01,
        micro_tokens=8192,
        seed=run.seed,
    )


def stand_in(split: str, limit: int) -> list[Any]:
    """Embedded rows of labelled-text, judged answers, in place of a data set that a trial must not depend on."""
    from teloi.data.casts import as_format
    from teloi.data.formats import LabelledText
    from teloi.data.read import read

    return list(as_format(read("instructions", split, limit), LabelledText))


def fine_tuned_accuracy(classifier: Base, training: Rows, test: Rows, config: TrainConfig) -> float:
    """Share of the test rows whose label a classifier finds after fine-tuning on the training rows."""
    from teloi.engine.fit import fit
    from teloi.methods.finetune.classify import Classify
    from teloi.models.sequences import Classifier, class_logits

    tuned = fit(Classify(), classifier, training, config).base
    logits = class_logits(Classifier(tuned.model), tuned.processor, [row["text"] for row in test])
    names = tuned.model.config.id2label
    found = [names[number] for number in logits.argmax(-1).tolist()]
    return float(np.mean([name == row["label"] for name, row in zip(found, test, strict=True)]))
