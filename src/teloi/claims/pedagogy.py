"""Pedagogical Alignment of Large Language Models (Sonkar et al., 2024).

The paper sets the reference record of each tutor turn against the SFT model's own wrong record and trains DPO, IPO and
KTO on these pairs; all three beat the SFT model they start from, in the accuracy of the record's codes and in how much
likelier hints are than solutions. Here a synthetic tutor (`teloi.worlds.tutor`) and a model of about 0.1M parameters
take the place of conversations and a 7B model, and two arms stand beside that the paper lacks: SFT for the same extra
steps, on its own turns and on those of both halves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from teloi.claims.claim import Arm, Check, Claim, Control, Expect, Outcome, Run
from teloi.measure.summary import Metric
from teloi.worlds.tutor import (
    Record,
    Turn,
    accuracy,
    direct,
    macro_f1,
    parse,
    reference,
    scaffolds,
    turns,
    vocabulary,
)

if TYPE_CHECKING:
    from teloi.engine.fit import Fitted
    from teloi.engine.objective import Objective
    from teloi.engine.setup import Base

Rows = Sequence[Mapping[str, Any]]

PAPER = ("dpo", "ipo", "kto")
RATES = (5e-6, 1e-5, 2e-5, 3e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
"""Learning rates that every trained arm chooses from, by its accuracy on validation turns."""

HELPFUL = 0.9
"""Share of the base's training records that answer directly."""

LONGEST = 8
"""Tokens a tutor may write; a record has five and an end."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    base_steps: int = 300
    sft_turns: int = 60
    sft_steps: int = 40
    preference_turns: int = 200
    validation_turns: int = 200
    test_turns: int = 500
    steps: int = 60
    rates: Sequence[float] = RATES


FULL = Sizes()
QUICK = Sizes(40, 20, 5, 24, 20, 30, 3, RATES[2:4])


def prepare(run: Run) -> None:
    """What the arms of a seed share: the helpful base, the SFT model, and the pairs made of its errors."""
    from safetensors.torch import save_model

    from teloi.methods.finetune.sft import SFT

    sizes = QUICK if run.quick else FULL
    draw = run.rng("helpfulness")
    asked = turns(48 * sizes.base_steps, run.rng("base turns"))
    answers = [direct(turn) if draw.random() < HELPFUL else reference(turn) for turn in asked]
    base = train(run, SFT(), start(run), rows(asked, answers), sizes.base_steps, 2e-3, 48).base
    sft = train(run, SFT(), base, gold_rows(sft_turns(run)), sizes.sft_steps, 2e-4, 16).base
    save_model(base.model, str(run.directory / "base.safetensors"))
    save_model(sft.model, str(run.directory / "sft.safetensors"))
    pairs = [
        {"prompt": turn.prompt, "chosen": f" {reference(turn)}", "rejected": f" {text}"}
        for turn, text in zip(preference_turns(run), written(sft, preference_turns(run)), strict=True)
        if (record := parse(text)) is None or record.codes != reference(turn).codes
    ]
    (run.directory / "pairs.json").write_text(json.dumps(pairs))


def measure(run: Run) -> Outcome:
    """Train an arm with every learning rate, keep the one that validates best, test that."""
    sizes = QUICK if run.quick else FULL
    pairs: Rows = json.loads((run.directory / "pairs.json").read_text())
    checkpoint = start(run, "base" if run.arm == "base" else "sft")
    details: dict[str, Any] = {}
    chosen = checkpoint
    if run.arm not in ("base", "sft") and pairs:
        objective, data, batch_size = training(run, pairs)
        validation = turns(sizes.validation_turns, run.rng("validation turns"))
        found = []
        for rate in sizes.rates:
            trained = train(run, objective, checkpoint, data, sizes.steps, rate, batch_size).base
            found.append((accuracy(records(trained, validation), validation, codes), trained))
        best = int(np.argmax([score for score, _ in found]))  # of equals the smallest rate
        chosen = found[best][1]
        details = {"learning_rate": sizes.rates[best], "validation_accuracy": [score for score, _ in found]}
    test = turns(sizes.test_turns, run.rng("test turns"))
    metrics = tested(chosen, test) | {"pairs": len(pairs)}
    if pairs:
        metrics["pairs_moved"] = float(np.mean(margins(chosen, pairs) > margins(checkpoint, pairs)))
    lost = metrics["parsed"] < 0.5
    return Outcome(metrics, details, "more than half of its replies are no records" if lost else None)


def training(run: Run, pairs: Rows) -> tuple[Objective, Rows, int]:
    """What an arm is trained with, on what, and in batches of how many rows."""
    from teloi.methods.finetune.sft import SFT
    from teloi.methods.prefer.dpo import DPO, IPO
    from teloi.methods.prefer.kto import KTO

    match run.arm:
        case "sft longer":
            return SFT(), gold_rows(sft_turns(run)), 32
        case "sft on both halves":
            return SFT(), gold_rows([*sft_turns(run), *preference_turns(run)]), 32
        case "dpo":
            return DPO(beta=0.1), pairs, 32
        case "ipo":
            return IPO(beta=0.1), pairs, 32
        case "kto":
            return KTO(beta=0.1), pairs, 64  # each pair is two rows
        case "dpo, sides by coin":
            swapped = set(run.rng("coin").permutation(len(pairs))[: len(pairs) // 2].tolist())
            return DPO(beta=0.1), [swap(pair) if i in swapped else pair for i, pair in enumerate(pairs)], 32
    raise ValueError(f"no arm {run.arm!r}")


def swap(pair: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pair with its sides the other way round."""
    return {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}


