"""Unpacking DPO and PPO (Ivison et al., 2024).

The paper holds start model, comparisons and budget fixed and changes one thing at a time. The quality of the
comparisons matters most, then the algorithm: PPO against a reward model of the same comparisons beats DPO on them. Here
summaries of topics, whose worth is known exactly (`teloi.worlds.topics`), are compared, with labels as they are and
with a share of them flipped; and PPO is held to DPO's distance from the start model too, since what moves further may
win by that alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from teloi.claims import feedback
from teloi.claims.claim import Arm, Check, Claim, Expect, Outcome, Run
from teloi.measure.summary import Metric

if TYPE_CHECKING:
    from teloi.claims.feedback import Rows
    from teloi.engine.setup import Base

FLIPPED = 0.3
"""Share of labels that say the contrary in the poorer comparisons."""

KL = 0.05
"""Weight of the KL in PPO's rewards."""
MATCHED_KL = 0.2
"""The weight with which PPO moves about as far as DPO does."""

FOUND = "found.json"


def prepare(run: Run) -> None:
    """All models of a seed, and what each writes is worth: the effects below are differences between them."""
    sft = feedback.imitator(run)
    count = feedback.sizes(run).comparisons
    found = {"sft": tested(run, sft, sft)}
    for quality, flipped in (("", 0.0), (", flipped", FLIPPED)):
        pairs = feedback.comparisons(run, sft, "training", count, flipped)
        reward = run.directory / f"reward{quality}"
        feedback.reward_model(run, sft, pairs, reward)
        known = {"agreement": feedback.agreement(run, sft, reward)}
        found[f"dpo{quality}"] = tested(run, direct(run, sft, pairs), sft)
        found[f"ppo{quality}"] = tested(run, feedback.optimised(run, sft, reward, KL), sft) | known
        matched = feedback.optimised(run, sft, reward, MATCHED_KL)
        found[f"ppo near{quality}"] = tested(run, matched, sft) | known
    worth = {arm: metrics["worth"] for arm, metrics in found.items()}
    by_labels = [worth[arm] - worth[f"{arm}, flipped"] for arm in ("dpo", "ppo")]
    found["better labels"] = {"gain": sum(by_labels) / len(by_labels)}
    found["the other algorithm"] = {"gain": worth["ppo"] - worth["dpo"]}
    (run.directory / FOUND).write_text(json.dumps(found))


def direct(run: Run, sft: Base, pairs: Rows) -> Base:
    """What DPO makes of the imitator."""
    from teloi.methods.prefer.dpo import DPO

    steps = 300 if not run.quick else feedback.QUICK.updates
    return feedback.train(run, DPO(beta=0.1), sft, pairs, steps, 1e-3).base


def tested(run: Run, policy: Base, sft: Base) -> dict[str, float]:
    """What a policy's responses are worth, and how far it is from the imitator."""
    asked = feedback.tested_topics(run)
    said = [one for (one,) in feedback.responses(run, policy, asked, "test")]
    return feedback.judged(run, said) | {"kl": feedback.kl(policy, sft, asked, said)}


def measure(run: Run) -> Outcome:
    """What was found of an arm."""
    metrics = json.loads((run.directory / FOUND).read_text())[run.arm]
    return Outcome(metrics, {}, "its responses do not end" if metrics.get("finished", 1) < 0.5 else None)


CLAIM = Claim(
    slug="dpo-ppo",
    statement=(
        "On the same comparisons PPO against a reward model of them beats DPO, and better labels gain more than the "
        "better algorithm."
    ),
    setting=(
        "Summaries of 8 topics in 24 words with hidden utilities. Scratch Llama (2 layers, width 48): SFT on "
        "references, 300 steps of 64, from which all start; 4,000 comparisons of its responses, labelled by the "
        "logistic of twice their difference in worth, and the same with three labels in ten flipped. DPO: beta 0.1, "
        "300 steps of 64 pairs, rate 1e-3. PPO: reward model, 400 steps of 64 pairs, centred (0.01) and shifted so "
        "that references have a mean of 0; 120 updates of 128 responses (2 passes of 2 steps, rate 5e-4, critic 1e-3 "
        "from the reward model, KL 0.05 or 0.2, a response without end scores -1). Tested on 1,000 responses at "
        "temperature 1. Every seed redraws utilities, all data and the models. In a pilot with another seed DPO's "
        "rate and beta were chosen from three pairs of values, PPO's weight of the KL from two."
    ),
    metrics=(
        Metric("worth", "worth", "higher", None, True, about="mean utility of responses, which only the world knows"),
        Metric("win_rate", "wins against references", "higher", "share", resolution=1 / 1000),
        Metric("gain", "gained in worth", "higher"),
        Metric("kl", "KL from the SFT model", unit="nats"),
        Metric("agreement", "order of pairs that the reward model has right", "higher", "share"),
        Metric("words", "words of a response"),
        Metric("finished", "responses that end", "higher", "share"),
    ),
    arms=(
        Arm("sft", "imitates references: where all start"),
        Arm("dpo", "300 steps of DPO (beta 0.1) on 64 comparisons each"),
        Arm("ppo", "a reward model of the comparisons, then PPO against it, KL 0.05"),
        Arm("ppo near", "the same with a KL that holds it about as near to the start as DPO is"),
        Arm("dpo, flipped", "dpo on comparisons with three labels in ten flipped"),
        Arm("ppo, flipped", "ppo, its reward model from those"),
        Arm("ppo near, flipped", "ppo near, its reward model from those"),
        Arm("better labels", "clean less flipped, mean of dpo and ppo"),
        Arm("the other algorithm", "ppo less dpo, both on clean labels"),
    ),
    expectations=(
        Expect("worth", "ppo", "dpo", 0.1),
        Expect("gain", "better labels", "the other algorithm", 0.1),
        Expect("worth", "ppo near", "dpo", 0.1, decides=False),
        Expect("worth", "dpo, flipped", "ppo, flipped", 0.1, decides=False),
    ),
    checks=(Check("the reward model knows more than chance", "agreement", "ppo", at_least=0.65),),
    run=measure,
    prepare=prepare,
    methods=("dpo", "rm", "ppo"),
)
