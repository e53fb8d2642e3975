"""Nash Learning from Human Feedback (Munos et al., 2024).

The paper learns a preference of two answers instead of a reward of one, and looks for the policy that no other one is
preferred to, regularised towards the start model; Nash-MD comes to it in its last iterate. Here are both of its halves.

As tables: random games of eight answers, whose preferences have a part that goes round in circles (or, as a control,
none), solved by Nash-MD, by online mirror descent, by multiplicative weights in self-play, by a best response, and by
RLHF on the best Bradley-Terry reward.

As models: a transformer that plays rock, paper, scissors in three words (`teloi.worlds.circles`), trained by nash-md
with several opponents, and by the same policy gradient on a Bradley-Terry reward. Its policy is read off exactly, so
that how far it can be exploited has no sampling error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from teloi.claims.claim import Arm, Check, Claim, Control, Expect, Outcome, Run
from teloi.measure.summary import Metric
from teloi.methods.reinforce.nash_md import NashMD
from teloi.worlds import circles

if TYPE_CHECKING:
    from torch import Tensor

    from teloi.engine.setup import Base
    from teloi.worlds.games import Game
    from teloi.worlds.judges import Judge

CIRCLES = {"circles": 2.0, "order": 0.0}
"""Weight of the part that goes round in circles, by kind of game."""

TAU = 0.05
"""Weight of the KL. With twice as much models hardly leave the start, with half of it all of them swing (pilots)."""

SLOPE = 4
"""Of a Bradley-Terry reward where preferences are even: r - r' is about 4 (P - 1/2), so that RLHF with 4 times the tau
is held to the start model as much as the game is."""

START = (0.5, 0.3, 0.2)
"""Chances of the classes in the answers that the start model imitates."""

EVERY = 10
"""Updates between two looks at a policy."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    games: int = 20
    iterations: int = 2000
    imitated: int = 2000
    start_steps: int = 400
    updates: int = 250
    looked_at: int = 100
    batch: int = 128


FULL = Sizes()
QUICK = Sizes(2, 50, 40, 3, 4, 4, 8)


def measure(run: Run) -> Outcome:
    """Solve the seed's games as tables, or train a model and watch it over the last updates."""
    sizes = QUICK if run.quick else FULL
    return Outcome(solved(run, sizes) if run.arm in SOLVERS else trained(run, sizes))


# -- tables


