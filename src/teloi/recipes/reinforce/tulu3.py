"""The recipe of Tülu 3 (Lambert et al., 2024): clean the prompts, imitate, prefer, reinforce, measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from teloi.data.formats import PromptCompletion
from teloi.engine.config import scratch_preset
from teloi.engine.recipe import Bench, Make, Recipe, Stage, Train
from teloi.errors import UsageError
from teloi.methods.finetune.sft import SFT
from teloi.methods.prefer.dpo import DPONorm
from teloi.methods.reinforce.rlvr import RLVR

if TYPE_CHECKING:
    from teloi.data.read import Row, Rows
    from teloi.engine.setup import Base
    from teloi.engine.suite import Suite


@dataclass(frozen=True)
class Tulu3(Recipe):
    """SFT, length-normalised DPO, then RL with verifiable rewards, each from the checkpoint before it (Lambert et al.,
    2024): a program that checks answers stands for a reward model.

    Training rows that hold what a row of --eval-data asks are dropped first (8-grams cover more than a share of it).
    Pairs are the best and a worse one of the SFT model's own samples, judged by the reward, beside the pairs that rows
    bring along. Loss of each stage: that of sft, dpo-norm and rlvr. At the end the start model and every stage are
    measured on --eval-data, the development part; --unseen-data is looked at once, for the last stage alone. Without
    --eval-data these are the embedded instructions' test rows with one check, and those with two.

    Use it to take a base or SFT model to answers that can be checked, with each stage's gain on the table. Not where no
    program can say what is right: then rm and ppo take the place of rlvr."""

    reads = PromptCompletion
    defaults: ClassVar[Mapping[str, Any]] = {}

    reward: str = "checks"
    """Reward functions that judge answers, joined by +."""
    correct: float = 10.0
    """What RLVR multiplies the reward with."""
    unseen_data: str | None = None
    """The locked part of the evaluation: rows like --eval-data's."""
    ngram: int = 8
    """Tokens of an n-gram for decontamination."""
    overlap: float = 0.8
    """Share of an evaluation prompt's tokens above which a training row is dropped; 0.5 in the paper. Prompts that ask
    for checks in the same words share up to 0.8 by these alone, whatever they are about."""
    samples: int = 4
    """Samples of each prompt for pairs."""
    pair_prompts: int = 256
    """Prompts that pairs are sampled for, at most."""
    eval_prompts: int = 32
    """Prompts of each part of the evaluation, at most."""
    max_new_tokens: int = 64
    """Longest answer in tokens."""
    beta: float = 5.0
    """Of dpo-norm."""
    kl: float = 0.05
    """Of rlvr."""
    sft_learning_rate: float = 5e-6
    """Peak learning rate of SFT."""
    dpo_learning_rate: float = 5e-7
    """Peak learning rate of dpo-norm."""
    rlvr_learning_rate: float = 1e-6
    """Learning rate of rlvr."""
    sft_epochs: float = 2.0
    """Passes over the rows in SFT."""
    rlvr_epochs: float = 1.0
    """Passes over the prompts in rlvr."""

    def stages(self) -> Sequence[Stage]:
        epochs, rate, warmup = "num_train_epochs", "learning_rate", "warmup_ratio"
        return (
            Make("clean", "drop training rows that overlap with the evaluation", self.clean),
            Train(
                *("sft", "imitate the answers", "sft", lambda bench: SFT()),
                data="clean",
                settings={rate: self.sft_learning_rate, epochs: self.sft_epochs, warmup: 0.03},
            ),
            Make("pairs", "sample the SFT model and judge its answers", self.pairs),
            Train(
                *("dpo-norm", "prefer the better answers", "dpo-norm", lambda bench: DPONorm(beta=self.beta)),
                model="sft",
                data="pairs",
                settings={rate: self.dpo_learning_rate, epochs: 1.0, warmup: 0.1},
            ),
            Train(
                *("rlvr", "reinforce what the program finds right", "rlvr", self.rlvr),
                model="dpo-norm",
                data="clean",
                settings={
                    rate: self.rlvr_learning_rate,
                    epochs: self.rlvr_epochs,
                    warmup: 0.1,
                    "lr_scheduler_type": "constant",
                },
            ),
            Make("scores", "measure the stages", self.scores),
        )

    def check(self, bench: Bench) -> None:
        self.evaluation(bench)

    def clean(self, bench: Bench) -> Iterable[Row]:
        """The training rows without those that match the evaluation."""
        from teloi.data.decontamination import decontaminate
        from teloi.engine.progress import say
        from teloi.files import json_text, write_text

        rows = bench.rows()
        for part, tests in self.evaluation(bench).items():
            found = decontaminate(rows, tests, n=self.ngram, threshold=self.overlap)
            write_text(bench.place("clean") / f"{part}.json", json_text(found.summary(rows, tests)) + "\n")
            say(f"{part}: {found}")
            rows = rows.select(found.kept)
        return rows

    def evaluation(self, bench: Bench) -> dict[str, Rows]:
        """The rows of the evaluation: development, and unseen where there are such."""
        from teloi.data.read import embedded_names, read

        given = {"development": bench.config.eval_data, "unseen": self.unseen_data}
        if bench.config.eval_data is not None:
            return {part: read(data, "test") for part, data in given.items() if data is not None}
        if bench.data != "instructions" or bench.data not in embedded_names():
            raise UsageError("tulu3 needs held-out rows, to measure on and to keep out of its training: --eval-data")
        rows = read(bench.data, "test")
        return {
            part: rows.select(i for i, row in enumerate(rows) if (len(row["checks"]) == 1) == (part == "development"))
            for part in given
        }

    def rlvr(self, bench: Bench) -> RLVR:
        """The last stage's objective."""
        reward = "+".join(f"{self.correct:g}*{name}" for name in self.reward.split("+"))
        return RLVR(reward=reward, kl=self.kl, max_new_tokens=self.max_new_tokens)

    def pairs(self, bench: Bench) -> Iterable[Row]:
        """Pairs of the SFT model's samples, then those that the rows bring along."""
        from teloi.engine.suite import answered, judged, pairs, prompts

        config, rows = bench.config, bench.rows("clean")
        # A trial of a few steps needs no more.
        most = self.pair_prompts if config.max_steps is None else config.max_steps * config.batch_size
        asked = prompts(rows)[: min(self.pair_prompts, most)]
        answers = answered(_load(bench, "sft"), asked, self.max_new_tokens, self.samples, 1.0, config.seed)
        yield from pairs(asked, answers, judged(self.reward, asked, answers))
        yield from (row for row in rows if {"chosen", "rejected"} <= row.keys())

    def scores(self, bench: Bench) -> Iterable[Row]:
        """A row for each model and task of the suite."""
        suite, names = self.suite(bench), ["sft", "dpo-norm", "rlvr"]
        if scratch_preset(bench.config.model) is None:
            names.insert(0, "start")
        for name in names:
            base = _load(bench, None if name == "start" else name)
            yield from ({"model": name, "task": task, "score": score} for task, score in suite.measure(base).items())
        lock = bench.place("scores") / "unseen.json"
        unseen = suite.open_unseen(_load(bench, "rlvr"), lock, "rlvr")
        yield from ({"model": "rlvr", "task": f"unseen {task}", "score": score} for task, score in unseen.items())

    def suite(self, bench: Bench) -> Suite:
        """The evaluation as tasks, each judged by the reward."""
        from teloi.engine.suite import Suite, Task

        parts = {
            part: (Task(rows.name, rows[: self.eval_prompts], self.reward, self.max_new_tokens),)
            for part, rows in self.evaluation(bench).items()
        }
        return Suite(parts["development"], parts.get("unseen", ()))


def _load(bench: Bench, stage: str | None) -> Base:
    """A stage's checkpoint."""
    from teloi.engine.setup import load_base

    path = bench.model(stage)
    assert stage is None or Path(path).is_dir()
    return load_base(replace(bench.config, model=path), bench.rows("clean"))
