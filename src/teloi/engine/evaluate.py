"""The terms of an objective on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from teloi.engine.config import TrainConfig
from teloi.engine.objective import Now, Objective
from teloi.engine.plan import pack
from teloi.models.roles import Models, evaluation


def mean_terms(objective: Objective, models: Models, examples: Sequence[Any], config: TrainConfig) -> dict[str, float]:
    """Each term of the loss averaged over all examples as a training step would average it, and their weighted sum
    `loss`."""
    lengths = tuple(example.size for example in examples)
    everything = list(range(len(examples)))
    if objective.coupled:
        micros = [everything[i : i + config.batch_size] for i in range(0, len(everything), config.batch_size)]
    else:
        micros = pack(everything, lengths, config.micro_tokens, models.policy.layout)
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    device = next(models.policy.model.parameters()).device
    with evaluation(models.policy.model):
        for m, micro in enumerate(micros):
            now = Now(0, 1, seed=config.seed, micro=m)
            batch = objective.collate([examples[i] for i in micro], now, device)
            terms = objective.loss(models, batch, now)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term.values.sum())
                counts[name] = counts.get(name, 0) + batch.counts[term.per]
    means = {name: total / max(counts[name], 1) for name, total in sums.items()}
    return {"loss": sum(terms[name].weight * means[name] for name in means), **means}
