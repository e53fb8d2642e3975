"""The claim's own parts; its run in seconds is in `test_quick`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from teloi.claims import grif
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.methods.represent.grif import Agent
from teloi.models.features import text_features
from teloi.models.zoo.task_policy import TaskPolicy
from teloi.worlds import tabletop


def one(arm: str, seed: int = 3) -> Run:
    return Run(arm, seed, True, Path())


def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Needs no fetched model."""
    monkeypatch.setenv("TELOI_CACHE", str(tmp_path / "cache"))
    result = run("teloi.claims.grif", Settings(quick=True, directory=tmp_path))
    assert result["verdict"] is None
    names = {metric["name"] for metric in result["metrics"]}
    assert all(arm["runs"][0]["metrics"].keys() == names for arm in result["arms"])
    assert not (tmp_path / "cache").exists()


def test_arms_differ_in_the_objective_alone():
    for first, *others in ([name for name, (_, n) in grif.ARMS.items() if n == count] for count in (20, 45, 90, 180)):
        rows = grif.demonstrations(one(first))
        assert [row["instruction"] is not None for row in rows] == [i < grif.ARMS[first][1] for i in range(len(rows))]
        assert all(grif.demonstrations(one(name)) == rows for name in others if name != grif.MIXED)
    assert grif.demonstrations(one("grif", seed=4)) != grif.demonstrations(one("grif"))


def test_mixed_up_instructions_keep_their_groups():
    """What is said and its group go together to another demonstration; states and actions stay."""
    mixed, rows = (grif.demonstrations(one(arm)) for arm in (grif.MIXED, "grif"))
    said = [sorted((row["instruction"], row["group"]) for row in some[:45]) for some in (mixed, rows)]
    assert said[0] == said[1]
    assert sum(row["group"] == row["task"] for row in mixed[:45]) < 12  # 3 by chance
    assert mixed[45:] == rows[45:]
    for a, b in zip(mixed, rows, strict=True):
        assert (a["states"], a["actions"], a["task"]) == (b["states"], b["actions"], b["task"])


def test_new_words_are_tried_in_the_same_episodes():
    seen, unseen = (tabletop.trials(30, 3, templates) for templates in (tabletop.SEEN, tabletop.UNSEEN))
    for a, b in zip((seen[0], seen[1], seen[3]), (unseen[0], unseen[1], unseen[3]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not set(seen[2]) & set(unseen[2])


class Knowing(TaskPolicy):
    """Its vector of an instruction or a change is that of its task, made wrong for the task `mistaken`."""

    mistaken = -1

    def told(self, tasks: list[int]) -> torch.Tensor:
        return torch.eye(len(tabletop.TASKS))[[0 if task == self.mistaken else task for task in tasks]]

    def goal(self, start, current, goal):
        """The block that moved most is in a region where it was not before."""
        blocks = (goal - start).reshape(-1, 3, 2).norm(dim=2).argmax(1)
        now, before = (self.regions(states, blocks) for states in (goal, start))
        return self.told((5 * blocks + (now & ~before).int().argmax(1)).tolist())

    def regions(self, states: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        tasks = 5 * blocks[:, None].numpy() + np.arange(5)
        return torch.tensor(np.stack([tabletop.inside(states.double().numpy(), each) for each in tasks.T], 1))

    def instruction(self, features):
        known = {
            text_features("hashed")(tabletop.instruction(task, words)).tobytes(): task
            for task in range(len(tabletop.TASKS))
            for words in tabletop.SEEN
        }
        return torch.eye(len(tabletop.TASKS))[[known[one.numpy().tobytes()] for one in features]]


def test_retrieval_is_the_share_of_changes_that_find_their_instruction():
    tasks, before, _, goals = tabletop.trials(150, 3)
    network = Knowing(6, 6, 384)
    agent = Agent(network, "hashed", 10.0)
    clear = grif.retrieval(agent, before, goals, tasks)
    assert clear > 0.97  # noise may carry a block over another region's edge
    network.mistaken = 7
    assert clear - grif.retrieval(agent, before, goals, tasks) == pytest.approx(1 / 15, abs=0.01)
