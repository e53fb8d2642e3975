"""What claims about learning from feedback share: summaries of topics (`teloi.worlds.topics`), a model that imitates
references, comparisons of what it writes, reward models of them, PPO against these, and what responses are worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teloi.claims.claim import Run
from teloi.worlds import topics
from teloi.worlds.topics import Response

if TYPE_CHECKING:
    from teloi.engine.fit import Fitted
    from teloi.engine.objective import Objective
    from teloi.engine.setup import Base

Rows = Sequence[Mapping[str, Any]]

SMALL = (48, 2, 4)
"""Width, layers and heads of the policy."""

UNFINISHED = -1.0
"""Score of a response without an end, in place of its reward."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    sft_steps: int = 300
    comparisons: int = 4000
    reward_steps: int = 400
    updates: int = 120
    tested: int = 1000


FULL = Sizes()
QUICK = Sizes(20, 60, 5, 2, 40)


def sizes(run: Run) -> Sizes:
    """Those of a run for the record, or of one in seconds."""
    return QUICK if run.quick else FULL


# -- models


def start(run: Run, size: tuple[int, int, int] = SMALL, weights: Path | None = None) -> Base:
    """The scratch model of the seed with one token a word, or one whose weights were kept."""
    import torch
    from safetensors.torch import load_model

    from teloi.engine.fit import as_base
    from teloi.models.scratch import scratch_model, word_tokenizer

    tokenizer = word_tokenizer(topics.vocabulary())
    torch.manual_seed(run.seed)
    base = as_base(scratch_model(size, tokenizer), tokenizer, max_length=16, layout="padded")
    if weights is not None:
        load_model(base.model, weights)
    return base


def keep(base: Base, path: Path) -> None:
    """Keep a model's weights for the seed's other arms."""
    from safetensors.torch import save_model

    save_model(base.model, str(path))


def train(
    run: Run, objective: Objective, base: Base, rows: Rows, steps: int, learning_rate: float, **settings: Any
) -> Fitted:
    """A copy of the base after so many steps, of 64 rows at a rate that falls to 0 unless `settings` say otherwise."""
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import fit

    usual: dict[str, Any] = {"batch_size": 64, "warmup_ratio": 0.05, "micro_tokens": 4096, "seed": run.seed}
    config = TrainConfig(budget=f"{steps} steps", learning_rate=learning_rate, **{**usual, **settings})
    return fit(objective, base, rows, config)


def imitator(run: Run, size: tuple[int, int, int] = SMALL, learning_rate: float = 4e-3) -> Base:
    """A model trained on references, none of them twice: where policies start from."""
    from teloi.methods.finetune.sft import SFT

    steps = sizes(run).sft_steps
    return train(run, SFT(), start(run, size), references(run, "sft", 64 * steps), steps, learning_rate).base


def reward_model(run: Run, sft: Base, rows: Rows, path: Path, steps: int | None = None) -> None:
    """A reward model of comparisons in a directory, with rewards whose mean on references is 0.

    Comparisons within a topic leave a constant for each topic open; the weight of their square holds these near 0."""
    from teloi.engine.train import export
    from teloi.methods.reinforce.reward_model import RewardModel

    file = path.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in references(run, "centre", 1000)))
    objective = RewardModel(centring=0.01, references=str(file))
    fitted = train(run, objective, sft, rows, steps or sizes(run).reward_steps, 1e-3)
    export(objective, fitted.models, fitted.base, path)


def optimised(run: Run, sft: Base, reward: Path, kl: float) -> Base:
    """The policy that PPO makes of the imitator against a reward model, on as many prompts as it likes."""
    from teloi.methods.reinforce.ppo import PPO

    objective = PPO(
        reward=str(reward),
        max_new_tokens=topics.TOKENS,
        epochs=2,
        minibatches=2,
        kl=kl,
        value=str(reward),
        value_learning_rate=1e-3,
        unfinished=UNFINISHED,
    )
    updates = sizes(run).updates
    asked = topics.topics(128 * updates, run.rng("ppo prompts"))
    rows = [{"prompt": topic} for topic in asked]
    return train(
        run, objective, sft, rows, updates, 5e-4, batch_size=128, lr_scheduler_type="constant_with_warmup"
    ).base


# -- data


def world(run: Run) -> topics.Utilities:
    """What the seed's words are worth."""
    return topics.utilities(run.rng("utilities"))


def references(run: Run, name: str, count: int) -> list[dict[str, str]]:
    """Rows of a topic and what somebody with taste writes of it."""
    known, rng = world(run), run.rng(f"references: {name}")
    asked = topics.topics(count, rng)
    return [{"prompt": topic, "completion": f" {topics.reference(known, topic, rng)}"} for topic in asked]


