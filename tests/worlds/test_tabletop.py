"""The tabletop by its own rules: what counts as done, and that the scripted hand does it."""

from __future__ import annotations

import numpy as np
import pytest

from teloi.data.formats import Trajectory
from teloi.data.read import read
from teloi.worlds import tabletop
from teloi.worlds.tabletop import REGIONS, TASKS, demonstrations, episode, inside, instruction, starts, success, trials


@pytest.mark.parametrize(
    ("place", "regions"),
    [
        ((0.1, 0.5), {"left"}),
        ((0.9, 0.1), {"right", "bottom"}),
        ((0.5, 0.85), {"top"}),
        ((0.45, 0.55), {"middle"}),
        ((0.2, 0.5), set()),
        ((0.5, 0.61), set()),
    ],
)
def test_regions(place, regions) -> None:
    for task, (block, region) in enumerate(TASKS):
        state = np.full((1, 6), 0.3)
        at = 2 * tabletop.BLOCKS.index(block)
        state[0, at : at + 2] = place
        assert inside(state, np.array([task]))[0] == (region in regions)


def test_success_needs_the_block_there_and_the_others_left_alone() -> None:
    red_left = np.array([0])
    before = np.array([[0.5, 0.5, 0.5, 0.5, 0.5, 0.5]])
    after = before.copy()
    assert not success(before, after, red_left)
    after[0, 0] = 0.1
    assert success(before, after, red_left)
    after[0, 5] = 0.64
    assert success(before, after, red_left)
    after[0, 5] = 0.65
    assert not success(before, after, red_left)


def test_the_hand_does_every_task_from_everywhere() -> None:
    tasks, before, _, after = trials(600, 3)
    assert not inside(before, tasks).any()
    assert success(before, after, tasks).all()
    assert success(before, episode(lambda states: np.zeros_like(states), before), tasks).mean() == 0


def test_demonstrations_obey_the_world_and_are_the_same_again() -> None:
    rows = demonstrations(45, 30, seed=5)
    assert rows == demonstrations(45, 30, seed=5) != demonstrations(45, 30, seed=6)
    for number, row in enumerate(rows):
        states, actions = np.asarray(row["states"]), np.asarray(row["actions"])
        np.testing.assert_allclose(tabletop.step(states[:-1], actions), states[1:], atol=2e-4)
        assert np.abs(actions).max() <= tabletop.LIMIT
        assert success(states[:1], states[-1:], np.array([row["task"]]))
        if number >= 30:
            assert row["instruction"] is None
            continue
        block, region = TASKS[row["task"]]
        assert block in row["instruction"]
        assert any(word in row["instruction"] for word in tabletop.WORDS[region].values())
    assert sorted(row["task"] for row in rows[:15]) == list(range(15))


def test_instructions_name_their_task_and_no_other() -> None:
    said = [instruction(task, template) for task in range(15) for template in (*tabletop.SEEN, *tabletop.UNSEEN)]
    assert len(set(said)) == 15 * 8
    assert not set(tabletop.SEEN) & set(tabletop.UNSEEN)
    assert len(REGIONS) * len(tabletop.BLOCKS) == 15


def test_starts_are_uniform_but_for_what_is_done() -> None:
    rng = np.random.default_rng(0)
    states = starts(np.full(4000, TASKS.index(("red", "left"))), rng)
    assert states[:, 0].min() >= 0.2
    np.testing.assert_allclose(states[:, 1:].mean(0), 0.5, atol=0.02)


def test_the_embedded_rows_are_what_the_world_makes() -> None:
    rows = read("tabletop")
    assert list(rows) == demonstrations(300, 90, 0, digits=3)
    assert list(read("tabletop", "test")) == demonstrations(60, 60, 1, digits=3)
    assert Trajectory.parse(rows[0]).instruction
