"""Makes the embedded preference data: `python -m teloi.worlds.make_instructions OUT --seed 0`.

Everyday questions (`questions.txt`, by topic) get one or two checkable instructions each. The embedded model answers
each prompt several times; the checks alone decide which replies are chosen and which rejected. OUT gets
`train.jsonl.gz` and `test.jsonl.gz`, in TRL's conversational preference format with the columns `checks` and `topic`,
and a README.md with counts and pass rates. The test topics share no question with the training topics. The same seed
gives the same prompts anywhere and the same replies on the same machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from teloi.generate.local import sample
from teloi.jobs import in_parallel
from teloi.models.embedded import NAME, path
from teloi.models.load import load_model, load_tokenizer
from teloi.worlds.instructions import KINDS, check, describe, request, satisfied, words

# What the arguments of a check are drawn from: chosen so that the embedded model neither always nor never succeeds.
ARGUMENTS: dict[str, dict[str, Sequence[Any]]] = {
    "bullets": {"count": (2, 3)},
    "numbered": {"count": (2, 3, 4)},
    "sentences": {"count": (1, 2)},
    "max_words": {"count": (8, 10, 12, 15)},
    "min_words": {"count": (20, 25)},
    "starts_with": {"word": ("The", "A", "In", "When", "Sometimes", "If", "To", "It")},
    "ends_with": {"word": ("today", "water", "it", "you", "time", "life")},
    "contains": {"word": ("often", "small", "simple", "warm", "always", "happy", "water", "new")},
    "avoids": {"word": ("the", "and", "to", "is", "of", "a")},
    "avoids_letter": {"letter": ("b", "g", "k", "m", "v", "w")},
}
SIZES = ("sentences", "max_words", "min_words")
WORDINGS = ("contains", "avoids", "avoids_letter", "no_commas")
TWO_CHECKS = 0.2
"""Share of prompts with two checks: a size and a wording. The other pairs are beyond the embedded model."""
VARIANTS = 2
"""Prompts made of each question, with different kinds of checks."""

SAMPLES, ROUNDS = 6, 3
"""Replies in a round, and rounds at most: a prompt is answered again until it has a pair."""
TEMPERATURE = 0.7
MAX_NEW_TOKENS = 64
PAIRS = {"train": 2, "test": 1}
"""Pairs of a prompt at most. Test prompts are measured one by one: each is one row."""
LEAST_WORDS = 3
"""Shorter replies are neither chosen nor rejected: they satisfy much by saying nothing."""
CHUNK = 48
"""Prompts answered together; fixed, so that the replies do not depend on the number of processes."""


@dataclass
class Prompt:
    """A question with its instructions, and what the model answered: replies with whether they ended by themselves."""

    topic: str
    question: str
    test: bool
    text: str
    checks: list[dict[str, Any]]
    replies: list[tuple[str, bool]] = field(default_factory=list)

    def pairs(self) -> list[tuple[str, str]]:
        """(chosen, rejected): different replies that ended, in the order in which they came."""
        usable = dict.fromkeys(text for text, ended in self.replies if ended and self._says_something(text))
        good = [text for text in usable if satisfied({"checks": self.checks}, text)]
        bad = [text for text in usable if not satisfied({"checks": self.checks}, text)]
        return list(zip(good, bad, strict=False))[: PAIRS["test" if self.test else "train"]]

    def _says_something(self, text: str) -> bool:
        said = words(text)
        return len(said) >= LEAST_WORDS and " ".join(said) not in " ".join(words(self.text))


def questions() -> list[tuple[str, str, bool]]:
    """(topic, question, whether it is held out for the test)."""
    found, topic, test = [], "", False
    for line in (files("teloi.worlds") / "questions.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            test = line.startswith("# test: ")
            topic = line.removeprefix("# test: ").removeprefix("# ")
        elif line:
            found.append((topic, line, test))
    return found


def prompts(seed: int) -> list[Prompt]:
    """All prompts: each question `VARIANTS` times, no kind of check twice with one question."""
    rng = np.random.default_rng(seed)

    def choice(options: Sequence[Any]) -> Any:
        return options[int(rng.integers(len(options)))]

    made = []
    for topic, question, test in questions():
        used: set[str] = set()
        for _ in range(VARIANTS):
            if rng.random() < TWO_CHECKS:
                kinds = [choice([kind for kind in group if kind not in used]) for group in (SIZES, WORDINGS)]
            else:
                kinds = [choice([kind for kind in KINDS if kind not in used])]
            used.update(kinds)
            checks = [
                {"kind": kind, **{name: choice(options) for name, options in ARGUMENTS.get(kind, {}).items()}}
                for kind in kinds
            ]
            requests = [
                request(one, phrasing=int(rng.integers(6)), also=number > 0) for number, one in enumerate(checks)
            ]
            text = " ".join([question, *requests])
            if kinds == ["lowercase"]:  # a prompt in the manner it asks for: the small model follows more often
                text = text.lower()
            elif kinds == ["uppercase"]:
                text = text.upper()
            made.append(Prompt(topic, question, test, text, checks))
    return made


@cache
def _embedded() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_model(NAME, dtype=torch.bfloat16), load_tokenizer(NAME)


def answer(chunk: tuple[Sequence[str], int]) -> list[list[tuple[str, bool]]]:
    """The embedded model's replies to each text, `SAMPLES` of them by this seed, with whether each ended by itself."""
    texts, seed = chunk
    model, tokenizer = _embedded()
    ids: list[Any] = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in texts
    ]
    rows = sample(model, tokenizer, ids, MAX_NEW_TOKENS, temperature=TEMPERATURE, n=SAMPLES, seed=seed)
    return [
        [(str(tokenizer.decode(one.ids, skip_special_tokens=True)).strip(), one.finished) for one in row]
        for row in rows
    ]


