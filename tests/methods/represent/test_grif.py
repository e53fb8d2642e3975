"""GRIF: the alignment against its definition, what rows become, and that it learns to follow instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from teloi.data.formats import Trajectory
from teloi.data.read import Rows
from teloi.engine.config import TrainConfig
from teloi.engine.fit import fit
from teloi.engine.objective import Now
from teloi.engine.setup import load_base
from teloi.errors import DataError, RowError, UsageError
from teloi.methods.represent.grif import GRIF, Agent
from teloi.models.roles import Models
from teloi.worlds import tabletop
from tests.engine.conftest import tiny_processor

NOW = Now(0, 10, places=tuple(range(20)))


def encoded(objective: GRIF, rows: list[dict[str, Any]]) -> list[Any]:
    return [objective.encode(Trajectory.parse(row), tiny_processor("none")) for row in rows]


def terms(objective: GRIF, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], Any, Models]:
    examples = encoded(objective, rows)
    models = Models(None, example=examples[0])  # type: ignore[arg-type]
    torch.manual_seed(0)
    models.parts = objective.build(models)
    batch = objective.collate(examples, NOW, "cpu")
    return objective.loss(models, batch, NOW), batch, models


@pytest.mark.parametrize("positives", ["same", "own"])
def test_the_alignment_is_what_the_paper_says(positives) -> None:
    """The sheet's formula by loops: rows are changes, columns instructions, unlabelled changes only negatives."""
    found, batch, models = terms(GRIF(positives=positives, dropout=0.0), tabletop.demonstrations(20, 9, 0))
    network: Any = models.parts
    changes = network.goal(batch["start"], batch["state"], batch["goal"]).detach().numpy()
    words = network.instruction(batch["text"]).detach().numpy()
    logits = changes @ words.T / 0.07
    labelled, group = batch["labelled"].tolist(), batch["group"].tolist()
    for i in range(20):
        if not labelled[i]:
            assert found["alignment"].values[i] == 0
            continue
        right = [j for j in range(20) if j == i or (positives == "same" and labelled[j] and group[j] == group[i])]
        over_words = np.exp(logits[i, labelled]).sum()
        over_changes = np.exp(logits[:, i]).sum()
        by_row = -np.log(np.exp(logits[i, right]).sum() / over_words)
        by_column = -np.log(np.exp(logits[right, i]).sum() / over_changes)
        assert found["alignment"].values[i].item() == pytest.approx((by_row + by_column) / 2, rel=1e-4)


def test_a_row_is_a_moment_with_a_goal_from_its_future() -> None:
    rows = tabletop.demonstrations(20, 5, 0)
    for step in range(5):
        batch = GRIF().collate(encoded(GRIF(), rows), Now(step, 10, places=tuple(range(20))), "cpu")
        for i, row in enumerate(rows):
            states = np.asarray(row["states"], np.float32)
            at = int(np.abs(states - batch["state"][i].numpy()).sum(1).argmin())
            then = int(np.abs(states - batch["goal"][i].numpy()).sum(1).argmin())
            assert then == 12 if i < 5 else then > at
            np.testing.assert_allclose(batch["action"][i], 10 * np.asarray(row["actions"][at]), rtol=1e-5)
            np.testing.assert_array_equal(batch["start"][i], states[0])
    assert batch.counts == {"rows": 20, "labelled": 5}


def test_a_batch_without_an_instruction_has_no_loss_from_language() -> None:
    found, batch, models = terms(GRIF(), tabletop.demonstrations(6, 0, 0))
    assert batch.counts["labelled"] == 0
    loss = sum(term.weight * term.values.sum() for term in found.values())
    loss.backward()
    assert found["language"].values.sum().item() == found["alignment"].values.sum().item() == 0
    assert all(torch.isfinite(p.grad).all() for p in models.parts.parameters() if p.grad is not None)  # type: ignore[union-attr]


def test_quotas_follow_the_labels() -> None:
    quotas = GRIF(labelled_share=0.4).quotas(encoded(GRIF(), tabletop.demonstrations(6, 2, 0)))
    assert quotas.strata == [1, 1, 0, 0, 0, 0]
    assert quotas.shares == {1: 0.4, 0: 0.6}


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="no row has an instruction"):
        GRIF().prepare(encoded(GRIF(), tabletop.demonstrations(3, 0, 0)), 0)
    other = {"states": [[0.0], [1.0]], "actions": [[1.0]], "instruction": "go"}
    with pytest.raises(RowError, match="1 and 1 and 6 and 6 numbers"):
        GRIF().prepare(encoded(GRIF(), [*tabletop.demonstrations(3, 1, 0), other]), 0)
    for wrong in ({"alpha": -1.0}, {"goal": 0.0, "language": 0.0, "alpha": 0.0}, {"labelled_share": 0.0}):
        with pytest.raises(UsageError):
            GRIF(**wrong)  # type: ignore[arg-type]


def trained(objective: GRIF, steps: int) -> Agent:
    config = TrainConfig(model="none", batch_size=64, learning_rate=3e-3, max_steps=steps, num_train_epochs=1000)
    rows = Rows(tabletop.demonstrations(300, 150, 0), "tabletop")
    fitted = fit(objective, load_base(config, rows, "none"), rows, config)
    network: Any = fitted.models.parts
    return Agent(network.eval(), objective.text, objective.action_scale)


def test_it_learns_to_do_what_it_is_told(tmp_path) -> None:
    """After seconds of training, half described: far above the less than 1 in 100 of chance, with new words too."""
    agent = trained(GRIF(), 300)
    tasks, before, told, goals = tabletop.trials(150, 7)
    done = tabletop.success(before, tabletop.episode(agent.told(told), before), tasks).mean()
    shown = tabletop.success(before, tabletop.episode(agent.shown(before, goals), before), tasks).mean()
    assert done > 0.25
    assert shown > 0.25

    GRIF().export(Models(None, parts=agent.network), tmp_path)  # type: ignore[arg-type]
    again = Agent.load(tmp_path)
    np.testing.assert_array_equal(again.told(told)(before), agent.told(told)(before))
