"""A suite of tasks: some to look at while one builds, and a locked part to look at once, at the end.

What makes numbers comparable is fixed in the task: its prompts, how long an answer may be, and the reward function that
reads the answer. Answers are greedy. The average of a part is the plain mean over its tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teloi.data.casts import as_format
from teloi.data.formats import PromptOnly, reply
from teloi.data.read import Row, Rows
from teloi.engine.setup import Base
from teloi.errors import UsageError
from teloi.files import write_text
from teloi.generate.local import generate
from teloi.models.attention import attention
from teloi.worlds.rewards import load_rewards, score

AVERAGE = "average"


@dataclass(frozen=True)
class Task:
    """Prompts, and how answers to them are read and judged: `reward` is a reward function by its name."""

    name: str
    rows: Rows
    reward: str
    max_new_tokens: int = 64


@dataclass(frozen=True)
class Suite:
    """A development part and an unseen one, which test the same skills on different rows."""

    development: Sequence[Task]
    unseen: Sequence[Task] = ()

    def measure(self, base: Base) -> dict[str, float]:
        """Mean reward of a model on each task of the development part, and their average."""
        return _scores(self.development, base)

    def open_unseen(self, base: Base, lock: Path, name: str) -> dict[str, float]:
        """The same on the unseen part, which is looked at once: for the model of that name, which is noted in the file
        `lock`. UsageError where it was opened for another one."""
        note = json.loads(lock.read_text(encoding="utf-8")) if lock.exists() else {"opened for": name}
        if note["opened for"] != name:
            raise UsageError(
                f"the unseen tasks were opened for {note['opened for']} ({lock}): choosing among models by them "
                "would make a development set of them"
            )
        write_text(lock, json.dumps(note) + "\n")
        return _scores(self.unseen, base)


def _scores(tasks: Sequence[Task], base: Base) -> dict[str, float]:
    found = {}
    for task in tasks:
        asked = prompts(task.rows)
        answers = answered(base, asked, task.max_new_tokens)
        rewards = [reward for (reward,) in judged(task.reward, asked, answers)]
        found[task.name] = sum(rewards) / len(rewards)
    return {**found, AVERAGE: sum(found.values()) / len(found)} if found else {}


def prompts(rows: Rows) -> list[PromptOnly]:
    """The prompts of rows, of whatever format that has some."""
    return [row for row in as_format(rows, PromptOnly) if isinstance(row, PromptOnly)]


def answered(
    base: Base,
    asked: Sequence[PromptOnly],
    max_new_tokens: int,
    n: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[str]]:
    """Answers of a model to each prompt, n of them; greedy ones unless a temperature is given."""
    tokenizer = base.processor.tokenizer
    with attention(base.model, "sdpa"):
        ids = [base.processor.prompt_ids(row.prompt) for row in asked]
        found = generate(base.model, tokenizer, ids, max_new_tokens, temperature, n, seed)
    return [[str(tokenizer.decode(one, skip_special_tokens=True)) for one in several] for several in found]


def judged(reward: str, asked: Sequence[PromptOnly], answers: Sequence[Sequence[str]]) -> list[list[float]]:
    """What reward functions (joined by +) say of each answer."""
    rows = [row for row, several in zip(asked, answers, strict=True) for _ in several]
    said = [reply(text, row.conversational) for row, several in zip(asked, answers, strict=True) for text in several]
    columns = {name: [row.columns.get(name) for row in rows] for name in rows[0].columns}
    ids = [[0] for _ in rows]  # a reward of text does not look at them
    scored = [score(one, [row.prompt for row in rows], said, columns, ids) for one in load_rewards(reward)]
    totals = iter([sum(float(part.sum()) for part in parts) for parts in zip(*scored, strict=True)])
    return [[next(totals) for _ in several] for several in answers]


def pairs(
    asked: Sequence[PromptOnly], answers: Sequence[Sequence[str]], rewards: Sequence[Sequence[float]]
) -> list[Row]:
    """Preferences among the answers to each prompt: the best one against the first that is worse; none where all are
    equal."""
    found: list[Row] = []
    for row, texts, scores in zip(asked, answers, rewards, strict=True):
        best = scores.index(max(scores))
        worse = next((i for i in range(len(texts)) if scores[i] < scores[best] and texts[i].strip()), None)
        if worse is not None and texts[best].strip():
            sides: Mapping[str, Any] = {
                "chosen": reply(texts[best], row.conversational),
                "rejected": reply(texts[worse], row.conversational),
            }
            found.append({**row.columns, "prompt": row.prompt, **sides})
    return found