def iterated(step: Callable[[Game, Tensor, int], Tensor], tail: bool = False) -> Callable[[Game, int], list[Tensor]]:
    """The last policy of so many steps from the reference; with `tail`, those of the last tenth."""

    def solve(game: Game, iterations: int) -> list[Tensor]:
        policies = [game.reference]
        for t in range(iterations):
            policies.append(step(game, policies[-1], t))
        return policies[-(iterations // 10) :] if tail else policies[-1:]

    return solve


def nash_md(eta: float | None = None) -> Callable[[Game, Tensor, int], Tensor]:
    """A step of Nash-MD, of the paper's decreasing size or of one that stays."""
    from teloi import losses

    def step(game: Game, policy: Tensor, t: int) -> Tensor:
        size = losses.decreasing_step(t, TAU) if eta is None else eta
        return losses.regularised_step(policy, game.reference, game.preferences, TAU, size)[0]

    return step


def mirror(eta: float | None = None, tau: float = TAU) -> Callable[[Game, Tensor, int], Tensor]:
    """A step of online mirror descent; with tau 0 of multiplicative weights."""
    from teloi import losses

    def step(game: Game, policy: Tensor, t: int) -> Tensor:
        size = losses.decreasing_step(t, TAU) if eta is None else eta
        return losses.mirror_step(policy, game.reference, game.preferences, tau, size)

    return step


def against_reference(game: Game, iterations: int) -> list[Tensor]:
    """The best response to the reference."""
    from teloi import losses

    return [losses.best_response(game.reference, game.reference, game.preferences, TAU)]


def rlhf(game: Game, iterations: int) -> list[Tensor]:
    """The policy mu exp(r / tau'), r the Bradley-Terry reward of pairs from the reference; of a grid the tau' that is
    exploited least, which no user could know."""
    import torch

    from teloi import losses

    rewards = losses.bradley_terry(game.reference, game.preferences)
    policies = [torch.softmax(game.reference.log() + rewards / tau, 0) for tau in np.geomspace(0.01, 10, 31)]
    return [min(policies, key=lambda policy: game.gap(policy, TAU))]


SOLVERS: Mapping[str, Callable[[], Callable[[Game, int], list[Tensor]]]] = {
    "table: nash-md": lambda: iterated(nash_md()),
    "table: mirror descent": lambda: iterated(mirror()),
    "table: multiplicative weights": lambda: iterated(mirror(0.5, tau=0.0), tail=True),
    "table: best response": lambda: against_reference,
    "table: rlhf": lambda: rlhf,
    "table: nash-md, step of 5": lambda: iterated(nash_md(5.0), tail=True),
    "table: mirror descent, step of 5": lambda: iterated(mirror(5.0), tail=True),
}


def solved(run: Run, sizes: Sizes) -> dict[str, float]:
    """Mean gap over the seed's games and over the policies that count, and the mean KL from the equilibrium."""
    from teloi import losses
    from teloi.worlds.games import random_game

    solve, found = SOLVERS[run.arm or ""](), {}
    for kind, circular in CIRCLES.items():
        rng = run.rng(f"games of {kind}")
        games = [random_game(rng, circular) for _ in range(sizes.games)]
        policies = [solve(one, sizes.iterations) for one in games]
        gaps = [np.mean([g.gap(p, TAU) for p in some]) for g, some in zip(games, policies, strict=True)]
        found[f"gap_{kind}"] = float(np.mean(gaps))
        if kind == "circles":
            ends = [losses.equilibrium(g.reference, g.preferences, TAU) for g in games]
            apart = [float(losses.divergence(e, some[-1])) for e, some in zip(ends, policies, strict=True)]
            found["apart"] = float(np.mean(apart))
    return found


# -- models


def prepare(run: Run) -> None:
    """The seed's start model: it imitates answers whose classes are drawn by START."""
    from safetensors.torch import save_model

    from teloi.methods.finetune.sft import SFT

    sizes = QUICK if run.quick else FULL
    answers = circles.drawn(sizes.imitated, START, run.rng("answers"))
    rows = [{"prompt": circles.PROMPT, "completion": f" {answer}"} for answer in answers]
    made = train(run, SFT(), scratch(run), rows, sizes.start_steps, 2e-3)
    save_model(made.model, str(run.directory / "start.safetensors"))


def scratch(run: Run) -> Base:
    """The seed's model before it has learned anything: 2 layers of width 32, one token a word."""
    import torch

    from teloi.engine.fit import as_base
    from teloi.models.scratch import scratch_model, word_tokenizer

    tokenizer = word_tokenizer([circles.PROMPT, *circles.WORDS])
    torch.manual_seed(run.seed)
    return as_base(scratch_model((32, 2, 4), tokenizer), tokenizer, max_length=16, layout="packed")


def train(
    run: Run,
    objective: Any,
    base: Base,
    rows: Sequence[Mapping[str, str]],
    steps: int,
    rate: float,
    watch: Callable[[int, Base], object] | None = None,
) -> Base:
    """A copy of the base after so many steps; Adam at a rate that stays."""
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import fit

    config = TrainConfig(
        budget=f"{steps} steps",
        batch_size=(QUICK if run.quick else FULL).batch,
        learning_rate=rate,
        lr_scheduler_type="constant",
        micro_tokens=8192,
        seed=run.seed,
    )
    return fit(objective, base, rows, config, watch).base


@dataclass(frozen=True)
class RewardGradient(NashMD):
    """The policy gradient of E[r] - tau KL by the estimator of nash-md in self-play: a reward stands where a preference
    would, and that of an independent sample is its baseline."""

    rewards: Mapping[str, float] = field(default_factory=dict)

    def referee(self) -> Judge:
        from teloi.worlds.judges import Judge

        def ask(prompts: Any, pairs: Any, columns: Any) -> list[float | None]:
            return [0.5 + self.rewards.get(a, 0.0) - self.rewards.get(b, 0.0) for a, b in pairs]

        return Judge(ask, fair=True)


OPPONENTS = {"self-play": 0.0, "nash-md 1/4": 0.25, "nash-md 1/2": 0.5, "best response": 1.0}
"""The start model's share in the opponent."""

RLHF = {"rlhf": SLOPE * TAU, "rlhf, same tau": TAU}
"""The weight of its KL."""


def trained(run: Run, sizes: Sizes) -> dict[str, float]:
    """Means over the last updates: how far the policy can be exploited, and how much that moves."""
    import torch
    from safetensors.torch import load_model

    from teloi import losses
    from teloi.worlds.games import Game

    base = scratch(run)
    load_model(base.model, str(run.directory / "start.safetensors"))
    start, missed = policy_of(base)
    game = Game(torch.as_tensor(circles.table()), start)
    looks = [(start, missed)]
    if run.arm != "start":
        objective: NashMD
        if run.arm in RLHF:
            rewards = losses.bradley_terry(start, game.preferences).tolist()
            by_answer = dict(zip(circles.ANSWERS, rewards, strict=True))
            objective = RewardGradient(tau=RLHF[run.arm], mixture=0.0, rewards=by_answer)
        else:
            objective = NashMD("teloi.worlds.circles:judge", tau=TAU, mixture=OPPONENTS[run.arm or ""])
        objective = replace(objective, max_new_tokens=circles.LENGTH + 1)
        looks = []

        def watch(done: int, policy: Base) -> None:
            if done > sizes.updates - sizes.looked_at and done % min(EVERY, sizes.looked_at // 2) == 0:
                looks.append(policy_of(policy))

        rows = [{"prompt": circles.PROMPT}] * sizes.batch
        train(run, objective, base, rows, sizes.updates, 5e-4, watch)
    exploited = [game.gap(policy, 0.0) for policy, _ in looks]
    return {
        "exploited": float(np.mean(exploited)),
        "swing": float(np.std(exploited)),
        "gap": float(np.mean([game.gap(policy, TAU) for policy, _ in looks])),
        "missed": max(share for _, share in looks),
    }


def policy_of(base: Base) -> tuple[Tensor, float]:
    """The chances of all answers under a model, and the share of its samples that are none of them."""
    from teloi.batch.tree import TreeBatch
    from teloi.data.encode import tree
    from teloi.models.roles import LanguageModel, evaluation

    answers = [f" {answer}" for answer in circles.ANSWERS]
    with evaluation(base.model):
        batch = TreeBatch([tree(base.processor, circles.PROMPT, answers)])
        sums = LanguageModel(base.model, base.layout).branch_sums(batch)[:, 0].double()
    return sums.softmax(0), float(1 - sums.exp().sum())


ARMS: Mapping[str, str] = {
    "table: nash-md": "Nash-MD with the paper's steps",
    "table: mirror descent": "online mirror descent with the same steps",
    "table: multiplicative weights": "self-play without regularisation, steps of 0.5: mean over the last 200 policies",
    "table: best response": "the best response to the reference",
    "table: rlhf": "the best policy for the Bradley-Terry reward, its tau chosen by what is measured here",
    "table: nash-md, step of 5": "Nash-MD with steps that stay as large: mean over the last 200 policies",
    "table: mirror descent, step of 5": "online mirror descent with such steps",
    "start": "the model that all others start from",
    "rlhf": "policy gradient on the Bradley-Terry reward of the start model's answers, tau 0.2 for its slope of 4",
    "rlhf, same tau": "the same with tau 0.05",
    "best response": "nash-md, mixture 1",
    "nash-md 1/2": "nash-md, mixture 0.5",
    "nash-md 1/4": "nash-md, mixture 0.25",
    "self-play": "nash-md, mixture 0",
}

CLAIM = Claim(
    slug="nashmd",
    statement=(
        "Where preferences go round in circles, Nash-MD comes to the regularised equilibrium in its last iterate, "
        "while the best policy for a Bradley-Terry reward stays exploitable; trained by policy gradients, it is "
        "exploited less than RLHF and than a best response, and more steadily than self-play."
    ),
    setting=(
        "Tables: 20 games a seed of eight answers, P = sigmoid(a_i - a_j + c C_ij), C antisymmetric and random, c 2 or "
        "(as a control) 0; 2,000 steps; exact expectations. Models: a transformer (2 layers, width 32) that "
        "answers with three of six words; of two answers, whose words beat more of the other's (rock, paper, scissors) "
        "is likelier preferred. It first imitates answers of classes .5, .3, .2. Then 250 updates of 128 answers and "
        "128 opponents, AdamW 5e-4, in all arms; its policy over all 216 answers is read off exactly, "
        "ten times over the last 100 updates. tau is 0.05 in both. Every seed redraws games, weights and samples."
    ),
    metrics=(
        Metric(
            *("gap_circles", "gap of tables in circles", "lower", None, True),
            about="what a best response gains under the KL of tau, mean over games; 0 at the equilibrium",
            resolution=0.001,
        ),
        Metric("gap_order", "gap of tables without circles", "lower", resolution=0.001),
        Metric("apart", "KL of the tables' equilibrium from the policy", "lower", "nats", resolution=0.001),
        Metric(
            *("exploited", "exploited by the best answer", "lower", "share"),
            about="win rate of the best answer against the policy less 1/2, mean over the last 100 updates",
            resolution=0.001,
        ),
        Metric("gap", "gap of models", "lower", resolution=0.001),
        Metric(
            *("swing", "swing of what can be exploited", "lower", "share"),
            about="standard deviation over the last 100 updates",
            scale="log",
        ),
        Metric("missed", "share of samples that are no answer"),
    ),
    arms=tuple(Arm(name, about) for name, about in ARMS.items()),
    expectations=(
        Expect("gap_circles", "table: nash-md", "table: rlhf", 0.02),
        Expect("gap_circles", "table: nash-md", "table: best response", 0.02),
        Expect("gap_circles", "table: nash-md", "table: multiplicative weights", 0.02),
        Expect("exploited", "nash-md 1/4", "rlhf", 0.05),
        Expect("exploited", "nash-md 1/4", "best response", 0.05),
        Expect("swing", "nash-md 1/4", "self-play", 1.0),
        # With the paper's steps mirror descent comes to the same end; with larger ones that stay it does not.
        Expect("gap_circles", "table: mirror descent", "table: nash-md", 0.005, "equivalent", decides=False),
        Expect("gap_circles", "table: nash-md, step of 5", "table: mirror descent, step of 5", 0.01, decides=False),
        Expect("gap", "nash-md 1/4", "self-play", 0.0, decides=False),
        Expect("gap", "nash-md 1/4", "rlhf", 0.05, decides=False),
        Expect("exploited", "self-play", "rlhf", 0.05, decides=False),
        Expect("exploited", "nash-md 1/4", "nash-md 1/2", 0.0, decides=False),
        Expect("exploited", "nash-md 1/4", "start", 0.0, decides=False),
        Expect("exploited", "rlhf", "rlhf, same tau", 0.0, decides=False),
    ),
    checks=(
        Check("Nash-MD is at the equilibrium of tables", "gap_circles", "table: nash-md", at_most=0.005),
        *(
            Check(f"{name}: its samples are answers", "missed", name, at_most=0.05)
            for name in ("start", *RLHF, *OPPONENTS)
        ),
    ),
    controls=(
        Control(
            "where nothing goes round, a reward is all there is",
            Expect("gap_order", "table: nash-md", "table: rlhf", 0.005),
        ),
    ),
    # A pilot with another seed: swing 0.013 for nash-md 1/4 and 0.028 for self-play, exploited 0.063 and 0.067; where
    # training comes to its end, tables say 0.07 for nash-md 1/4, 0.17 for a best response and 0.18 for rlhf. Tables of
    # rlhf: gap 0.070.
    run=measure,
    prepare=prepare,
    methods=("nash-md",),
)