def sft_turns(run: Run) -> list[Turn]:
    """The half that the SFT model is made from."""
    return turns((QUICK if run.quick else FULL).sft_turns, run.rng("sft turns"))


def preference_turns(run: Run) -> list[Turn]:
    """The half that pairs are made from."""
    return turns((QUICK if run.quick else FULL).preference_turns, run.rng("preference turns"))


def rows(asked: Sequence[Turn], answers: Sequence[Record]) -> Rows:
    """Turns with these answers as rows of prompt and completion."""
    return [{"prompt": t.prompt, "completion": f" {record}"} for t, record in zip(asked, answers, strict=True)]


def gold_rows(asked: Sequence[Turn]) -> Rows:
    """Turns with their right records."""
    return rows(asked, [reference(turn) for turn in asked])


def start(run: Run, checkpoint: str | None = None) -> Base:
    """The scratch model of the seed, with the weights of a checkpoint that `prepare` left."""
    import torch
    from safetensors.torch import load_model

    from teloi.engine.fit import as_base
    from teloi.models.scratch import scratch_model, word_tokenizer

    tokenizer = word_tokenizer(vocabulary())
    torch.manual_seed(run.seed)
    base = as_base(scratch_model("tiny", tokenizer), tokenizer, max_length=64, layout="padded")
    if checkpoint:
        load_model(base.model, run.directory / f"{checkpoint}.safetensors")
    return base


def train(
    run: Run, objective: Objective, base: Base, data: Rows, steps: int, learning_rate: float, batch_size: int
) -> Fitted:
    """A copy of the base after so many steps, in the paper's schedule: cosine, a tenth of warm-up, decay 0.05."""
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import fit

    config = TrainConfig(
        budget=f"{steps} steps",
        batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        weight_decay=0.05,
        micro_tokens=8192,
        seed=run.seed,
    )
    return fit(objective, base, data, config)


def written(base: Base, asked: Sequence[Turn]) -> list[str]:
    """The greedy reply to each turn."""
    from teloi.generate.local import generate
    from teloi.models.attention import attention

    tokenizer = base.processor.tokenizer
    prompts = [base.processor.prompt_ids(turn.prompt) for turn in asked]
    with attention(base.model, "sdpa"):
        replies = generate(base.model, tokenizer, prompts, LONGEST, batch_size=256)
    return [str(tokenizer.decode(one, skip_special_tokens=True)) for (one,) in replies]


def records(base: Base, asked: Sequence[Turn]) -> list[Record | None]:
    """The record in each greedy reply, None where it is none."""
    return [parse(text) for text in written(base, asked)]


def codes(record: Record) -> tuple[str, str, str]:
    """What must be right of a record."""
    return record.codes


CODES: Mapping[str, Callable[[Record], str]] = {
    "evaluation": lambda record: record.evaluation,
    "action": lambda record: record.action,
    "state": lambda record: record.state,
}


def tested(base: Base, asked: Sequence[Turn]) -> dict[str, float]:
    """Everything that is measured on test turns."""
    from torch import full

    from teloi.losses import perplexity

    found = records(base, asked)
    metrics = {"accuracy": accuracy(found, asked, codes), "parsed": float(np.mean([r is not None for r in found]))}
    for name, code in CODES.items():
        metrics[f"accuracy_{name}"] = accuracy(found, asked, code)
        metrics[f"f1_{name}"] = macro_f1(found, asked, code)
    hinted = [turn for turn in asked if scaffolds(turn)]
    # Hint and solution of each turn have the same number of tokens: [turns, 2, tokens].
    logps = token_logps(base, [turn.prompt for turn in hinted], [[reference(t), direct(t)] for t in hinted])
    hint, told = (perplexity(logps[:, side], full([len(hinted)], logps.shape[2])) for side in (0, 1))
    metrics |= {"ppl_hint": float(hint), "ppl_direct": float(told), "ppl_ratio": float(told / hint)}
    gold = token_logps(base, [turn.prompt for turn in asked], [[reference(turn)] for turn in asked])
    return metrics | {"gold_logp": float(gold.sum(-1).mean())}


