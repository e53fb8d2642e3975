"""What the claims about digits that ought to count have in common: a policy that says any digit after any, PPO on it,
and what it says then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from teloi.claims.claim import Run
from teloi.worlds import digits

if TYPE_CHECKING:
    from teloi.engine.setup import Base
    from teloi.methods.reinforce.ppo import PPO

SIZE = (48, 2, 4)
"""Width, layers and heads of policy and critic."""

RATE = 1e-3
"""Learning rate of policy and critic."""

COMMON: dict[str, Any] = {
    "k": 1,
    "epochs": 2,
    "minibatches": 2,
    "kl": 0.01,
    "gamma": 1.0,
    "lam": 0.95,
    "temperature": 1.0,
    "value_weight": 1.0,
    "whiten_advantages": True,
}
"""Settings of PPO that no arm changes but where it says so."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    updates: int = 60
    batch: int = 48
    fitting: int = 60
    prompts: int = 300
    window: int = 3


FULL = Sizes()
QUICK = Sizes(4, 8, 4, 20, 2)


def sizes(run: Run) -> Sizes:
    """Those of a run for the record, or of one in seconds."""
    return QUICK if run.quick else FULL


def start(run: Run, length: int) -> Base:
    """The seed's policy, fitted to `length` digits drawn evenly."""
    import torch

    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import as_base, fit
    from teloi.methods.finetune.sft import SFT
    from teloi.models.scratch import scratch_model, word_tokenizer

    tokenizer = word_tokenizer(digits.words())
    torch.manual_seed(run.seed)
    model: Any = scratch_model(SIZE, tokenizer)
    for parameter in model.parameters():
        if parameter.dim() > 1:  # the usual 0.02 is for wide models: this one would hardly learn
            torch.nn.init.normal_(parameter, std=SIZE[0] ** -0.5)
    # The end token is cut off: the policy is not to stop.
    base = as_base(model, tokenizer, max_length=length + 1, layout="padded", overlong="truncate")
    steps = sizes(run).fitting
    rows = digits.rows(2048, length, run.rng("digits to fit"))
    config = TrainConfig(
        budget=f"{steps} steps", batch_size=64, micro_tokens=64 * (length + 1), learning_rate=3e-3, seed=run.seed
    )
    return fit(SFT(), base, rows, config).base


def train(
    run: Run, objective: PPO, base: Base, updates: int, watch: Callable[[int, Base], object] | None = None
) -> tuple[Base, list[float]]:
    """The policy after so many updates, and the mean reward of the responses that each of them was made on."""
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import fit

    size = sizes(run)
    rows = [{"prompt": row["prompt"]} for row in digits.rows(size.batch * updates, 0, run.rng("prompts"))]
    config = TrainConfig(
        budget=f"{updates} steps",
        batch_size=size.batch,
        micro_tokens=size.batch * (objective.max_new_tokens + 1),
        learning_rate=RATE,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        seed=run.seed,
    )
    fitted = fit(objective, base, rows, config, watch)
    return fitted.base, [record["reward"] for record in fitted.records]


def said(run: Run, base: Base, length: int) -> tuple[list[str], list[str]]:
    """Held-out prompts and what a policy says to them at temperature 1."""
    from teloi.generate.local import generate

    asked = [row["prompt"] for row in digits.rows(sizes(run).prompts, 0, run.rng("held-out prompts"))]
    tokenizer = base.processor.tokenizer
    ids = [base.processor.prompt_ids(prompt) for prompt in asked]
    found = generate(base.model, tokenizer, ids, length, 1.0, seed=run.seed, batch_size=len(ids))
    return asked, [str(tokenizer.decode(one, skip_special_tokens=True)) for (one,) in found]


def reached(run: Run, rewards: Sequence[float], least: float) -> int:
    """Updates after which the mean reward over some of them in a row has reached `least`: one more than there are where
    it never does."""
    window = sizes(run).window
    means = [sum(rewards[i : i + window]) / window for i in range(len(rewards) - window + 1)]
    return next((i + window for i, mean in enumerate(means) if mean >= least), len(rewards) + 1)