def comparisons(run: Run, sft: Base, name: str, count: int, flipped: float = 0.0) -> list[dict[str, str]]:
    """Preferences of so many pairs of the imitator's responses: pairs that differ, and both of which say something."""
    rng = run.rng(f"comparisons: {name}")
    asked = topics.topics(count + count // 4, rng)
    drawn = responses(run, sft, asked, f"comparisons: {name}", 2)
    pairs = [(topic, (a, b)) for topic, (a, b) in zip(asked, drawn, strict=True) if a.words and b.words and a != b]
    different = [(topic, (a, b)) for topic, (a, b) in pairs if a.words != b.words][:count]
    return topics.compared(world(run), [topic for topic, _ in different], [pair for _, pair in different], rng, flipped)


def responses(run: Run, base: Base, asked: Sequence[str], name: str, n: int = 1) -> list[list[Response]]:
    """So many responses to each topic, at temperature 1. The same name gives the same draws."""
    from teloi.generate.local import sample

    prompts = [base.processor.prompt_ids(topic) for topic in asked]
    seed = int(run.rng(f"responses: {name}").integers(2**31))
    made = sample(
        base.model, base.processor.tokenizer, prompts, topics.TOKENS, temperature=1.0, n=n, seed=seed, batch_size=1024
    )
    return [[response(base, one.ids, one.finished) for one in row] for row in made]


def response(base: Base, ids: Sequence[int], finished: bool) -> Response:
    """Tokens as words; what stands for no word is kept. Whether the end token is among them makes no difference."""
    tokenizer = base.processor.tokenizer
    words = [str(word) for word in tokenizer.convert_ids_to_tokens(list(ids))]
    return Response(tuple(words[:-1] if words[-1:] == [tokenizer.eos_token] else words), finished)


# -- tests


def best_of(run: Run, base: Base, reward: Path, n: int, asked: Sequence[str]) -> list[Response]:
    """Of n responses to each topic the one that a reward model likes best."""
    from teloi.data.formats import PromptOnly
    from teloi.engine.objective import Now
    from teloi.methods.decode.best_of_n import BestOfN
    from teloi.models.roles import LanguageModel, Models

    decoder = BestOfN(reward=str(reward), n=n, max_new_tokens=topics.TOKENS, unfinished=UNFINISHED)
    prompts = [decoder.encode(PromptOnly(topic), base.processor) for topic in asked]
    models = Models(LanguageModel(base.model, base.layout), processor=base.processor)
    trees = decoder.decode(models, prompts, Now(0, 1, seed=run.seed))
    return [response(base, tree.branches[0].ids.tolist(), bool(tree.columns["finished"][0])) for tree in trees]


def learned(reward: Path, asked: Sequence[str], said: Sequence[Response]) -> list[float]:
    """What a reward model says of responses; of one without an end what PPO takes in its place."""
    from teloi.models.scalar import load_scalar

    scores = load_scalar(reward)(list(asked), [f" {one}" for one in said])
    return [score if one.finished else UNFINISHED for score, one in zip(scores, said, strict=True)]


def agreement(run: Run, sft: Base, reward: Path) -> float:
    """Share of pairs of fresh responses that a reward model and the world put in the same order."""
    asked = topics.topics(sizes(run).tested, run.rng("agreement"))
    drawn = responses(run, sft, asked, "agreement", 2)
    first, second = ([row[side] for row in drawn] for side in (0, 1))
    by_model = np.subtract(learned(reward, asked, first), learned(reward, asked, second))
    by_world = np.subtract(worths(run, asked, first), worths(run, asked, second))
    decided = by_world != 0
    return float(np.mean((by_model * by_world)[decided] > 0))


def worths(run: Run, asked: Sequence[str], said: Sequence[Response]) -> list[float]:
    """What responses are worth."""
    return [topics.worth(world(run), topic, one) for topic, one in zip(asked, said, strict=True)]


def tested_topics(run: Run) -> list[str]:
    """The prompts that every arm is tested on."""
    return topics.topics(sizes(run).tested, run.rng("test topics"))


def judged(run: Run, said: Sequence[Response]) -> dict[str, float]:
    """What responses to the test topics are worth, how often more than a reference, and their form."""
    asked, known, rng = tested_topics(run), world(run), run.rng("test references")
    theirs = worths(run, asked, [topics.reference(known, topic, rng) for topic in asked])
    ours = worths(run, asked, said)
    return {
        "worth": float(np.mean(ours)),
        "win_rate": topics.win_rate(ours, theirs),
        "words": float(np.mean([len(one.words) for one in said])),
        "finished": float(np.mean([one.finished for one in said])),
    }


def kl(base: Base, sft: Base, asked: Sequence[str], said: Sequence[Response]) -> float:
    """KL from the imitator, in nats a response: the mean log-ratio of what the policy sampled."""
    return float(np.mean(log_likelihoods(base, asked, said) - log_likelihoods(sft, asked, said)))


def log_likelihoods(base: Base, asked: Sequence[str], said: Sequence[Response]) -> np.ndarray[Any, Any]:
    """Log-probability of each response, its end included where it has one."""
    from teloi.batch.tree import Branch, Tree, TreeBatch
    from teloi.models.roles import LanguageModel, evaluation

    tokenizer = base.processor.tokenizer
    vocabulary, trees = tokenizer.get_vocab(), []
    for topic, one in zip(asked, said, strict=True):
        words = [*one.words, *([tokenizer.eos_token] if one.finished else [])]
        prompt = np.asarray(base.processor.prompt_ids(topic), np.int32)
        trees.append(Tree(prompt, (Branch.scored([vocabulary[word] for word in words]),)))
    with evaluation(base.model):
        return np.asarray(LanguageModel(base.model, base.layout).branch_sums(TreeBatch(trees))[0])
