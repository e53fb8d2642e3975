"""The terms of an objective on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from teloi.engine.config import TrainConfig
from teloi.engine.examples import costs
from teloi.engine.objective import Now, Objective
from teloi.engine.plan import pack
from teloi.engine.processes import state
from teloi.models.roles import Models, evaluation


def mean_terms(objective: Objective, models: Models, examples: Sequence[Any], config: TrainConfig) -> dict[str, float]:
    """Each term of the loss averaged over all examples as a training step would average it, and their weighted sum
    `loss`.

    What an objective makes anew in each step (samples, corruption) is drawn once for each example here, by the run's
    seed: the same at every evaluation, but for what depends on the models. Of several processes, which must all ask,
    each computes a part of the batches.
    """
    world, gather = models.processes, models.gather
    rank = state().process_index if world > 1 else 0
    models = replace(models, processes=1, gather=lambda values: values)
    everything = list(range(len(examples)))
    if objective.coupled:
        micros = [everything[i : i + config.batch_size] for i in range(0, len(everything), config.batch_size)]
    else:
        micros = pack(everything, costs(objective, examples).tolist(), config.micro_tokens, models.layout)
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    with evaluation(*models.trained):
        # Who finds no batch left takes one in vain: all must know the terms.
        mine = range(rank, len(micros), world)
        for m in mine or [0]:
            micro = micros[m]
            now = Now(0, 1, seed=config.seed, micro=m, places=tuple(micro))
            made = objective.rollout(models, [examples[i] for i in micro], now)
            batch = objective.collate(made, now, models.device)
            terms = objective.loss(models, batch, now)
            for name, term in terms.items():
                count = term.per.sum() if isinstance(term.per, Tensor) else batch.counts[term.per]
                sums[name] = sums.get(name, 0.0) + (float(term.values.sum()) if mine else 0.0)
                counts[name] = counts.get(name, 0.0) + (float(count) if mine else 0.0)
    table = torch.tensor([[sums[name], counts[name]] for name in sums], dtype=torch.float64, device=models.device)
    totals = dict(zip(sums, gather(table[None]).sum(0).tolist(), strict=True))
    # Scored tokens may be none by chance; a metric without anything to average is left out.
    weights = {name: term.weight for name, term in terms.items()}
    means = {name: total / (count or 1) for name, (total, count) in totals.items() if count or weights[name]}
    return {"loss": sum(weights[name] * mean for name, mean in means.items()), **means}
