"""A run as a person follows it: its records as they come, what matters of them live, samples of what the policy writes,
and warnings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np

from teloi.batch.tree import Tree
from teloi.engine.callbacks import Listeners
from teloi.engine.directory import RunDirectory
from teloi.engine.evaluate import mean_terms
from teloi.engine.loop import Record, Trainer
from teloi.engine.progress import bar, say
from teloi.engine.symptoms import WATCHED, Watch

SAMPLINGS = 10
"""How often in a run some of what the policy writes is kept, besides the last time."""

PROMPTS, COMPLETIONS = 2, 2
"""Of a step, the first so many prompts with the first so many completions of each are kept."""


@dataclass(frozen=True)
class Followed:
    """How a run went: its last step's record, why it ended early (if it did), and the warnings on the way."""

    last: Record
    stopped: str | None
    warnings: Sequence[dict[str, Any]]


def follow(
    name: str, trainer: Trainer, listeners: Listeners, held_out: Sequence[Any], directory: RunDirectory
) -> Followed:
    """Train to the end of the plan, or until a logged number or a callback stops it. Records are written as they come,
    with an evaluation where one is due, and what they warn of is said."""
    steps, eval_steps = trainer.plan.steps, trainer.config.eval_steps
    last: Record = {}
    watch = Watch()
    for record in directory.records():  # of a resumed run: what they warn of has been said
        watch.see(record)
    with bar(steps, name) as advance, directory.metrics.open("a") as lines, Samples(trainer, directory) as samples:

        def write(record: Record) -> None:
            due = record["step"] == steps or (eval_steps is not None and record["step"] % eval_steps == 0)
            if held_out and due:
                evaluate(trainer, held_out, record)
            lines.write(json.dumps(record) + "\n")
            lines.flush()
            for warning in watch.see(record):
                say(f"warning: {warning}")
            listeners.log(record)

        trainer.hooks.made, trainer.hooks.record, trainer.hooks.saved = samples.see, write, listeners.saved
        for _ in range(trainer.done):
            advance("resumed")
        for last in trainer.run():
            advance(live(last, trainer.ledger.trained_tokens / max(trainer.ledger.train_seconds, 1e-9)))
            listeners.step(int(last["step"]))
            if listeners.stopped:
                say(f"stopped by a callback after step {int(last['step'])}")
                break
    if trainer.stopped is not None:
        say(f"stopped because {trainer.stopped}")
    return Followed(last, trainer.stopped, [asdict(warning) for warning in watch.warned.values()])


def live(record: Record, speed: float) -> str:
    """What a person wants to see of a step while it runs."""
    shown = [f"{name} {record[name]:.3g}" for name in WATCHED if name in record]
    return ", ".join([*shown, f"loss {record['loss']:.4f}", f"{speed:,.0f} tokens/s"])


def evaluate(trainer: Trainer, held_out: Sequence[Any], record: Record) -> None:
    """Add the terms of the loss on held-out examples to a record."""
    found = trainer.without_gradients(mean_terms, trainer.objective, trainer.models, held_out, trainer.config)
    record.update({f"eval_{term}": value for term, value in found.items()})


class Samples:
    """Some of what the policy writes about ten times in a run, and the last time, as lines of `samples.jsonl`: step,
    prompt, completion, reward and whether it came to its end. Nothing where a method trains on what it was given."""

    def __init__(self, trainer: Trainer, directory: RunDirectory) -> None:
        self.trainer, self.directory = trainer, directory
        steps = trainer.plan.steps
        self.due = set(np.linspace(1, steps, min(SAMPLINGS + 1, steps)).round().astype(int).tolist())
        self.seen = 0
        self.trees: list[Tree] = []
        self.file: IO[str] | None = None

    def __enter__(self) -> Samples:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:  # else the run is to be resumed, and what it samples then is the last
            self.write()
        if self.file is not None:
            self.file.close()

    def see(self, step: int, examples: Sequence[Any]) -> None:
        """The examples of a step after its rollout."""
        self.seen = step
        self.trees = [one for one in examples[:PROMPTS] if isinstance(one, Tree) and "rewards" in one.columns]
        if step in self.due:
            self.write()

    def write(self) -> None:
        """Write what was seen last, unless it is written already."""
        processor = self.trainer.models.processor
        if not self.trees or processor is None:
            return
        if self.file is None:
            self.file = self.directory.samples.open("a", encoding="utf-8", errors="replace")
        for tree in self.trees:
            prompt = processor.tokenizer.decode(tree.prompt.tolist(), skip_special_tokens=True)
            for i, branch in enumerate(tree.branches[:COMPLETIONS]):
                line = {
                    "step": self.seen,
                    "prompt": prompt,
                    "completion": processor.tokenizer.decode(branch.ids.tolist(), skip_special_tokens=True),
                    "reward": float(tree.columns["rewards"][i]),
                    "finished": bool(tree.columns["finished"][i]),
                }
                self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.file.flush()
        self.trees = []