def answer_all(asked: Sequence[Prompt], seed: int, processes: int) -> None:
    """Answer every prompt until it has a pair, `ROUNDS` times at most."""
    path()  # fetched here, once, rather than by every process
    for number in range(ROUNDS):
        open_ones = [prompt for prompt in asked if not prompt.pairs()]
        chunks = {
            seed * 1_000_000 + number * 1_000 + index: open_ones[start : start + CHUNK]
            for index, start in enumerate(range(0, len(open_ones), CHUNK))
        }
        questions = [([prompt.text for prompt in chunk], own) for own, chunk in chunks.items()]
        answered = in_parallel(answer, questions, processes, lambda question: f"the chunk of seed {question[1]}")
        for done, ((_, own), rows) in enumerate(answered, start=1):
            for prompt, replies in zip(chunks[own], rows, strict=True):
                prompt.replies += replies
            print(f"round {number + 1}: {done} of {len(chunks)} chunks", file=sys.stderr, flush=True)


def rows(asked: Iterable[Prompt]) -> list[dict[str, Any]]:
    """The pairs of all prompts as TRL's conversational preferences, with the columns `checks` and `topic`."""
    return [
        {
            "prompt": [{"role": "user", "content": prompt.text}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "checks": prompt.checks,
            "topic": prompt.topic,
        }
        for prompt in asked
        for chosen, rejected in prompt.pairs()
    ]


def write(out: Path, asked: Sequence[Prompt], seed: int) -> None:
    """Write both splits and the README; the same replies give the same bytes."""
    out.mkdir(parents=True, exist_ok=True)
    counts = []
    for split in ("train", "test"):
        mine = [prompt for prompt in asked if prompt.test == (split == "test")]
        made = rows(mine)
        np.random.default_rng(seed).shuffle(made)  # who takes the first rows sees all topics
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        (out / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        kept = [prompt for prompt in mine if prompt.pairs()]
        counts.append(f"| {split} | {len({p.topic for p in mine})} | {len(mine)} | {len(kept)} | {len(made)} |")
    text = README.format(
        source=(path() / "SOURCE").read_text().strip(),
        counts="\n".join(counts),
        rates=_rates(asked),
        seed=seed,
        samples=SAMPLES,
        most=SAMPLES * ROUNDS,
        temperature=TEMPERATURE,
        tokens=MAX_NEW_TOKENS,
        least=LEAST_WORDS,
        pairs=PAIRS["train"],
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def _rates(asked: Sequence[Prompt]) -> str:
    """A table: how often the first round's replies satisfy each kind of check (later rounds hold hard prompts only)."""
    asked_for: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for prompt in asked:
        for one in prompt.checks:
            for text, _ in prompt.replies[:SAMPLES]:
                asked_for[one["kind"]] += 1
                passed[one["kind"]] += check(one, text)
    examples = {one["kind"]: describe(one) for prompt in asked for one in prompt.checks}
    return "\n".join(
        f"| `{kind}` | {examples[kind]} | {asked_for[kind] // SAMPLES} | {passed[kind] / asked_for[kind]:.0%} |"
        for kind in KINDS
        if asked_for[kind]
    )


README = """# Embedded preference data: checkable instructions

Everyday questions, each with one or two instructions that a program can check (`teloi.worlds.instructions`), and
replies of the embedded model (SmolLM2-135M-Instruct). The checks alone decide: *chosen* satisfies all of them,
*rejected* does not. Both ended by themselves, so that being cut off is not what tells them apart. The replies are a
small model's: they follow the instruction, or do not; whether what they say is true plays no part.

Format: TRL's conversational preference (`prompt`, `chosen`, `rejected`), with the columns `checks` and `topic`.
A row is a pair: up to {pairs} of a training prompt, one of a test prompt. Train and test share no question and no
topic.

| split | topics | prompts asked | prompts with a pair | rows |
|---|---|---|---|---|
{counts}

How it was made: `python -m teloi.worlds.make_instructions OUT --seed {seed}`. The model answered in bfloat16 at
temperature {temperature} with at most {tokens} new tokens, {samples} times, and up to {most} times while a prompt had
no pair. Replies that were cut off, say fewer than {least} words or only repeat the prompt are left out. The model came
from {source}.

How often a first reply satisfies a check:

| kind | e.g. | prompts | satisfied |
|---|---|---|---|
{rates}

Licence: the questions and code are this project's, Apache-2.0; the replies are output of a model under Apache-2.0.
"""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Makes the embedded preference data; about ten minutes on two cores.")
    parser.add_argument("out", type=Path, help="directory for the files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    settings = parser.parse_args()
    asked = prompts(settings.seed)
    answer_all(asked, settings.seed, settings.processes)
    write(settings.out, asked, settings.seed)


if __name__ == "__main__":
    main()
