"""Synthetic results of a comparison, shaped like those of a real one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pytest

METRICS = [
    {
        "name": "checks_satisfied",
        "label": "checks satisfied",
        "better": "higher",
        "unit": "share",
        "primary": True,
        "about": "share of held-out prompts whose greedy reply satisfies all its checks",
    },
    {
        "name": "preference_accuracy",
        "label": "preference accuracy",
        "better": "higher",
        "unit": "share",
        "about": "share of held-out pairs whose chosen reply has the larger implicit reward",
    },
    {
        "name": "reward_margin",
        "label": "reward margin",
        "better": "higher",
        "unit": "nats",
        "about": "mean of chosen minus rejected log-ratio to the base",
    },
    {
        "name": "kl",
        "label": "KL from base",
        "better": "lower",
        "unit": "nats/reply",
        "about": "log-ratio to the base summed over the model's own reply, mean over prompts",
    },
    {
        "name": "mean_length",
        "label": "length",
        "better": None,
        "unit": "tokens",
        "about": "mean length of the greedy reply",
    },
]

# share of satisfied checks, seconds to train, KL, noise of the loss
EFFECTS = {
    "base": (0.31, 0.0, 0.0, 0.0),
    "sft": (0.36, 41.0, 3.1, 0.25),
    "dpo": (0.44, 53.0, 9.4, 0.05),
    "ipo": (0.43, 54.0, 7.8, 0.4),
    "simpo": (0.425, 46.0, 14.2, 0.1),
    "kto": (0.37, 71.0, 5.0, 0.06),
}
PROMPTS = [
    (
        "Name three uses of a paper clip. Answer with exactly three bullet points.",
        ["exactly 3 bullet points"],
    ),
    (
        "Explain why the sky is blue in at most 40 words. Write in lower case.",
        ["at most 40 words", "lower case"],
    ),
    ("Write a sentence about rivers that ends with the word 'home'.", ["ends with 'home'"]),
    ("Give advice on sleeping well. Do not use the letter z.", ["no letter 'z'"]),
    ("Describe <b>HTML</b> & its tags in two sentences.", ["exactly 2 sentences"]),
    ("List the planets, one per line, numbered.", ["numbered list"]),
]
TEXT = (
    "Paper clips are small, but they are handy. You can hold pages together, reset a router, or bend one "
    "into a hook for a zip that lost its pull. Keep a few in a drawer; you will be glad of them on "
    "the day you need one."
)


def _run(name: str, seed: int, prompts: int, difficulty: np.ndarray[Any, Any], failed: bool) -> dict[str, Any]:
    share, seconds, kl, noise = EFFECTS.get(name, (0.3 + 0.01 * (len(name) % 9), 50.0, 6.0, 0.1))
    trained = name != "base"
    rng = np.random.default_rng([sum(map(ord, name)), seed if trained else 0])
    level = share + (rng.normal(0, 0.012) if trained else 0.0)
    items = (difficulty + rng.normal(0, 0.08, prompts) < np.quantile(difficulty, level)).astype(int)
    steps = 120
    start = 3.0 if name == "sft" else 0.69
    x = np.arange(1, steps + 1)
    loss = start * (0.45 + 0.55 * np.exp(-x / 40)) + rng.normal(0, noise * 0.5, steps)
    tokens = np.cumsum(rng.integers(1500, 1800, steps))
    curve = [
        {
            "step": int(i),
            "tokens": int(t),
            "loss": float(value),
            "grad_norm": float(2.0 + rng.gamma(2.0, 0.4)),
            "learning_rate": 1e-5 * min(1.0, i / 12) * (1 - i / steps),
        }
        for i, t, value in zip(x, tokens, loss, strict=True)
    ]
    return {
        "seed": seed,
        "metrics": {}
        if failed
        else {
            "checks_satisfied": float(items.mean()),
            "preference_accuracy": float(0.5 + 0.02 * kl + rng.normal(0, 0.01)) if trained else None,
            "reward_margin": float(0.3 * kl + rng.normal(0, 0.2)) if trained else 0.0,
            "kl": float(max(0.0, kl + rng.normal(0, 0.5))) if trained else 0.0,
            "mean_length": float(74 + kl + rng.normal(0, 2)) if trained else 74.0,
        },
        "items": {} if failed else {"checks_satisfied": items.tolist()},
        "ledger": {
            "trained_tokens": int(tokens[-1]) if trained else 0,
            "scored_tokens": int(tokens[-1] * 0.62) if trained else 0,
            "computed_tokens": int(tokens[-1] * 1.4) if trained else 0,
            "steps": steps if trained else 0,
            "train_seconds": seconds * (1 + rng.normal(0, 0.02)),
            "prepare_seconds": 6.5 if name in ("dpo", "ipo", "kto") else 0.2,
            "eval_seconds": 21.0,
        },
        "curve": (curve[:3] if failed else curve) if trained else [],
        "failed": "non-finite loss at step 3" if failed else None,
    }


@pytest.fixture
def make_results() -> Callable[..., dict[str, Any]]:
    return synthetic


def synthetic(
    *,
    arms: Sequence[str] = tuple(EFFECTS),
    seeds: int = 3,
    prompts: int = 200,
    samples: int = 6,
    failed: Collection[tuple[str, int]] = (),
) -> dict[str, Any]:
    """A results.json of `arms` x `seeds`; `failed` names runs that gave nothing."""
    difficulty = np.random.default_rng(1).random(prompts)
    settings = {"learning_rate": 1e-5, "schedule": "linear", "warmup": 0.1}
    return {
        "teloi": "0.1.0",
        "created": "2026-03-02T14:05:11+00:00",
        "command": "teloi compare " + " ".join(arms[1:]) + " --budget 200k --seeds 3",
        "data": {
            "train": "instructions",
            "eval": "instructions (test)",
            "train_rows": 412,
            "eval_rows": prompts,
        },
        "model": "SmolLM2-135M-Instruct",
        "budget": {"value": 200_000, "unit": "tokens"},
        "seeds": list(range(seeds)),
        "metrics": METRICS,
        "notes": [
            "Replies are greedy, 96 new tokens at most.",
            "kto reads each pair as one desirable and one undesirable reply.",
        ],
        "arms": [
            {
                "name": name,
                "method": None if name == "base" else name.split("-")[0],
                "settings": {} if name == "base" else {**settings, "beta": 0.1},
                "baseline": name == "base",
                "runs": [_run(name, seed, prompts, difficulty, (name, seed) in failed) for seed in range(seeds)],
            }
            for name in arms
        ],
        "samples": [
            {
                "prompt": prompt,
                "checks": checks,
                "reference": {"chosen": TEXT, "rejected": TEXT[:60]},
                "replies": {
                    name: {
                        "text": TEXT[: 80 + 37 * ((i + k) % 5)] * (1 + (k == 2)),
                        "ok": [True, False, None][(i + k) % 3],
                    }
                    for k, name in enumerate(arms)
                },
            }
            for i, (prompt, checks) in enumerate((PROMPTS * 3)[:samples])
        ],
    }
