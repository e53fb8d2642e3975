"""Learning to summarize from human feedback (Stiennon et al., 2020).

The paper fine-tunes a model on reference summaries, learns a reward from comparisons of its summaries, and trains a
policy with PPO against that reward less a KL penalty. People prefer its summaries to the references and to those of a
supervised model ten times its size. With a weak penalty the learned reward goes on rising while people like the
summaries less. Here summaries of topics, whose worth is known exactly (`teloi.worlds.topics`), take the place of
posts and people, and a model of 50 thousand parameters that of GPT-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from teloi.claims import feedback
from teloi.claims.claim import Arm, Check, Claim, Control, Expect, Outcome, Run
from teloi.measure.summary import Metric

if TYPE_CHECKING:
    from teloi.engine.setup import Base

LARGE = (128, 3, 4)
"""Width, layers and heads of the supervised model of ten times the size."""

WEAK, WEAK_STEPS = 200, 60
"""Comparisons of the weak reward model, and its steps: more would only learn them by heart."""

N = 16
"""Samples of best-of-n."""


@dataclass(frozen=True)
class Optimised:
    """An arm that PPO trains: against which reward model, and the weight of the KL."""

    reward: str
    kl: float


PPO: Mapping[str, Optimised] = {
    "ppo": Optimised("reward", 0.05),
    "ppo, weak reward, kl 0.4": Optimised("weak reward", 0.4),
    "ppo, weak reward, kl 0.02": Optimised("weak reward", 0.02),
    "ppo, labels by coin": Optimised("coin reward", 0.05),
}


def prepare(run: Run) -> None:
    """The imitator, and three reward models: of all comparisons, of a few, and of as many whose labels are chance."""
    sft = feedback.imitator(run)
    feedback.keep(sft, run.directory / "sft.safetensors")
    count = feedback.sizes(run).comparisons
    pairs = feedback.comparisons(run, sft, "training", count)
    by_coin = feedback.comparisons(run, sft, "training", count, flipped=0.5)
    feedback.reward_model(run, sft, pairs, run.directory / "reward")
    feedback.reward_model(run, sft, by_coin, run.directory / "coin reward")
    feedback.reward_model(run, sft, pairs[:WEAK], run.directory / "weak reward", WEAK_STEPS)


def measure(run: Run) -> Outcome:
    """Train an arm and judge what it writes."""
    sft = feedback.start(run, weights=run.directory / "sft.safetensors")
    asked = feedback.tested_topics(run)
    arm = PPO.get(str(run.arm), Optimised("reward", 0.0))
    reward = run.directory / arm.reward
    policy = trained(run, sft)
    if run.arm == "best of 16":
        said = feedback.best_of(run, sft, reward, N, asked)
    else:
        said = [one for (one,) in feedback.responses(run, policy, asked, "test")]
    metrics = feedback.judged(run, said)
    metrics["learned"] = sum(feedback.learned(reward, asked, said)) / len(said)
    metrics["agreement"] = feedback.agreement(run, sft, reward)
    if run.arm != "best of 16":  # whose responses are not the model's own
        metrics["kl"] = feedback.kl(policy, sft, asked, said)
    return Outcome(metrics, {}, "its responses do not end" if metrics["finished"] < 0.5 else None)


def trained(run: Run, sft: Base) -> Base:
    """The arm's model."""
    if (arm := PPO.get(str(run.arm))) is not None:
        return feedback.optimised(run, sft, run.directory / arm.reward, arm.kl)
    return feedback.imitator(run, LARGE, 2e-3) if run.arm == "sft, ten times the size" else sft


CLAIM = Claim(
    slug="summarize-hf",
    statement=(
        "A policy trained with PPO against a reward learned from comparisons writes better summaries than supervised "
        "models of its own and of ten times its size; against a weak reward, a weaker KL penalty brings more of the "
        "learned reward and less of what was meant."
    ),
    setting=(
        "Summaries of 8 topics in 24 words with hidden utilities. Scratch Llama (2 layers, width 48; the large one 3 "
        "layers, width 128): SFT on references, 300 steps of 64; 4,000 comparisons of its responses, labelled by the "
        "logistic of twice their difference in worth; reward model, 400 steps of 64 pairs, centred (0.01) and shifted "
        "so that references have a mean of 0; PPO, 120 updates of 128 responses (2 passes of 2 steps, rate 5e-4, "
        "critic 1e-3 from the reward model, KL 0.05, a response without end scores -1). The weak reward model has "
        "seen 200 of the comparisons in 60 steps. Tested on 1,000 responses at temperature 1, each against a "
        "reference to its topic. Every seed redraws utilities, all data and the models."
    ),
    metrics=(
        Metric(
            *("win_rate", "wins against references", "higher", "share", True),
            about="share of responses that are worth more than a reference to the same topic; equals count half",
            resolution=1 / 1000,
        ),
        Metric("worth", "worth", "higher", about="mean utility of responses, which only the world knows"),
        Metric("learned", "learned reward", "higher", about="what the arm's reward model says of its responses"),
        Metric("kl", "KL from the SFT model", unit="nats"),
        Metric("agreement", "order of pairs that the reward model has right", "higher", "share"),
        Metric("words", "words of a response"),
        Metric("finished", "responses that end", "higher", "share"),
    ),
    arms=(
        Arm("sft", "imitates references: where the policies start"),
        Arm("sft, ten times the size", "imitates the same references with 520 thousand parameters"),
        Arm("best of 16", "16 responses of the SFT model, the one that the reward model likes best"),
        Arm("ppo", "PPO against the reward model of 4,000 comparisons, KL 0.05"),
        Arm("ppo, weak reward, kl 0.4", "PPO against the reward model of 200 comparisons, held near the SFT model"),
        Arm("ppo, weak reward, kl 0.02", "the same, hardly held"),
        Arm("ppo, labels by coin", "negative control: the reward model of 4,000 comparisons whose labels are chance"),
    ),
    expectations=(
        Expect("win_rate", "ppo", "sft", 0.1),
        Expect("win_rate", "ppo", "sft, ten times the size", 0.1),
        Expect("learned", "ppo, weak reward, kl 0.02", "ppo, weak reward, kl 0.4", 0.1),
        Expect("worth", "ppo, weak reward, kl 0.4", "ppo, weak reward, kl 0.02", 0.1),
        # Without training: what the reward itself is good for.
        Expect("win_rate", "best of 16", "sft", 0.1, decides=False),
        Expect("win_rate", "ppo", "best of 16", 0.0, decides=False),
    ),
    checks=(
        Check("the reward model knows more than chance", "agreement", "ppo", at_least=0.65),
        Check("the SFT model has learned to end", "finished", "sft", at_least=0.9),
    ),
    controls=(Control("a reward of chance improves nothing", Expect("win_rate", "ppo, labels by coin", "sft", 0.1)),),
    run=measure,
    prepare=prepare,
    methods=("sft", "rm", "ppo", "best-of-n"),
)