def token_logps(base: Base, prompts: Sequence[str], completions: Sequence[Sequence[object]]) -> Any:
    """Log-probability of each token of equally long completions, [prompts, completions, tokens]."""
    from teloi.batch.tree import TreeBatch
    from teloi.data.encode import tree
    from teloi.models.roles import LanguageModel, evaluation

    trees = [tree(base.processor, p, [f" {c}" for c in some]) for p, some in zip(prompts, completions, strict=True)]
    with evaluation(base.model):
        logps = LanguageModel(base.model, base.layout).logps(TreeBatch(trees))
    return logps.reshape(len(trees), len(completions[0]), -1)


def margins(base: Base, pairs: Rows) -> np.ndarray[Any, Any]:
    """Log p of the reference record less that of the SFT model's own, for each pair."""
    from teloi.batch.tree import TreeBatch
    from teloi.data.encode import tree
    from teloi.models.roles import LanguageModel, evaluation

    trees = [tree(base.processor, pair["prompt"], [pair["chosen"], pair["rejected"]]) for pair in pairs]
    with evaluation(base.model):
        right, wrong = LanguageModel(base.model, base.layout).branch_sums(TreeBatch(trees))
    return np.asarray(right - wrong)


CLAIM = Claim(
    slug="pedagogy",
    statement=(
        "Preference learning (DPO, IPO, KTO) on an SFT model's own errors makes a better tutor of it: more right "
        "decisions, and hints likelier than solutions."
    ),
    setting=(
        "Synthetic tutor, scratch Llama (2 layers, width 64). A helpful base (300 steps of 48 records that answer "
        "directly nine times in ten), SFT on 60 turns (40 steps of 16), pairs from its errors on 200 further turns, "
        "then 60 steps on 32 pairs or turns each. Each trained arm chooses its learning rate from the same ten by "
        "accuracy on 200 validation turns. Tested on 500 turns. Every seed redraws all turns and the model."
    ),
    metrics=(
        Metric(
            *("accuracy", "right decisions", "higher", "share", True),
            about="share of test turns whose greedy record has the right evaluation, action and state; none is wrong",
            resolution=1 / FULL.test_turns,
        ),
        Metric(
            *("ppl_ratio", "perplexity of solutions over hints", "higher"),
            about="on turns whose right action is a hint: perplexity of direct records over that of the right ones",
            scale="log",
            resolution=0.01,
        ),
        *(Metric(f"accuracy_{code}", f"right {code}", "higher", "share", resolution=1 / 500) for code in CODES),
        *(Metric(f"f1_{code}", f"macro-F1 of {code}", "higher") for code in CODES),
        Metric("parsed", "replies that are records", "higher", "share"),
        Metric("gold_logp", "log-probability of the right record", "higher", "nats"),
        Metric("ppl_hint", "perplexity of hints", "lower"),
        Metric("ppl_direct", "perplexity of solutions"),
        Metric("pairs", "pairs made of the SFT model's errors"),
        Metric("pairs_moved", "pairs moved towards their right side", unit="share"),
    ),
    arms=(
        Arm("base", "answers directly; never told to teach"),
        Arm("sft", "the base after SFT on 60 turns: where all arms below start"),
        Arm("sft longer", "60 more steps of SFT on the same 60 turns"),
        Arm("sft on both halves", "60 more steps of SFT on those and the 200 turns that the pairs were made of"),
        Arm("dpo", "60 steps of DPO (beta 0.1) on the pairs"),
        Arm("ipo", "60 steps of IPO (beta 0.1, means over tokens) on the pairs"),
        Arm("kto", "60 steps of KTO (beta 0.1) on the pairs, as single records"),
        Arm("dpo, sides by coin", "negative control: DPO on the pairs, a random half of them with sides swapped"),
    ),
    expectations=(
        *(Expect("accuracy", arm, "sft", 0.05) for arm in PAPER),
        *(Expect("ppl_ratio", arm, "sft", 1.1) for arm in PAPER),
        # The control that the paper lacks: what SFT makes of the same turns.
        *(Expect("accuracy", "sft on both halves", arm, 0.02, decides=False) for arm in PAPER),
        *(Expect("ppl_ratio", arm, "sft on both halves", 1.1, decides=False) for arm in PAPER),
    ),
    checks=(
        Check("the base prefers solutions to hints", "ppl_ratio", "base", at_most=1.0),
        Check("the SFT model errs often enough to learn from", "pairs", "sft", at_least=30),
        *(Check(f"{arm} moves most pairs towards their right side", "pairs_moved", arm, 0.75) for arm in PAPER),
    ),
    controls=(
        Control(
            "pairs whose sides a coin decides do not raise accuracy",
            Expect("accuracy", "dpo, sides by coin", "sft", 0.05),
        ),
    ),
    run=measure,
    prepare=prepare,
    methods=("sft", "dpo", "ipo", "kto"),
)
