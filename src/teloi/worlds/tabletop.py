"""Tabletop2D: three blocks on a square, fifteen things that one may be told to do with them, and an exact test of it.

A state is x, y of the red, green and blue block, in [0, 1]; an action moves every block by at most 0.12 an axis. A task
is a block and a region. A scripted hand moves the block there in a straight line; all else is a little noise. Success:
after 15 steps the block lies in its region and no other block has moved by 0.15 or more on an axis.

NumPy only; a generator gives the same demonstrations again. n: tasks at once. `python -m teloi.worlds.tabletop FOLDER`
writes the embedded data.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCKS = ("red", "green", "blue")
REGIONS = ("left", "right", "top", "bottom", "middle")
TASKS = tuple((block, region) for block in BLOCKS for region in REGIONS)
"""Task number -> (block, region)."""

DEMO_STEPS, EPISODE_STEPS = 12, 15
LIMIT, STRIDE, NOISE, DISTURBED = 0.12, 0.1, 0.01, 0.15
"""Largest displacement of an action, step of the hand, deviation of its noise, what counts as moving a block."""

EDGE, MIDDLE, INSIDE = 0.2, 0.1, 0.07
"""Width of the regions at the edges, half the middle one's; how far inside its region the hand puts a block."""

SEEN = (
    "move the {block} block to the {side}",
    "put the {block} cube on the {far} side",
    "push the {block} one {toward}",
    "the {block} block goes to the {side}",
)
UNSEEN = (
    "bring the {block} cube to the {far} part",
    "slide the {block} block {toward}",
    "please shift the {block} one to the {side}",
    "I want the {block} cube at the {far} end",
)
WORDS = {
    "left": {"side": "left", "far": "leftmost", "toward": "leftwards"},
    "right": {"side": "right", "far": "rightmost", "toward": "rightwards"},
    "top": {"side": "top", "far": "topmost", "toward": "upwards to the top"},
    "bottom": {"side": "bottom", "far": "bottommost", "toward": "downwards to the bottom"},
    "middle": {"side": "middle", "far": "middlemost", "toward": "into the middle"},
}

Policy = Callable[[Floats], NDArray[Any]]
"""States [n 6] -> actions [n 6]."""


def instruction(task: int, template: str) -> str:
    """What somebody says who wants the task done, in the words of a template."""
    block, region = TASKS[task]
    return template.format(block=block, **WORDS[region])


def inside(states: Floats, tasks: Ints) -> NDArray[np.bool_]:
    """Whether each task's block lies in its region: [n 6], [n] -> [n]."""
    x, y = _blocks(states, tasks).T
    regions = tasks % len(REGIONS)
    middle = (np.abs(x - 0.5) < MIDDLE) & (np.abs(y - 0.5) < MIDDLE)
    return np.choose(regions, [x < EDGE, x > 1 - EDGE, y > 1 - EDGE, y < EDGE, middle]).astype(bool)


def starts(tasks: Ints, rng: np.random.Generator) -> Floats:
    """Uniform states [n 6] in which none of the tasks is done yet."""
    states = rng.random((len(tasks), 2 * len(BLOCKS)))
    while (done := inside(states, tasks)).any():
        states[done] = rng.random((int(done.sum()), states.shape[1]))
    return states


def step(states: Floats, actions: NDArray[Any]) -> Floats:
    """The states after some actions, [s 6] both."""
    after: Floats = np.clip(states + np.clip(actions, -LIMIT, LIMIT), 0, 1)
    return after


