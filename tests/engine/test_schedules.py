"""The schedule that transformers lacks, against the one of its that it is made of."""

from __future__ import annotations

import pytest
import torch
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from teloi.engine.config import SCHEDULES
from teloi.engine.schedules import cosine_with_cooldown, schedule


def test_a_cosine_that_cools_down() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = get_cosine_with_min_lr_schedule_with_warmup(optimizer, 4, 50, min_lr_rate=0.1).lr_lambdas[0]
    rates = [cosine_with_cooldown(step, 4, 5, 50) for step in range(51)]
    assert rates[:45] == pytest.approx([cosine(step) for step in range(45)])
    assert rates[45:] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02, 0.0])
    assert schedule("cosine_with_cooldown", 4, 50)(20.5) == cosine_with_cooldown(20.5, 4, 4, 50)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (1, 3), (5, 50)])
def test_every_schedule_says_a_share_of_the_peak_amid_each_step(name, warmup, total) -> None:
    rate = schedule(name, warmup, total)
    assert all(0 <= rate(step + 0.5) <= 1 for step in range(total))