def hand(states: Floats, tasks: Ints, rng: np.random.Generator) -> Floats:
    """The scripted hand's actions: straight towards the nearest point well inside the region."""
    blocks = _blocks(states, tasks)
    x, y = blocks.T
    low, high = EDGE - INSIDE, 1 - EDGE + INSIDE
    regions = tasks % len(REGIONS)
    goal_x = np.choose(regions, [np.minimum(x, low), np.maximum(x, high), x, x, np.full_like(x, 0.5)])
    goal_y = np.choose(regions, [y, y, np.maximum(y, high), np.minimum(y, low), np.full_like(y, 0.5)])
    way = np.stack([goal_x, goal_y], 1) - blocks
    distance = np.linalg.norm(way, axis=1, keepdims=True)
    moves = way * np.minimum(1, STRIDE / np.maximum(distance, 1e-9))
    actions = rng.normal(0, NOISE, states.shape)
    for axis in (0, 1):
        actions[np.arange(len(tasks)), 2 * (tasks // len(REGIONS)) + axis] += moves[:, axis]
    return actions


def demonstrations(count: int, labelled: int, seed: int, digits: int = 4) -> list[dict[str, Any]]:
    """Trajectory rows: `states`, `actions`, `task`, `group` (the task too) and `instruction`, of the first `labelled`.

    Tasks go round in shuffled turns, so that the labelled rows cover them evenly. Numbers are rounded to `digits`.
    """
    rng = np.random.default_rng([seed, 1])
    rounds = [rng.permutation(len(TASKS)) for _ in range(-(-count // len(TASKS)))]
    tasks = np.concatenate([*rounds, np.zeros(0, np.int64)])[:count].astype(np.int64)
    states, actions = [starts(tasks, rng)], []
    for _ in range(DEMO_STEPS):
        actions.append(np.clip(hand(states[-1], tasks, rng), -LIMIT, LIMIT))
        states.append(step(states[-1], actions[-1]))
    seen, did = (np.round(np.stack(part, 1), digits) for part in (states, actions))
    words = rng.integers(len(SEEN), size=count)
    return [
        {
            "states": seen[i].tolist(),
            "actions": did[i].tolist(),
            "task": int(task),
            "group": int(task),
            "instruction": instruction(int(task), SEEN[words[i]]) if i < labelled else None,
        }
        for i, task in enumerate(tasks)
    ]


def episode(policy: Policy, states: Floats, steps: int = EPISODE_STEPS) -> Floats:
    """The states [n 6] after a policy has acted for some steps."""
    for _ in range(steps):
        states = step(states, np.asarray(policy(states), np.float64))
    return states


def success(before: Floats, after: Floats, tasks: Ints) -> NDArray[np.bool_]:
    """Whether each task is done and no other block was moved: [n 6], [n 6], [n] -> [n]."""
    moved = np.abs(after - before).reshape(len(tasks), len(BLOCKS), 2).max(2) >= DISTURBED
    moved[np.arange(len(tasks)), tasks // len(REGIONS)] = False
    done: NDArray[np.bool_] = inside(after, tasks) & ~moved.any(1)
    return done


def trials(count: int, seed: int, templates: Sequence[str] = SEEN) -> tuple[Ints, Floats, list[str], Floats]:
    """Fresh tests: tasks [n], starts [n 6], instructions, and solved states [n 6] for policies that follow goals."""
    rng = np.random.default_rng([seed, 2])
    tasks = np.arange(count) % len(TASKS)
    before = starts(tasks, rng)
    goals = episode(lambda states: hand(states, tasks, rng), before)
    words = rng.integers(len(templates), size=count)
    return tasks, before, [instruction(int(t), templates[w]) for t, w in zip(tasks, words, strict=True)], goals


def _blocks(states: Floats, tasks: Ints) -> Floats:
    """x, y of each task's block, [n 2]."""
    chosen: Floats = states.reshape(len(states), len(BLOCKS), 2)[np.arange(len(states)), tasks // len(REGIONS)]
    return chosen


def main(folder: str) -> None:
    """Write train.jsonl.gz, 300 demonstrations of which 90 have an instruction, and test.jsonl.gz, 60 that all have."""
    for split, count, labelled, seed in (("train", 300, 90, 0), ("test", 60, 60, 1)):
        rows = demonstrations(count, labelled, seed, digits=3)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (Path(folder) / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
